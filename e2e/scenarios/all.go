package scenarios

import (
	"context"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/cluster"
)

// restFor is how long a cluster is left alone, to see that its hooks rest.
const restFor = 25 * time.Second

// All deploys one unit with mode=all, which serves and works, and adds a second one on
// the same volume, which downloads nothing.
func All(ctx context.Context, t T, c cluster.Cluster, in Inputs) {
	r := begin(ctx, t, c, in, "")
	r.phase("one unit active", firstUnitTarget, func() cluster.Held {
		r.deploy(1, map[string]string{"mode": "all"})
		return r.active(1, in.From.Version)
	})
	one := r.atRest("one unit", in.From.Version)
	r.login(one, in.From)
	r.buildOn("a build on the unit", unitsOf(one.Status))

	r.phase("second unit active", newUnitTarget, func() cluster.Held {
		_, err := c.AddUnits(ctx, app, 1)
		require.NoError(t, err)
		return r.active(2, in.From.Version)
	})
	two := r.atRest("two units", in.From.Version)
	r.buildOn("a build on both units", unitsOf(two.Status))

	// Long enough for hooks that come without a reason to be seen.
	r.quiet()
	r.atRest("two units after their builds", in.From.Version)
	r.aMoment(restFor)
	r.atRest("two units left alone", in.From.Version)
}

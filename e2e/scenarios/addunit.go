package scenarios

import (
	"context"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/cluster"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/judge"
)

// AddUnit adds two units at once while the first one downloads, then one more to a
// cluster that runs. Nobody but the first unit downloads anything.
func AddUnit(ctx context.Context, t T, c cluster.Cluster, in Inputs) {
	r := begin(ctx, t, c, in, "")
	in.Mirror.Break(in.From.Version, cluster.MirrorFault{Name: "held in the middle", Hold: held})
	r.deploy(1, nil)
	r.underWay(in.From.Version)
	_, err := c.AddUnits(ctx, app, 2)
	require.NoError(t, err)
	r.wait("two more units to wait for the download", cluster.All(
		cluster.UnitIs(app+"/1", cluster.Maintenance, "Waiting for binaries"),
		cluster.UnitIs(app+"/2", cluster.Maintenance, "Waiting for binaries"),
	))
	in.Mirror.Repair(in.From.Version)
	r.phase("three units active after the mirror went on", clusterTarget, func() cluster.Held { return r.active(3, in.From.Version) })
	three := r.atRest("two units added during a download", in.From.Version)
	r.login(three, in.From)

	var added []string
	r.phase("fourth unit active", newUnitTarget, func() cluster.Held {
		added, err = c.AddUnits(ctx, app, 1)
		require.NoError(t, err)
		return r.active(4, in.From.Version)
	})
	four := r.atRest("a unit added to a running cluster", in.From.Version)
	r.demand("undisturbed", judge.Undisturbed(three, four, added...))
	r.buildOn("a build on every worker", workersOf(four.Status))
}

package scenarios

import (
	"context"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/cluster"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/judge"
)

// refusedFor is how long a mirror refuses: in its third minute it has to be asked half as
// often as in the first.
const refusedFor = 190 * time.Second

// Mirror installs from mirrors that limit rates, restart, reset connections, know no
// ranges and are slow. Each version is downloaded once in the end; what refuses is asked
// ever more rarely.
func Mirror(ctx context.Context, t T, c cluster.Cluster, in Inputs) {
	r := begin(ctx, t, c, in, "")
	in.Record.Allow(in.From.Version, 2) // what a reset has cut off may be sent again
	in.Mirror.Break(in.From.Version, cluster.MirrorFault{Name: "too many requests", Status: 429, RetryAfter: time.Second, First: 1})
	r.deploy(3, nil)
	err := cluster.Poll(ctx, "the rate limit to be met", time.Second, patience, func(context.Context) (bool, error) {
		return len(in.Mirror.Attempts(in.From.Version, "")) > 0, nil
	})
	require.NoError(t, err)
	in.Mirror.Break(in.From.Version, cluster.MirrorFault{Name: "connections are reset", Truncate: 8 << 20, First: 4})
	deployed := r.active(3, in.From.Version)
	r.atRest("a rate limit and resets", in.From.Version)

	in.Mirror.Break(in.To.Version, cluster.MirrorFault{Name: "maintenance", Status: 503})
	require.NoError(t, r.upgrade(r.leader(deployed.Status), in.To.Version))
	r.aMoment(refusedFor)
	r.demand("rarer", judge.Rarer(in.Mirror.Attempts(in.To.Version, ""), time.Minute))
	in.Mirror.Break(in.To.Version, cluster.MirrorFault{Name: "slow, without ranges", NoRanges: true, Rate: 40 << 20})
	r.phase("upgrade from a mirror that came back", 0, func() cluster.Held { return r.active(3, in.To.Version) })
	r.atRest("a mirror that came back", in.To.Version)
}

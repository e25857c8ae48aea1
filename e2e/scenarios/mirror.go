package scenarios

import (
	"context"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/cluster"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/judge"
)

// refusedFor is how long a mirror refuses: in the second minute it is asked rarely.
const refusedFor = 125 * time.Second

// Mirror installs from mirrors that are down, limit rates, restart, reset connections, know
// no ranges, give the same archive another ETag, and are slow. Each version is downloaded
// once in the end; one that is down is asked rarely.
func Mirror(ctx context.Context, t T, c cluster.Cluster, in Inputs) {
	r := begin(ctx, t, c, in, "")
	in.Mirror.Break(in.From.Version, cluster.MirrorFault{Name: "maintenance", Status: 503})
	r.deploy(1, nil) // more of them would take turns
	r.asked(in.From.Version, 1)
	r.aMoment(refusedFor)
	attempts := in.Mirror.Attempts(in.From.Version, "")
	r.demand("unhurried", judge.Unhurried(attempts))

	in.Record.Allow(in.From.Version, 2) // what a reset has cut off may be sent again
	in.Mirror.Break(in.From.Version, cluster.MirrorFault{Name: "too many requests", Status: 429, RetryAfter: time.Second, First: 1})
	r.asked(in.From.Version, len(attempts)+1)
	in.Mirror.Break(in.From.Version, cluster.MirrorFault{Name: "connections are reset, by another node", Truncate: 8 << 20, Validator: "another", First: 4})
	_, err := c.AddUnits(ctx, app, 2)
	require.NoError(t, err)
	deployed := r.active(3, in.From.Version)
	r.login(r.atRest("a rate limit and resets", in.From.Version), in.From)

	in.Mirror.Break(in.To.Version, cluster.MirrorFault{Name: "slow, without ranges", NoRanges: true, Rate: 40 << 20})
	r.changeRelease("upgrade from a slow mirror", 0, in.To, func() error { return r.upgrade(r.leader(deployed.Status), in.To.Version) })
	r.buildOn("a build on every worker", workersOf(deployed.Status))
}

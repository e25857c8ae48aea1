package scenarios

import (
	"context"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/cluster"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/judge"
)

// DiskFull upgrades a cluster on a volume that has no room for another release. It says
// so, goes on with the release that it has, and upgrades by itself when there is room.
func DiskFull(ctx context.Context, t T, c cluster.Cluster, in Inputs) {
	r := begin(ctx, t, c, in, "3GiB")
	deployed := r.deployed(3)
	before := in.Record.Record().Last()
	leader := r.leader(deployed)

	full := r.volume.Full(50 << 20)
	r.during(full, func() {
		require.NoError(t, r.upgrade(leader, in.To.Version))
		r.phase("no room for another release said", 0, func() cluster.Held {
			return r.wait("the leader to say that there is no room", cluster.Blocked(leader, "space", "enlarge the volume"))
		})
		o := in.Record.Observe(ctx, "no room for another release", false, "")
		r.demand("undisturbed", judge.Undisturbed(before, o))
	})
	r.quiet()                         // see changeRelease
	in.Record.Allow(in.To.Version, 2) // of the first, what was there had to go
	r.phase("upgrade by itself when there is room", 0, func() cluster.Held { return r.active(3, in.To.Version) })
	upgraded := r.atRest("upgrade with room", in.To.Version)
	r.login(upgraded, in.To)
	r.buildOn("a build on every worker", workersOf(upgraded.Status))
}

package scenarios

import (
	"context"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/cluster"
)

// LossWhileDownloading takes the volume from the unit that downloads a release for an
// upgrade, in the middle. It says so, and the upgrade is made all the same.
func LossWhileDownloading(ctx context.Context, t T, c cluster.Cluster, in Inputs) {
	r := begin(ctx, t, c, in, "")
	deployed := r.deployed(3)
	in.Mirror.Break(in.To.Version, cluster.MirrorFault{Name: "held in the middle", Hold: held})
	in.Record.Allow(in.To.Version, 2)
	r.quiet() // see changeRelease
	require.NoError(t, r.upgrade(r.leader(deployed), in.To.Version))
	r.underWay(in.To.Version)
	holder := r.holder(in.To.Version)
	r.during(r.volume.Lost(holder), func() {
		r.phase("loss in the middle of a download said", lossTarget, func() cluster.Held {
			return r.wait("loss of "+holder+"'s volume", cluster.Blocked(holder, "Shared storage unavailable", "lxc config device add"))
		})
		in.Record.Observe(ctx, "a volume lost in the middle of a download", true, "")
		in.Mirror.Repair(in.To.Version)
	})
	r.phase("upgraded all the same", 0, func() cluster.Held { return r.active(3, in.To.Version) })
	r.login(r.atRest("upgraded all the same", in.To.Version), in.To)
	r.buildOn("a build on every worker after the upgrade", workersOf(deployed))
}

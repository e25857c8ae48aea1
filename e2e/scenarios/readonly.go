package scenarios

import (
	"context"

	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/cluster"
)

// ReadOnly lets a unit only read its volume. It says so, and recovers without a human.
func ReadOnly(ctx context.Context, t T, c cluster.Cluster, in Inputs) {
	r := begin(ctx, t, c, in, "")
	deployed := r.deployed(2)
	worker := unitsBut(deployed, r.server(deployed))[0]

	r.during(r.volume.ReadOnly(worker), func() {
		r.aMoment(lossTarget)
		in.Record.Observe(ctx, "a volume that can only be read", true, "")
	})
	r.recover("recovery of a volume that could only be read", 2)
	r.buildOn("a build after the recovery", workersOf(deployed))
}

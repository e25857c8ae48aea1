package scenarios

import (
	"context"

	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/cluster"
)

// Baseline deploys three units without shared storage: each downloads for itself, and
// all else is as in Auto.
func Baseline(ctx context.Context, t T, c cluster.Cluster, in Inputs) {
	r := &run{T: t, ctx: ctx, c: c, in: in, quiet: func() {}}
	in.Record.Allow(in.From.Version, 3)
	r.phase("three units active", 0, func() cluster.Held {
		r.deploy(3, nil)
		return r.active(3, in.From.Version)
	})
	o := r.atRest("three units without a volume", in.From.Version)
	transfer := in.Mirror.Transfer(in.From.Version)
	if transfer.Sent != 3*transfer.Size {
		r.demand("each-downloads", []string{"three units without a volume: " + transfer.String()})
	}
	r.login(o, in.From)
	r.buildOn("a build on every worker", workersOf(o.Status))
}

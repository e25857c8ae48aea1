package scenarios

import (
	"context"

	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/cluster"
)

// Baseline deploys three units without shared storage: each downloads for itself, and
// all else is as in Auto.
func Baseline(ctx context.Context, t T, c cluster.Cluster, in Inputs) {
	baseline(ctx, t, c, in, "auto", 3, workersOf)
}

// BaselineAll does so with two units that serve and work.
func BaselineAll(ctx context.Context, t T, c cluster.Cluster, in Inputs) {
	baseline(ctx, t, c, in, "all", 2, unitsOf)
}

func baseline(ctx context.Context, t T, c cluster.Cluster, in Inputs, mode string, units int, workers func(cluster.Status) []string) {
	r := &run{T: t, ctx: ctx, c: c, in: in, quiet: func() {}}
	in.Record.Allow(in.From.Version, units)
	r.phase("all units active", 0, func() cluster.Held {
		r.deploy(units, map[string]string{"mode": mode})
		return r.active(units, in.From.Version)
	})
	o := r.atRest("units without a volume", in.From.Version)
	transfer := in.Mirror.Transfer(in.From.Version)
	if transfer.Sent != int64(units)*transfer.Size {
		r.demand("each-downloads", []string{"units without a volume: " + transfer.String()})
	}
	r.login(o, in.From)
	r.buildOn("a build on every worker", workers(o.Status))
}

package scenarios

import (
	"context"

	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/cluster"
)

// Scale deploys ten units on one volume, which is one download.
func Scale(ctx context.Context, t T, c cluster.Cluster, in Inputs) {
	r := begin(ctx, t, c, in, "")
	r.phase("ten units active", 0, func() cluster.Held {
		r.deploy(10, nil)
		return r.active(10, in.From.Version)
	})
	o := r.atRest("ten units", in.From.Version)
	r.login(o, in.From)
	r.buildOn("a build on every worker", workersOf(o.Status))
}

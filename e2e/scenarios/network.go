package scenarios

import (
	"context"
	"time"

	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/cluster"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/judge"
)

// cutFor is longer than the web server takes to give a silent worker up.
const cutFor = 90 * time.Second

// Network cuts a worker off from everything, and heals it. The others go on, and the
// worker runs builds again without a human.
func Network(ctx context.Context, t T, c cluster.Cluster, in Inputs) {
	r := begin(ctx, t, c, in, "")
	r.deploy(3, nil)
	deployed := r.active(3, in.From.Version)
	before := r.atRest("three units", in.From.Version)
	r.login(before, in.From)
	server := r.server(deployed.Status)
	cut := unitsBut(deployed.Status, server)[0]
	left := workerNames(unitsBut(deployed.Status, server, cut))

	r.during(c.Machine(cut).CutOff(), func() {
		r.aMoment(cutFor)
		r.buildOn("a build without the worker that is cut off", left)
		o := in.Record.Observe(ctx, "a worker cut off", false, "")
		r.demand("undisturbed", judge.Undisturbed(before, o, cut))
	})
	r.phase("the worker is back", 0, func() cluster.Held { return r.active(3, in.From.Version) })
	r.atRest("the worker is back", in.From.Version)
	r.buildOn("a build on every worker", workersOf(deployed.Status))
}

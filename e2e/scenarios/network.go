package scenarios

import (
	"context"
	"slices"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/cluster"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/judge"
)

const (
	// cutFor is longer than the web server takes to give a silent worker up.
	cutFor = 90 * time.Second
	// saidWithin is how soon a unit that was ready says that it is not.
	saidWithin = 30 * time.Second
	tsaPort    = 2222
)

// Network cuts a worker off from everything, and heals it. The others go on, and the
// worker runs builds again without a human. One that only cannot register says that it is
// not ready.
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
	before = r.atRest("the worker is back", in.From.Version)
	r.buildOn("a build on every worker", workersOf(deployed.Status))

	r.during(c.Machine(cut).BlockPort(tsaPort), func() {
		require.NoError(t, cluster.Poll(ctx, "the web server to give the worker up", time.Second, patience, func(ctx context.Context) (bool, error) {
			running, err := r.runningWorkers(ctx)
			return err == nil && !slices.Contains(running, workerNames([]string{cut})[0]), err
		}))
		r.aMoment(saidWithin)
		o := in.Record.Observe(ctx, "a worker that is not listed", false, "")
		r.demand("ready-is-listed", judge.Unlisted(o, cut))
		r.demand("undisturbed", judge.Undisturbed(before, o))
	})
	r.recover("the worker is listed again", 3)
}

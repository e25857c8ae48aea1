package scenarios

import (
	"context"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/cluster"
)

// toGo is how long builds still run when something happens that must not end them.
const toGo = time.Minute

// FailoverWithBuilds takes the web server's machine away while a build runs on each
// worker. They go on, and their results are known to the next web server.
func FailoverWithBuilds(ctx context.Context, t T, c cluster.Cluster, in Inputs) {
	r := begin(ctx, t, c, in, "")
	deployed := r.deployed(3)
	old := r.server(deployed)
	r.quiet()
	ended := r.underWayOn(workersOf(deployed), 1, 3*toGo)
	require.NoError(t, c.Machine(old).Stop().Inject(ctx))
	r.phase("another unit serves", 0, func() cluster.Held {
		return r.wait("another unit to serve", servedByOther(old))
	})
	r.login(in.Record.Observe(ctx, "the web server's machine stopped", false, ""), in.From)
	ended()
}

package scenarios

import (
	"context"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/cluster"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/judge"
)

// WebRestart changes an option that the web server reads, while a build runs. The server
// is away for a moment only.
func WebRestart(ctx context.Context, t T, c cluster.Cluster, in Inputs) {
	r := begin(ctx, t, c, in, "")
	deployed := r.deployed(2)
	before := in.Record.Record().Last()
	r.quiet()
	ended := r.underWayOn(workersOf(deployed), 1, toGo)
	longest := in.Record.WatchWeb(ctx, before.Web.URL)
	r.configure("external-url", before.Web.URL+"/")
	require.NoError(t, cluster.Poll(ctx, "another web server process", time.Second, patience, func(ctx context.Context) (bool, error) {
		now := in.Record.Observe(ctx, "an option of the web server being changed", false, "")
		return len(judge.Restarted(before, now, r.server(deployed))) == 0, nil
	}))
	r.active(2, in.From.Version)
	gap := longest()
	in.Report.Add("the web server's longest silence", gap, 0, nil)
	r.demand("web-gap", judge.WebGap(gap))
	ended()
}

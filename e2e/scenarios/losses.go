package scenarios

import (
	"context"
	"fmt"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/cluster"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/judge"
)

// toGo is how long builds still run when something happens that must not end them.
const toGo = time.Minute

// UpgradeWithBuilds upgrades a cluster while a build runs on each worker. None may be
// lost.
func UpgradeWithBuilds(ctx context.Context, t T, c cluster.Cluster, in Inputs) {
	r := begin(ctx, t, c, in, "")
	deployed := r.deployed(3)
	r.quiet()
	ended := r.underWayOn(workersOf(deployed), toGo)
	r.phase("upgrade beside builds", 0, func() cluster.Held {
		require.NoError(t, r.upgrade(r.leader(deployed), in.To.Version))
		return r.active(3, in.To.Version)
	})
	r.login(r.atRest("upgrade beside builds", in.To.Version), in.To)
	ended()
}

// FailoverWithBuilds takes the web server's machine away while a build runs on each
// worker. They go on, and their results are known to the next web server.
func FailoverWithBuilds(ctx context.Context, t T, c cluster.Cluster, in Inputs) {
	r := begin(ctx, t, c, in, "")
	deployed := r.deployed(3)
	old := r.leader(deployed)
	r.quiet()
	ended := r.underWayOn(workersOf(deployed), 3*toGo)
	require.NoError(t, c.Machine(old).Stop().Inject(ctx))
	r.phase("another unit leads and serves", 0, func() cluster.Held {
		return r.wait("another unit to lead and serve", r.servedByOther(old))
	})
	r.login(in.Record.Observe(ctx, "the leader's machine stopped", false, ""), in.From)
	ended()
}

// WebRestart changes an option that the web server reads, while a build runs. The server
// is away for a moment only.
func WebRestart(ctx context.Context, t T, c cluster.Cluster, in Inputs) {
	r := begin(ctx, t, c, in, "")
	deployed := r.deployed(2)
	before := in.Record.Record().Last()
	r.quiet()
	ended := r.underWayOn(workersOf(deployed), toGo)
	longest := in.Record.WatchWeb(ctx, before.Web.URL)
	r.configure("external-url", before.Web.URL+"/")
	require.NoError(t, cluster.Poll(ctx, "another web server process", time.Second, patience, func(ctx context.Context) (bool, error) {
		now := in.Record.Observe(ctx, "an option of the web server being changed", false, "")
		return len(judge.Restarted(before, now, r.leader(deployed))) == 0, nil
	}))
	r.active(2, in.From.Version)
	gap := longest()
	in.Report.Add("the web server's longest silence", gap, 0, nil)
	r.demand("web-gap", judge.WebGap(gap))
	ended()
}

// Downgrade asks for a release of four years before. It is refused, or jobs run on it.
func Downgrade(ctx context.Context, t T, c cluster.Cluster, in Inputs) {
	r := begin(ctx, t, c, in, "")
	deployed := r.deployed(2)
	leader := r.leader(deployed)
	require.NoError(t, r.fly.jobs(ctx))
	in.Record.Build(r.fly.job(ctx))
	in.Record.Judge(judge.Always()...)

	r.quiet()
	refused := cluster.Blocked(leader, in.Old.Version)
	held := r.phase("downgrade made or refused", 0, func() cluster.Held {
		require.NoError(t, r.upgrade(leader, in.Old.Version))
		return r.wait("the downgrade to be made or refused", func(s cluster.Status) error {
			if refused(s) == nil {
				return nil
			}
			return cluster.UnitsAre(app, 2, cluster.Active, "v"+in.Old.Version)(s)
		})
	})
	if refused(held.Status) == nil {
		return
	}
	r.login(r.atRest("downgrade", in.Old.Version), in.Old)
	in.Record.Build(r.fly.job(ctx))
	in.Record.Judge(judge.Always()...)
}

// deployed deploys units on a volume, logs in at their web server and returns their status.
func (r *run) deployed(units int) cluster.Status {
	r.Helper()
	r.deploy(units, nil)
	held := r.active(units, r.in.From.Version)
	r.login(r.atRest(fmt.Sprintf("%d units", units), r.in.From.Version), r.in.From)
	return held.Status
}

package scenarios

import (
	"context"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/cluster"
)

// Upgrade moves a cluster to the next release by the option, back by the action, and
// asks for one that does not exist, which leaves everything as it is.
func Upgrade(ctx context.Context, t T, c cluster.Cluster, in Inputs) {
	r := begin(ctx, t, c, in, "")
	from, to := in.From, in.To
	r.deploy(3, nil)
	deployed := r.active(3, from.Version)
	r.login(r.atRest("three units", from.Version), from)

	r.phase("upgrade by the option", upgradeTarget, func() cluster.Held {
		r.configure("version", to.Version)
		return r.active(3, to.Version)
	})
	upgraded := r.atRest("upgrade by the option", to.Version)
	r.login(upgraded, to)
	r.buildOn("a build on every worker after the upgrade", workersOf(deployed.Status))

	r.phase("back by the action", upgradeTarget, func() cluster.Held {
		require.NoError(t, r.upgrade(r.leader(upgraded.Status), from.Version))
		return r.active(3, from.Version)
	})
	back := r.atRest("back by the action", from.Version)
	r.login(back, from)
	r.buildOn("a build on every worker after going back", workersOf(deployed.Status))
}

// UpgradeWithBuilds upgrades a cluster on which builds run, none of which may be lost.
func UpgradeWithBuilds(ctx context.Context, t T, c cluster.Cluster, in Inputs) {
	r := begin(ctx, t, c, in, "")
	r.deploy(3, nil)
	deployed := r.active(3, in.From.Version)
	r.login(r.atRest("three units", in.From.Version), in.From)

	ended := r.buildsBeside(20*time.Second, 4)
	r.aMoment(10 * time.Second) // so that builds run when it begins
	r.phase("upgrade beside four builds", 0, func() cluster.Held {
		require.NoError(t, r.upgrade(r.leader(deployed.Status), in.To.Version))
		return r.active(3, in.To.Version)
	})
	ended()
	for _, b := range in.Record.Record().Builds {
		t.Logf("%s %s on %q from %s to %s", b.Name, b.Result, b.Worker, b.Started.Format(time.TimeOnly), b.Ended.Format(time.TimeOnly))
	}
	in.Record.Observe(ctx, "upgrade beside four builds", false, in.To.Version)
}

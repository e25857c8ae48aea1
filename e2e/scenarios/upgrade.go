package scenarios

import (
	"context"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/cluster"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/judge"
)

// Upgrade asks for a release that does not exist, and for one with a wrong digest, which
// leaves everything as it is. It moves a cluster to the next release by the option, back
// by the action, and there again by both, one after the other.
func Upgrade(ctx context.Context, t T, c cluster.Cluster, in Inputs) {
	r := begin(ctx, t, c, in, "")
	from, to := in.From, in.To
	deployed := r.deployed(3)
	before := in.Record.Record().Last()
	leader := r.leader(deployed)

	in.Mirror.Break(to.Version, cluster.WrongDigest)
	in.Record.Allow(to.Version, 2) // with the wrong digest, and with the right one
	for _, wrong := range []struct{ name, version, says string }{
		{"a release that does not exist", "7.99.0", "not found"},
		{"a release with a wrong digest", to.Version, "digest mismatch"},
	} {
		r.phase(wrong.name, 0, func() cluster.Held {
			require.NoError(t, r.upgrade(leader, wrong.version))
			return r.wait(wrong.name+" to be refused", cluster.Blocked(leader, wrong.version, wrong.says))
		})
		r.demand("undisturbed", judge.Undisturbed(before, in.Record.Observe(ctx, wrong.name, true, "")))
		r.buildOn("a build on every worker after asking for "+wrong.name, workersOf(deployed))
	}

	r.changeRelease("upgrade by the option", upgradeTarget, to, func() error {
		in.Mirror.Repair(to.Version)
		return c.Configure(ctx, app, map[string]string{"version": to.Version})
	})
	r.buildOn("a build on every worker after the upgrade", workersOf(deployed))
	r.changeRelease("back by the action", upgradeTarget, from, func() error { return r.upgrade(leader, from.Version) })
	r.changeRelease("by the option and the action", upgradeTarget, to, func() error {
		r.configure("version", from.Version)
		r.configure("version", to.Version)
		return r.upgrade(leader, to.Version)
	})
	r.buildOn("a build on every worker after both", workersOf(deployed))
}

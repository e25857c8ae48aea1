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

	r.phase("upgrade by the option", upgradeTarget, func() cluster.Held {
		in.Mirror.Repair(to.Version)
		r.configure("version", to.Version)
		return r.active(3, to.Version)
	})
	r.login(r.atRest("upgrade by the option", to.Version), to)
	r.buildOn("a build on every worker after the upgrade", workersOf(deployed))

	r.phase("back by the action", upgradeTarget, func() cluster.Held {
		require.NoError(t, r.upgrade(leader, from.Version))
		return r.active(3, from.Version)
	})
	r.login(r.atRest("back by the action", from.Version), from)

	r.phase("by the option and the action", upgradeTarget, func() cluster.Held {
		r.configure("version", from.Version)
		r.configure("version", to.Version)
		require.NoError(t, r.upgrade(leader, to.Version))
		return r.active(3, to.Version)
	})
	r.login(r.atRest("by the option and the action", to.Version), to)
	r.buildOn("a build on every worker after both", workersOf(deployed))
}

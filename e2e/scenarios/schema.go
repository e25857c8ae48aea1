package scenarios

import (
	"context"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/cluster"
)

// Schema upgrades a release that is four years old, with a real change of the database's
// schema, and then once more: of three releases the oldest is collected. Builds run before
// and after.
func Schema(ctx context.Context, t T, c cluster.Cluster, in Inputs) {
	r := begin(ctx, t, c, in, "")
	old, next := in.Old, in.From
	r.deploy(3, map[string]string{"version": old.Version})
	r.active(3, old.Version)
	before := r.atRest("three units on the old release", old.Version)
	r.login(before, old)
	r.buildOn("a build on every worker of the old release", workersOf(before.Status))

	r.phase("upgrade with a change of the schema", 0, func() cluster.Held {
		require.NoError(t, r.upgrade(r.leader(before.Status), next.Version))
		return r.active(3, next.Version)
	})
	after := r.atRest("upgrade with a change of the schema", next.Version)
	r.login(after, next)
	r.buildOn("a build on every worker after the upgrade", workersOf(after.Status))

	r.phase("upgrade to a third release", upgradeTarget, func() cluster.Held {
		require.NoError(t, r.upgrade(r.leader(after.Status), in.To.Version))
		return r.active(3, in.To.Version)
	})
	third := r.atRest("upgrade to a third release", in.To.Version)
	r.login(third, in.To)
	r.buildOn("a build on every worker of the third release", workersOf(third.Status))
}

package scenarios

import (
	"context"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/cluster"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/observation"
)

// Schema upgrades a release that is four years old, with a real change of the database's
// schema. Builds run before and after.
func Schema(ctx context.Context, t T, c cluster.Cluster, in Inputs) {
	r := begin(ctx, t, c, in, "")
	r.upgradeSchema()
}

// SchemaBack goes back to the old release after that: builds run then, too, or going back
// is refused with the reason.
func SchemaBack(ctx context.Context, t T, c cluster.Cluster, in Inputs) {
	r := begin(ctx, t, c, in, "")
	upgraded := r.upgradeSchema()
	if err := r.upgrade(r.leader(upgraded.Status), in.Old.Version); err != nil {
		require.ErrorContains(t, err, "schema", "the reason")
		r.atRest("going back refused", in.From.Version)
		return
	}
	r.active(3, in.Old.Version)
	back := r.atRest("back on the old release", in.Old.Version)
	r.login(back, in.Old)
	r.buildOn("a build on every worker of the old release", workersOf(back.Status))
}

func (r *run) upgradeSchema() observation.Observation {
	r.Helper()
	old, next := r.in.Old, r.in.From
	r.deploy(3, map[string]string{"version": old.Version})
	r.active(3, old.Version)
	before := r.atRest("three units on the old release", old.Version)
	r.login(before, old)
	r.buildOn("a build on every worker of the old release", workersOf(before.Status))

	r.phase("upgrade with a change of the schema", 0, func() cluster.Held {
		require.NoError(r, r.upgrade(r.leader(before.Status), next.Version))
		return r.active(3, next.Version)
	})
	after := r.atRest("upgrade with a change of the schema", next.Version)
	r.login(after, next)
	r.buildOn("a build on every worker after the upgrade", workersOf(after.Status))
	return after
}

package scenarios

import (
	"context"
	"time"

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

	after := r.changeRelease("upgrade with a change of the schema", 0, next, func() error { return r.upgrade(r.leader(before.Status), next.Version) })
	r.buildOn("a build on every worker after the upgrade", workersOf(after.Status))

	third := r.changeRelease("upgrade to a third release", upgradeTarget, in.To, func() error { return r.upgrade(r.leader(after.Status), in.To.Version) })
	r.buildOn("a build on every worker of the third release", workersOf(third.Status))
}

// slowFor is longer than any change of the schema that was ever waited for.
const slowFor = 4 * time.Minute

// SlowMigration upgrades a release that is four years old while somebody keeps the change
// of the schema from its end for minutes. It is waited for.
func SlowMigration(ctx context.Context, t T, c cluster.Cluster, in Inputs) {
	r := begin(ctx, t, c, in, "")
	r.deploy(2, map[string]string{"version": in.Old.Version})
	r.active(2, in.Old.Version)
	before := r.atRest("two units on the old release", in.Old.Version)

	leader := r.leader(before.Status)
	slow := c.Machine(in.Database.Name+"/0").LockTable("concourse", "jobs")
	r.during(slow, func() {
		require.NoError(t, r.upgrade(leader, in.From.Version))
		r.aMoment(slowFor)
	})
	takenBack := cluster.Blocked(leader, "Upgrade to v"+in.From.Version+" failed")
	ended := r.phase("a slow change of the schema", 0, func() cluster.Held {
		return r.wait("the upgrade to be made or taken back", func(s cluster.Status) error {
			if takenBack(s) == nil {
				return nil
			}
			return cluster.UnitsAre(app, 2, cluster.Active, "v"+in.From.Version)(s)
		})
	})
	if takenBack(ended.Status) == nil {
		r.demand("migration-is-waited-for", []string{"the upgrade was taken back:\n" + ended.Status.String()})
	}
	after := r.atRest("a slow change of the schema", in.From.Version)
	r.login(after, in.From)
	r.buildOn("a build after it", workersOf(after.Status))
}

// Migration upgrades a release that is four years old while a unit is off, and while somebody
// keeps its steps from their end for minutes. They are counted; the unit comes
// back to the new release; and the way back, which would lose data, is refused.
func Migration(ctx context.Context, t T, c cluster.Cluster, in Inputs) {
	r := begin(ctx, t, c, in, "")
	r.deploy(3, map[string]string{"version": in.Old.Version})
	deployed := r.active(3, in.Old.Version).Status
	r.atRest("three units on the old release", in.Old.Version)
	server := r.server(deployed)
	off := unitsBut(deployed, server, r.leader(deployed))[0]

	stop := c.Machine(off).Stop()
	require.NoError(t, stop.Inject(ctx))
	r.during(c.Machine(in.Database.Name+"/0").LockTable("concourse", "jobs"), func() {
		require.NoError(t, r.upgrade(r.leader(deployed), in.From.Version))
		r.wait("the steps of the migration", cluster.UnitIs(server, cluster.Maintenance, " of 6 steps"))
		r.aMoment(slowFor)
	})
	r.phase("the units that are on", 0, func() cluster.Held {
		return r.wait("the units that are on", func(s cluster.Status) error {
			for _, unit := range unitsBut(s, off) {
				if err := cluster.UnitIs(unit, cluster.Active, "v"+in.From.Version)(s); err != nil {
					return err
				}
			}
			return nil
		})
	})
	require.NoError(t, stop.Heal(ctx))
	r.phase("the unit is back", time.Minute, func() cluster.Held { return r.active(3, in.From.Version) })
	after := r.atRest("the unit is back", in.From.Version)
	r.demand("no-old-service", startedFrom(ctx, c, off, in.Old.Version))
	r.login(after, in.From)
	r.buildOn("a build on every worker", workersOf(after.Status))

	r.quiet()
	r.phase("a downgrade is refused", 0, func() cluster.Held {
		require.NoError(t, r.upgrade(r.leader(after.Status), in.Old.Version))
		return r.wait("the refusal", cluster.Blocked(server, "Downgrade to v"+in.Old.Version+" refused", "loses data", in.From.Version))
	})
	require.NoError(t, r.upgrade(r.leader(after.Status), in.From.Version))
	again := r.active(3, in.From.Version)
	r.login(r.atRest("a downgrade is refused", in.From.Version), in.From)
	r.buildOn("a build on every worker after the refusal", workersOf(again.Status))
}

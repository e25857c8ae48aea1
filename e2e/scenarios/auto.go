package scenarios

import (
	"context"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/cluster"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/judge"
)

// Targets of the specification, for a cluster with shared storage.
const (
	firstUnitTarget = 3 * time.Minute
	clusterTarget   = 5 * time.Minute
	newUnitTarget   = 3 * time.Minute
	upgradeTarget   = 2 * time.Minute
)

// Auto deploys three units with mode=auto on one volume, upgrades them, adds a
// fourth and removes it. Each release is downloaded once, and real builds run
// on every worker all along.
func Auto(ctx context.Context, t T, c cluster.Cluster, in Inputs) {
	r := begin(ctx, t, c, in, "")
	from, to := in.From, in.To

	var three cluster.Held
	r.phase("three units active", clusterTarget, func() cluster.Held {
		r.deploy(3, nil)
		r.phase("first unit active, release downloaded", firstUnitTarget, func() cluster.Held {
			return r.wait("the first unit", cluster.AnyActive(app))
		})
		three = r.active(3, from.Version)
		return three
	})
	deployed := r.atRest("three units", from.Version)
	r.login(deployed, from)
	r.buildOn("a build on every worker", workersOf(deployed.Status))

	upgraded := r.changeRelease("upgrade", upgradeTarget, to, func() error { return r.upgrade(r.leader(three.Status), to.Version) })

	var added []string
	r.phase("fourth unit active", newUnitTarget, func() cluster.Held {
		var err error
		added, err = c.AddUnits(ctx, app, 1)
		require.NoError(t, err)
		r.buildOn("a build on every worker after the upgrade", workersOf(upgraded.Status)) // while it boots
		return r.active(4, to.Version)
	})
	four := r.atRest("a fourth unit", to.Version)
	r.demand("undisturbed", judge.Undisturbed(upgraded, four, added...))
	r.buildOn("a build on every worker with the fourth", workersOf(four.Status))

	r.quiet() // a unit that is removed does not wait for its worker's builds
	r.phase("unit removed", 0, func() cluster.Held {
		require.NoError(t, c.RemoveUnit(ctx, added[0]))
		return r.wait("removal of "+added[0], cluster.All(cluster.Gone(added[0]), cluster.AllActive(app, 3)))
	})
	removed := r.atRest("the unit removed", to.Version)
	r.demand("undisturbed", judge.Undisturbed(upgraded, removed))
}

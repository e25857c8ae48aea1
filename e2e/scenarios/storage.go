package scenarios

import (
	"context"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/cluster"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/judge"
)

// dataStorage is the storage in the charm's metadata.
const dataStorage = "concourse-data"

// Storage deploys a unit with a volume that Juju makes, and shares it with a second one in
// LXD, since Juju does not: it refuses to attach it there, and makes another one. Then the
// first unit is removed. The volume stays with the second one, and Juju attaches it to a
// third. The release is downloaded once.
func Storage(ctx context.Context, t T, c cluster.Cluster, in Inputs) {
	r := &run{T: t, ctx: ctx, c: c, in: in, quiet: func() {}}
	version, first := in.From.Version, app+"/0"
	require.NoError(t, c.Deploy(ctx, in.Database))
	require.NoError(t, c.Deploy(ctx, cluster.App{
		Name: app, Charm: in.Charm, Units: 1, Storage: map[string]string{dataStorage: "10G"},
		Config: r.options(map[string]string{"mode": "all", "shared-storage": "lxc"}),
	}))
	r.relateDatabase()
	r.refused(first)
	shared, err := c.Storage(ctx, first)
	require.NoError(t, err)
	r.phase("one unit active on Juju's volume", firstUnitTarget, func() cluster.Held {
		require.NoError(t, shared.Attach(ctx, first)) // It is there: this marks it.
		return r.active(1, version)
	})
	one := r.atRest("one unit", version)
	r.login(one, in.From)

	_, err = c.AddUnitWithStorage(ctx, app, shared.ID)
	require.ErrorContains(t, err, `has existing attachments but charm storage definition "`+dataStorage+`" is not shared`)
	var added []string
	r.phase("second unit active on the same volume", newUnitTarget, func() cluster.Held {
		added, err = c.AddUnits(ctx, app, 1)
		require.NoError(t, err)
		r.refused(added[0])
		own, err := c.Storage(ctx, added[0])
		require.NoError(t, err)
		require.NotEqual(t, shared.Name(), own.Name(), "Juju shares volumes by itself")
		require.NoError(t, c.RemoveStorage(ctx, own.ID))
		require.NoError(t, shared.Attach(ctx, added[0]))
		return r.active(2, version)
	})
	two := r.atRest("two units", version)
	r.demand("undisturbed", judge.Undisturbed(one, two, added...))
	r.buildOn("a build on both units", unitsOf(two.Status))

	r.quiet() // a unit that is removed does not wait for its worker's builds
	r.phase("the unit removed that the volume was made for", 0, func() cluster.Held {
		require.NoError(t, c.RemoveUnit(ctx, first))
		return r.wait("removal of "+first, cluster.All(cluster.Gone(first), cluster.UnitsAre(app, 1, cluster.Active, "v"+version)))
	})
	r.cleared(first) // Juju has taken the volume from it before it could do so.
	left := r.atRest("its unit removed", version)
	r.demand("undisturbed", judge.Undisturbed(two, left, first))
	r.login(left, in.From)
	r.buildOn("a build on the unit that is left", unitsOf(left.Status))

	r.phase("third unit active, Juju attaches the volume", newUnitTarget, func() cluster.Held {
		third, err := c.AddUnitWithStorage(ctx, app, shared.ID)
		require.NoError(t, err)
		again, err := c.Storage(ctx, third)
		require.NoError(t, err)
		require.Equal(t, shared.Name(), again.Name())
		return r.active(2, version)
	})
	three := r.atRest("a unit added with the volume", version)
	r.buildOn("a build on every unit", unitsOf(three.Status))
}

// refused waits until a unit asks for the marker on its volume. One that takes the volume
// as it is may go on as well: the rules judge it.
func (r *run) refused(unit string) {
	r.Helper()
	blocked := cluster.Blocked(unit, "Shared storage unavailable", ".lxc_shared_storage")
	r.wait("the volume of "+unit+" to be refused until it is marked", func(s cluster.Status) error {
		if cluster.UnitIs(unit, cluster.Active, "")(s) == nil {
			return nil
		}
		return blocked(s)
	})
	r.in.Record.Observe(r.ctx, "the volume of "+unit+" is not marked", true, "")
}

package scenarios

import (
	"context"
	"fmt"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/cluster"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/judge"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/observation"
)

// Refresh deploys an earlier charm, and puts this one in its place, unit by unit: the
// agents of the others are frozen meanwhile, their services and supervisors go on. (One
// that is stopped takes no other charm when it is started: Juju 4.1-beta2.) No
// service is disturbed, and nothing is downloaded. Then the cluster is upgraded.
func Refresh(ctx context.Context, t T, c cluster.Cluster, in Inputs) {
	previous, err := in.Previous(ctx)
	require.NoError(t, err)
	r := begin(ctx, t, c, in, "")
	now := in.Charm
	r.in.Charm = previous
	deployed := r.deployed(3)
	before := in.Record.Record().Last()
	units := unitsBut(deployed, "")

	frozen := map[string]cluster.Fault{}
	for _, unit := range units[1:] {
		frozen[unit] = c.Machine(unit).FreezeAgent()
		require.NoError(t, frozen[unit].Inject(ctx))
	}
	require.NoError(t, c.Refresh(ctx, app, now))
	for i, unit := range units {
		if fault, ok := frozen[unit]; ok {
			require.NoError(t, fault.Heal(ctx))
		}
		phase := fmt.Sprintf("%d of 3 units refreshed", i+1)
		var o observation.Observation
		require.NoError(t, in.Report.Time(phase, 0, func() error {
			return cluster.Poll(ctx, phase, time.Second, patience, func(ctx context.Context) (bool, error) {
				o = in.Record.Observe(ctx, phase, false, "")
				u, _ := o.Status.Unit(unit)
				has, had := o.Machines[unit].Charm, before.Machines[unit].Charm
				if has == "" || has == had || u.Agent != "idle" {
					return false, fmt.Errorf("%s has %q, agent %s", unit, has, u.Agent)
				}
				return true, nil
			})
		}))
		for _, other := range units[i+1:] {
			require.Equal(t, before.Machines[other].Charm, o.Machines[other].Charm, "%s is still to be refreshed", other)
		}
		r.demand("undisturbed", judge.Undisturbed(before, o))
	}
	r.active(3, in.From.Version)
	r.demand("undisturbed", judge.Undisturbed(before, r.atRest("all units refreshed", in.From.Version)))
	r.buildOn("a build on every worker", workersOf(deployed))

	r.changeRelease("upgrade by the refreshed charm", upgradeTarget, in.To, func() error { return r.upgrade(r.leader(deployed), in.To.Version) })
	r.buildOn("a build on every worker after the upgrade", workersOf(deployed))
}

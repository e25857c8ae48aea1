package scenarios

import (
	"context"
	"fmt"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/cluster"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/judge"
)

// Refresh deploys an earlier charm, and puts this one in its place, unit by unit: the
// agents of the others are stopped meanwhile, their services and watchers go on. No
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

	stopped := map[string]cluster.Fault{}
	for _, unit := range units[1:] {
		stopped[unit] = c.Machine(unit).StopAgent()
		require.NoError(t, stopped[unit].Inject(ctx))
	}
	require.NoError(t, c.Refresh(ctx, app, now))
	for i, unit := range units {
		if fault, ok := stopped[unit]; ok {
			require.NoError(t, fault.Heal(ctx))
		}
		phase := fmt.Sprintf("%d of 3 units refreshed", i+1)
		r.phase(phase, 0, func() cluster.Held {
			return r.wait(phase, func(s cluster.Status) error {
				u, _ := s.Unit(unit)
				if old, _ := deployed.Unit(unit); u.Charm == old.Charm || u.Agent != "idle" {
					return fmt.Errorf("%s runs %s, agent %s", unit, u.Charm, u.Agent)
				}
				return nil
			})
		})
		o := in.Record.Observe(ctx, phase, false, in.From.Version)
		r.demand("undisturbed", judge.Undisturbed(before, o))
	}
	r.active(3, in.From.Version)
	r.demand("undisturbed", judge.Undisturbed(before, r.atRest("all units refreshed", in.From.Version)))
	r.buildOn("a build on every worker", workersOf(deployed))

	r.moved("upgrade by the refreshed charm", upgradeTarget, in.To, func() error { return r.upgrade(r.leader(deployed), in.To.Version) })
	r.buildOn("a build on every worker after the upgrade", workersOf(deployed))
}

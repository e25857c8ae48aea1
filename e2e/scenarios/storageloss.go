package scenarios

import (
	"context"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/cluster"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/judge"
)

// lossTarget is how soon a unit says that its volume is gone.
const lossTarget = 30 * time.Second

// StorageLoss takes the volume from one worker, then from all units, and puts an
// unmarked and a foreign one in its place. Units say which command mends it, write
// nothing underneath, and recover without a human.
func StorageLoss(ctx context.Context, t T, c cluster.Cluster, in Inputs) {
	r := begin(ctx, t, c, in, "")
	r.deploy(3, nil)
	deployed := r.active(3, in.From.Version)
	before := r.atRest("three units", in.From.Version)
	r.login(before, in.From)
	worker := unitsBut(deployed.Status, r.server(deployed.Status))[0]

	r.during(r.volume.Lost(worker), func() {
		r.phase("loss of one unit's volume said", lossTarget, func() cluster.Held {
			return r.wait("loss of "+worker+"'s volume", cluster.Blocked(worker, "Shared storage unavailable", "lxc config device add"))
		})
		lost := in.Record.Observe(ctx, "one unit's volume lost", true, "")
		r.demand("undisturbed", judge.Undisturbed(before, lost, worker))
	})
	r.recover("recovery of one unit", 3)
	r.buildOn("a build on every worker after the recovery", workersOf(deployed.Status))

	units := unitsBut(deployed.Status, "")
	r.quiet()
	var losses []cluster.Fault
	for _, unit := range units {
		lost := r.volume.Lost(unit)
		require.NoError(t, lost.Inject(ctx))
		losses = append(losses, lost)
	}
	r.phase("loss of all volumes said", lossTarget, func() cluster.Held {
		var all []cluster.Condition
		for _, unit := range units {
			all = append(all, cluster.Blocked(unit, "Shared storage unavailable", "lxc config device add"))
		}
		return r.wait("loss of all volumes", cluster.All(all...))
	})
	in.Record.Observe(ctx, "all volumes lost", true, "")
	for _, lost := range losses {
		require.NoError(t, lost.Heal(ctx))
	}
	r.recover("recovery of all units", 3)
	r.buildOn("a build on every worker after all volumes came back", workersOf(deployed.Status))

	// Another volume in its place: one that nobody has marked as shared, and then one
	// that is marked, but is not the one that the unit knows.
	other, err := c.NewVolume(ctx, "")
	require.NoError(t, err)
	require.NoError(t, r.volume.Detach(ctx, worker))
	require.NoError(t, other.Attach(ctx, worker, cluster.Unmarked))
	r.phase("an unmarked volume refused", lossTarget, func() cluster.Held {
		return r.wait("an unmarked volume to be refused", cluster.Blocked(worker, "Shared storage unavailable", ".lxc_shared_storage"))
	})
	in.Record.Observe(ctx, "an unmarked volume", true, "")
	require.NoError(t, other.Detach(ctx, worker))
	require.NoError(t, other.Attach(ctx, worker))
	r.phase("a foreign volume refused", lossTarget, func() cluster.Held {
		return r.wait("a foreign volume to be refused", cluster.Blocked(worker, "another volume is mounted"))
	})
	foreign := in.Record.Observe(ctx, "a foreign volume", true, "").Machines[worker].Volume
	require.True(t, foreign == nil || len(foreign.Releases) == 0, "a foreign volume was written to: %+v", foreign)
	require.NoError(t, other.Detach(ctx, worker))
	require.NoError(t, r.volume.Attach(ctx, worker))
	r.recover("recovery of the right volume", 3)
}

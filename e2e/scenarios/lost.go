package scenarios

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/cluster"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/judge"
)

// LostUnit loses a worker's machine for good: its unit is removed by force, and none of
// its hooks runs. What it has left is cleared by the others: its worker in the web
// server's list, its pin, its directory.
func LostUnit(ctx context.Context, t T, c cluster.Cluster, in Inputs) {
	r := begin(ctx, t, c, in, "")
	deployed := r.deployed(3)
	before := in.Record.Record().Last()
	lost := unitsBut(deployed, r.server(deployed), r.leader(deployed))[0]
	r.quiet()

	require.NoError(t, c.Machine(lost).Stop().Inject(ctx))
	r.phase("unit lost", 0, func() cluster.Held {
		require.NoError(t, c.RemoveLostUnit(ctx, lost))
		return r.wait("removal of "+lost, cluster.All(cluster.Gone(lost), cluster.UnitsAre(app, 2, cluster.Active, "v"+in.From.Version)))
	})
	r.cleared(lost)
	o := r.atRest("unit lost", in.From.Version)
	r.demand("undisturbed", judge.Undisturbed(before, o, lost))
	r.login(o, in.From)
	r.buildOn("a build on the worker that is left", workersOf(o.Status))
}

// cleared waits until the others have cleared what a unit has left that could not do so.
func (r *run) cleared(lost string) {
	r.Helper()
	start := time.Now()
	require.NoError(r, cluster.Poll(r.ctx, "what "+lost+" has left to be cleared", 2*time.Second, patience, func(ctx context.Context) (bool, error) {
		if left := judge.LeftOf(r.in.Record.Observe(ctx, "a unit lost", false, ""), lost); len(left) > 0 {
			return false, errors.New(strings.Join(left, "; "))
		}
		return true, nil
	}))
	r.in.Report.Add("what the lost unit has left is cleared", time.Since(start), 3*time.Minute, nil)
}

// OffUnit has a worker's machine off while the cluster is upgraded. It comes back to a
// cluster of another release, and to another schema: no old service starts there.
func OffUnit(ctx context.Context, t T, c cluster.Cluster, in Inputs) {
	r := begin(ctx, t, c, in, "")
	deployed := r.deployed(3)
	server := r.server(deployed)
	off := unitsBut(deployed, server, r.leader(deployed))[0]
	r.quiet()
	stop := c.Machine(off).Stop()
	require.NoError(t, stop.Inject(ctx))
	leader := r.leader(deployed)
	runIt := func(units ...string) cluster.Held {
		var all []cluster.Condition
		for _, unit := range units {
			all = append(all, cluster.UnitIs(unit, cluster.Active, "v"+in.To.Version))
		}
		return r.wait("the units that are on", cluster.All(all...))
	}
	r.phase("upgrade without a unit", upgradeTarget, func() cluster.Held {
		require.NoError(t, r.upgrade(leader, in.To.Version))
		return runIt(unitsBut(deployed, leader, off)...)
	})
	// A worker that is away counts as missing two minutes after.
	r.phase("the leader waits for it no more", 3*time.Minute, func() cluster.Held { return runIt(leader) })
	require.NoError(t, stop.Heal(ctx))
	r.phase("the unit is back", time.Minute, func() cluster.Held { return r.active(3, in.To.Version) })
	o := r.atRest("the unit is back", in.To.Version)
	r.demand("no-old-service", startedFrom(ctx, c, off, in.From.Version))
	r.login(o, in.To)
	r.buildOn("a build on every worker", workersOf(o.Status))
}

// startedFrom says which services a machine has started from a release since it booted.
func startedFrom(ctx context.Context, c cluster.Cluster, unit, version string) []string {
	out, err := c.Machine(unit).Exec(ctx, "journalctl", "--boot", "--unit=concourse-server.service", "--unit=concourse-worker.service", "--grep=Started.* "+version, "--output=cat")
	if err == nil && out != "" {
		return []string{fmt.Sprintf("%s has started since it booted: %s", unit, out)}
	}
	return nil
}

// ReplacedVolume loses the volume for good: another, empty one takes its place on every
// unit. They refuse it until an operator has accepted it; then the release is downloaded
// once more, and all goes on.
func ReplacedVolume(ctx context.Context, t T, c cluster.Cluster, in Inputs) {
	r := begin(ctx, t, c, in, "")
	deployed := r.deployed(3)
	r.quiet()
	leader := r.leader(deployed)
	other, err := c.NewVolume(ctx, "")
	require.NoError(t, err)
	var refused []cluster.Condition
	for _, unit := range unitsBut(deployed) {
		require.NoError(t, r.volume.Detach(ctx, unit))
		require.NoError(t, other.Attach(ctx, unit))
		refused = append(refused, cluster.Blocked(unit, "another volume is mounted", "accept-volume"))
	}
	r.phase("another volume refused", lossTarget, func() cluster.Held {
		return r.wait("the other volume to be refused", cluster.All(refused...))
	})
	in.Record.Observe(ctx, "another volume", true, "")

	in.Record.Allow(in.From.Version, 2)
	r.phase("another volume accepted", 0, func() cluster.Held {
		_, err := c.RunAction(ctx, leader, "accept-volume", nil)
		require.NoError(t, err)
		return r.active(3, in.From.Version)
	})
	r.login(r.atRest("another volume accepted", in.From.Version), in.From)
	r.buildOn("a build on every worker", workersOf(deployed))
}

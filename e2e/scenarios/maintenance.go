package scenarios

import (
	"context"
	"fmt"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/cluster"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/judge"
)

// Maintenance takes a worker out of a cluster on which builds run, has its machine boot and
// the others be upgraded meanwhile, and has it back. Then it starts that worker anew, and
// removes another unit, each with builds under way. None is lost.
func Maintenance(ctx context.Context, t T, c cluster.Cluster, in Inputs) {
	r := begin(ctx, t, c, in, "")
	deployed := r.deployed(4)
	r.quiet()
	server, leader := r.server(deployed), r.leader(deployed)
	others := unitsBut(deployed, server, leader)
	paused, removed := others[0], others[len(others)-1]
	out := func(version string) cluster.Condition { return outBeside(paused, 4, version) }

	ended := r.underWayOn(workersOf(deployed), 2, toGo)
	r.phase("a worker paused beside builds", 0, func() cluster.Held {
		r.act(paused, "pause", nil)
		return r.wait(paused+" to be out", out(in.From.Version))
	})
	ended()
	before := r.atRest("a worker paused beside builds", in.From.Version)

	r.during(c.Machine(paused).Stop(), func() { r.aMoment(5 * time.Second) })
	require.NoError(t, cluster.Poll(ctx, "the machine of "+paused, time.Second, patience, func(ctx context.Context) (bool, error) {
		now := in.Record.Observe(ctx, "a machine that boots while it is paused", false, "")
		return now.Machines[paused].Started.After(before.Machines[paused].Started), nil
	}))
	r.resolveCutOff(paused)
	r.aMoment(booted)
	r.wait(paused+" to be out", out(in.From.Version))
	r.atRest("a machine booted while it is paused", in.From.Version)

	r.phase("upgrade beside a paused unit", 0, func() cluster.Held {
		require.NoError(t, r.upgrade(leader, in.To.Version))
		return r.wait("all others on "+in.To.Version, out(in.To.Version))
	})
	r.login(r.atRest("upgrade beside a paused unit", in.To.Version), in.To)
	r.quiet()

	r.phase("resumed", 0, func() cluster.Held {
		r.act(paused, "resume", nil)
		return r.active(4, in.To.Version)
	})
	before = r.atRest("resumed", in.To.Version)
	r.buildOn("a build on every worker, also on that which was paused", workersOf(deployed))

	ended = r.underWayOn(workersOf(deployed), 2, toGo)
	id := r.act(paused, "restart-services", nil)["id"]
	require.NoError(t, cluster.Poll(ctx, "the restart of "+paused, time.Second, patience, func(ctx context.Context) (bool, error) {
		far, err := c.RunAction(ctx, paused, "restart-services", map[string]any{"id": id})
		if err != nil {
			return false, err
		}
		if far["state"] == "done" {
			return true, nil
		}
		return false, fmt.Errorf("%s: %s", far["state"], far["message"])
	}))
	ended()
	r.active(4, in.To.Version)
	r.demand("restarts", judge.Restarted(before, r.atRest("its services started anew", in.To.Version), paused))

	ended = r.underWayOn(workersOf(deployed), 2, toGo)
	r.phase("a unit removed beside builds", 0, func() cluster.Held {
		require.NoError(t, c.RemoveUnit(ctx, removed))
		r.wait(removed+" to say for what it waits", cluster.UnitIs(removed, cluster.Maintenance, "Leaving the cluster: the worker ends with its builds"))
		return r.wait("the removal of "+removed, cluster.All(cluster.Gone(removed), cluster.UnitsAre(app, 3, cluster.Active, "v"+in.To.Version)))
	})
	ended()
	r.atRest("a unit removed beside builds", in.To.Version)
}

// booted is how long a machine that has booted is given to start what it must not.
const booted = 30 * time.Second

// act runs an action on a unit, and returns its results.
func (r *run) act(unit, action string, params map[string]any) map[string]string {
	r.Helper()
	results, err := r.c.RunAction(r.ctx, unit, action, params)
	require.NoError(r, err)
	r.Logf("%s on %s: %v", action, unit, results)
	return results
}

// outBeside holds when one of so many units is paused with a version, and all others run it.
func outBeside(paused string, units int, version string) cluster.Condition {
	return func(s cluster.Status) error {
		all := s.Units(app)
		conditions := []cluster.Condition{cluster.UnitIs(paused, cluster.Maintenance, "Paused: the worker is out (v"+version+")")}
		for _, u := range all {
			if u.Name != paused {
				conditions = append(conditions, cluster.UnitIs(u.Name, cluster.Active, "v"+version))
			}
		}
		if len(all) != units {
			return fmt.Errorf("%s has %d units, not %d", app, len(all), units)
		}
		return cluster.All(conditions...)(s)
	}
}

package scenarios

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/cluster"
)

// LeaderStops takes the leader's machine away in each phase of an upgrade: while a release
// is downloaded, before its web server has answered, and while workers take turns. The next
// leader brings the upgrade to its end, and so does the unit that comes back.
func LeaderStops(ctx context.Context, t T, c cluster.Cluster, in Inputs) {
	r := begin(ctx, t, c, in, "")
	r.deployed(3)
	in.Mirror.Break(in.To.Version, cluster.MirrorFault{Name: "held in the middle", Hold: held})
	in.Record.Allow(in.To.Version, 2)
	for _, phase := range []struct {
		name    string
		release Release // to which the upgrade leads
		begun   func()
	}{
		{"downloading", in.To, func() { r.underWay(in.To.Version) }},
		{"starting the web server", in.From, func() { r.waitToHear("Upgrading to v" + in.From.Version) }},
		{"taking turns", in.To, func() { r.waitToHear("Landing the worker for v" + in.To.Version) }},
	} {
		r.quiet() // the web server may be on the leader's machine
		status, err := c.Status(ctx)
		require.NoError(t, err)
		leader := r.leader(status)
		require.NoError(t, r.upgrade(leader, phase.release.Version))
		phase.begun()
		name := "leader stopped while " + phase.name
		held := r.phase(name, 0, func() cluster.Held {
			r.during(c.Machine(leader).Stop(), func() {
				r.wait("another unit to lead", ledByOther(leader))
				in.Mirror.Repair(in.To.Version)
			})
			r.resolveCutOff(leader)
			return r.active(3, phase.release.Version)
		})
		r.login(r.atRest(name, phase.release.Version), phase.release)
		r.buildOn("a build on every worker after it", workersOf(held.Status))
	}
}

// resolveCutOff waits for the agent of a unit whose machine was stopped, and has it run the
// hook again that this has cut off. Juju takes that for failed, and the suite's models have it
// retry nothing by itself.
func (r *run) resolveCutOff(unit string) {
	r.Helper()
	well := 0 // it is for a moment before Juju finds the hook
	require.NoError(r, cluster.Poll(r.ctx, "the agent of "+unit, time.Second, patience, func(ctx context.Context) (bool, error) {
		status, err := r.c.Status(ctx)
		if err != nil {
			return false, err
		}
		u, _ := status.Unit(unit)
		missing := fmt.Errorf("%s is %s: %s", unit, u.Workload, u.Message)
		switch well++; u.Workload {
		case "unknown":
			well = 0
		case "error":
			well, missing = 0, errors.Join(missing, r.c.Resolve(ctx, unit))
		}
		if well >= 10 {
			return true, nil
		}
		return false, missing
	}))
}

// waitToHear waits until a unit says something.
func (r *run) waitToHear(words string) {
	r.Helper()
	r.wait(fmt.Sprintf("a unit to say %q", words), func(s cluster.Status) error {
		for _, u := range s.Units(app) {
			if strings.Contains(u.Message, words) {
				return nil
			}
		}
		return fmt.Errorf("no unit says %q", words)
	})
}

package scenarios

import (
	"context"
	"fmt"
	"time"

	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/cluster"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/judge"
)

// Failover takes the web server's machine away: another unit becomes the web server,
// builds run on what is left, and the unit comes back as a worker. Then leadership moves
// while all is well, as only Juju's agent of the leader stops: nothing is disturbed, and
// no build is lost.
func Failover(ctx context.Context, t T, c cluster.Cluster, in Inputs) {
	r := begin(ctx, t, c, in, "")
	r.deploy(3, nil)
	deployed := r.active(3, in.From.Version)
	r.login(r.atRest("three units", in.From.Version), in.From)
	old := r.server(deployed.Status)
	r.quiet() // there is no web server for a while

	r.during(c.Machine(old).Stop(), func() {
		moved := r.phase("another unit serves", 0, func() cluster.Held {
			return r.wait("another unit to serve", servedByOther(old))
		})
		o := in.Record.Observe(ctx, "the web server's machine stopped", false, "")
		r.login(o, in.From)
		left := unitsBut(moved.Status, old, r.server(moved.Status))
		r.registered("the worker that is left at the new web server", workerNames(left))
		r.buildOn("a build without the old web server", workerNames(left))
	})
	back := r.phase("the old web server's machine is back", 0, func() cluster.Held { return r.active(3, in.From.Version) })
	before := r.atRest("the old web server's machine is back", in.From.Version)
	r.buildOn("a build on every worker", workersOf(back.Status))

	leader := r.leader(back.Status)
	ended := r.underWayOn(workersOf(back.Status), 1, 3*toGo/2) // leadership takes up to a minute to move
	r.during(c.Machine(leader).StopAgent(), func() {
		r.wait("another unit to lead", ledByOther(leader))
		r.aMoment(5 * time.Second) // in which its hooks run
		o := in.Record.Observe(ctx, "Juju's agent of the leader stopped", false, "")
		r.demand("undisturbed", judge.Undisturbed(before, o))
	})
	ended()
	r.phase("all units active with their agents", 0, func() cluster.Held { return r.active(3, in.From.Version) })
	r.demand("undisturbed", judge.Undisturbed(before, r.atRest("the agent is back", in.From.Version)))
}

// ledByOther holds when another unit leads.
func ledByOther(old string) cluster.Condition {
	return func(s cluster.Status) error {
		if u, ok := s.Leader(app); !ok || u.Name == old {
			return fmt.Errorf("the leader is %q", u.Name)
		}
		return nil
	}
}

// servedByOther holds when another unit serves.
func servedByOther(old string) cluster.Condition {
	return func(s cluster.Status) error {
		if unit := serverIn(s); unit == "" || unit == old {
			return fmt.Errorf("the web server is that of %q", unit)
		}
		return nil
	}
}

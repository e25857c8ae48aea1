package scenarios

import (
	"context"
	"fmt"
	"strings"

	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/cluster"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/judge"
)

// Failover takes the leader's machine away: another unit becomes the web server, builds
// run on what is left, and the old leader comes back as a worker. Then only Juju's agent
// of the leader stops, and its web server goes on.
func Failover(ctx context.Context, t T, c cluster.Cluster, in Inputs) {
	r := begin(ctx, t, c, in, "")
	r.deploy(3, nil)
	deployed := r.active(3, in.From.Version)
	r.login(r.atRest("three units", in.From.Version), in.From)
	old := r.leader(deployed.Status)
	r.quiet() // a failover is known to lose builds

	r.during(c.Machine(old).Stop(), func() {
		moved := r.phase("another unit leads and serves", 0, func() cluster.Held {
			return r.wait("another unit to lead and serve", r.servedByOther(old))
		})
		o := in.Record.Observe(ctx, "the leader's machine stopped", false, "")
		r.login(o, in.From)
		left := unitsBut(moved.Status, old, r.leader(moved.Status))
		r.registered("the worker that is left at the new web server", workerNames(left))
		r.buildOn("a build without the old leader", workerNames(left))
	})
	back := r.phase("the old leader is back", 0, func() cluster.Held { return r.active(3, in.From.Version) })
	before := r.atRest("the old leader is back", in.From.Version)
	r.buildOn("a build on every worker", workersOf(back.Status))

	leader := r.leader(back.Status)
	r.quiet() // leadership moves again
	r.during(c.Machine(leader).StopAgent(), func() {
		r.wait("another unit to lead", func(s cluster.Status) error {
			if u, ok := s.Leader(app); !ok || u.Name == leader {
				return fmt.Errorf("%s still leads", leader)
			}
			return nil
		})
		o := in.Record.Observe(ctx, "Juju's agent of the leader stopped", false, "")
		r.demand("undisturbed", judge.Undisturbed(before, o, unitsBut(back.Status, leader)...))
	})
	r.phase("all units active with their agents", 0, func() cluster.Held { return r.active(3, in.From.Version) })
	r.atRest("the agent is back", in.From.Version)
}

// servedByOther holds when another unit leads, and serves.
func (r *run) servedByOther(old string) cluster.Condition {
	return func(s cluster.Status) error {
		u, ok := s.Leader(app)
		if !ok || u.Name == old || u.Workload != cluster.Active || !strings.HasPrefix(u.Message, "Web server ready") {
			return fmt.Errorf("the leader is %s: %s %q", u.Name, u.Workload, u.Message)
		}
		return nil
	}
}

package scenarios

import (
	"context"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/cluster"
)

// frozenFor is longer than a lease: the coordinator's is 20 s.
const frozenFor = 25 * time.Second

// Crash kills what downloads in the middle, which costs no second download. Then it kills
// the services, takes power from machines, freezes one for longer than a
// lease, and reboots all. Nothing is downloaded again, and everything runs again without
// a human.
func Crash(ctx context.Context, t T, c cluster.Cluster, in Inputs) {
	r := begin(ctx, t, c, in, "")
	in.Mirror.Break(in.From.Version, cluster.MirrorFault{Name: "held in the middle", Hold: held})
	r.deploy(3, nil)
	r.underWay(in.From.Version)
	// The mirror goes on when it is sure to be dead: it would get what it never notes.
	r.during(c.Machine(r.holder(in.From.Version)).Kill("concourse-ci-supervisor.service"), func() { r.aMoment(3 * time.Second) })
	in.Mirror.Repair(in.From.Version)
	in.Record.Allow(in.From.Version, 2)
	deployed := r.active(3, in.From.Version)
	again := in.Mirror.Transfer(in.From.Version)
	if again.Sent-again.Distinct > held {
		r.demand("resumed", []string{"more was sent again than the process had received that was killed: " + again.String()})
	}
	server := r.server(deployed.Status)
	worker := unitsBut(deployed.Status, server)[0]
	r.login(r.atRest("three units", in.From.Version), in.From)

	for _, killed := range []struct{ unit, service string }{
		{server, "concourse-server.service"},
		{worker, "concourse-worker.service"},
		{worker, "concourse-ci-supervisor.service"},
	} {
		name := killed.service + " killed"
		r.during(c.Machine(killed.unit).Kill(killed.service), func() {})
		r.recover(name, 3)
	}
	for name, fault := range map[string]cluster.Fault{
		"a worker's machine stopped": c.Machine(worker).Stop(),
		"a worker's machine frozen":  c.Machine(worker).Freeze(),
	} {
		r.during(fault, func() { r.aMoment(frozenFor) })
		r.recover(name, 3)
	}
	r.buildOn("a build on every worker", workersOf(deployed.Status))

	r.quiet()
	var all []cluster.Fault
	for _, unit := range unitsBut(deployed.Status, "") {
		all = append(all, c.Machine(unit).Stop())
	}
	for _, stop := range all {
		require.NoError(t, stop.Inject(ctx))
	}
	for _, stop := range all {
		require.NoError(t, stop.Heal(ctx))
	}
	r.phase("all machines rebooted", 0, func() cluster.Held { return r.active(3, in.From.Version) })
	r.login(r.atRest("all machines rebooted", in.From.Version), in.From)
	r.buildOn("a build on every worker after the reboot", workersOf(deployed.Status))
}

package scenarios

import (
	"context"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/cluster"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/judge"
)

// Turns upgrades a cluster, changes an option that its workers read, and goes back, while
// builds run on every worker. The workers take turns, and end with their builds: none is
// lost. An upgrade without builds tells what the turns themselves take.
func Turns(ctx context.Context, t T, c cluster.Cluster, in Inputs) {
	r := begin(ctx, t, c, in, "")
	deployed := r.deployed(4)
	workers := workersOf(deployed)
	units := unitsBut(deployed, r.server(deployed))
	r.quiet() // see changeRelease
	url := in.Record.Record().Last().Web.URL
	for _, event := range []struct {
		name    string
		release Release // that all run after it
		happens func()
	}{
		{"upgrade", in.To, func() { require.NoError(t, r.upgrade(r.leader(deployed), in.To.Version)) }},
		{"an option of the workers", in.To, func() { r.changeWorkers(units, "containerd-dns-server", "192.0.2.53") }},
		{"back", in.From, func() { require.NoError(t, r.upgrade(r.leader(deployed), in.From.Version)) }},
	} {
		ended := r.underWayOn(workers, 3, 2*toGo) // it takes a while until so many run
		longest := in.Record.WatchWeb(ctx, url)
		r.phase(event.name+" beside builds", 0, func() cluster.Held {
			event.happens()
			return r.active(4, event.release.Version)
		})
		gap := longest()
		in.Report.Add("the web server's longest silence", gap, 0, nil)
		r.demand("web-gap", judge.WebGap(gap))
		r.atRest(event.name+" beside builds", event.release.Version)
		ended()
	}
	before := len(judge.Landings(in.Record.Record()))
	r.changeRelease("upgrade without builds", 0, in.To, func() error { return r.upgrade(r.leader(deployed), in.To.Version) })
	for _, l := range judge.Landings(in.Record.Record())[before:] {
		in.Report.Add("from told to land to started anew, "+l.Unit, l.End.Sub(l.Begin), 0, nil)
	}
}

// changeWorkers changes what only workers read, and waits until each was started anew.
func (r *run) changeWorkers(units []string, option, value string) {
	r.Helper()
	before := r.in.Record.Record().Last()
	r.configure(option, value)
	require.NoError(r, cluster.Poll(r.ctx, "other worker processes", time.Second, patience, func(ctx context.Context) (bool, error) {
		now := r.in.Record.Observe(ctx, "an option of the workers being changed", false, "")
		return len(judge.Restarted(before, now, units...)) == 0, nil
	}))
}

package scenarios

import (
	"context"
	"fmt"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/cluster"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/judge"
)

// KeptBuilds has two builds or more run on each worker, with a while to go, while an
// option of the web server changes, the charm is refreshed, and leadership moves. None of
// these is a reason to lose one.
func KeptBuilds(ctx context.Context, t T, c cluster.Cluster, in Inputs) {
	r := begin(ctx, t, c, in, "")
	deployed := r.deployed(3)
	r.quiet()
	url := in.Record.Record().Last().Web.URL
	for _, event := range []struct {
		name    string
		lasting time.Duration
		happens func()
	}{
		{"an option of the web server changed", toGo, func() { r.setExternalURL(url + "/") }},
		{"the charm refreshed", toGo, r.refreshCharm},
		{"leadership moved", 2 * toGo, r.moveLeadership},
		{"the option changed back", toGo, func() { r.setExternalURL("") }},
		{"leadership moved again", 2 * toGo, r.moveLeadership},
	} {
		before := in.Record.Record().Last()
		ended := r.underWayOn(workersOf(deployed), 2, event.lasting)
		r.phase(event.name, 0, func() cluster.Held {
			event.happens()
			return r.active(3, in.From.Version)
		})
		ended()
		server := r.server(deployed)
		r.demand("undisturbed", judge.Undisturbed(before, r.atRest(event.name, in.From.Version), server))
	}
}

// setExternalURL changes what only the web server reads, and waits until it was started
// anew.
func (r *run) setExternalURL(url string) {
	r.Helper()
	before := r.in.Record.Record().Last()
	server := r.server(before.Status)
	r.configure("external-url", url)
	require.NoError(r, cluster.Poll(r.ctx, "another web server process", time.Second, patience, func(ctx context.Context) (bool, error) {
		now := r.in.Record.Observe(ctx, "an option of the web server being changed", false, "")
		return len(judge.Restarted(before, now, server)) == 0, nil
	}))
}

// refreshCharm puts the same charm in its own place, and waits until every unit has it.
func (r *run) refreshCharm() {
	r.Helper()
	before := r.in.Record.Record().Last()
	require.NoError(r, r.c.Refresh(r.ctx, app, r.in.Charm))
	require.NoError(r, cluster.Poll(r.ctx, "every unit to have the charm", time.Second, patience, func(ctx context.Context) (bool, error) {
		now := r.in.Record.Observe(ctx, "the charm being refreshed", false, "")
		for unit, m := range now.Machines {
			if m.Charm == "" || m.Charm == before.Machines[unit].Charm {
				return false, fmt.Errorf("%s has %q", unit, m.Charm)
			}
		}
		return true, nil
	}))
}

// moveLeadership has another unit lead, though nothing is wrong with the old leader's
// services.
func (r *run) moveLeadership() {
	r.Helper()
	status, err := r.c.Status(r.ctx)
	require.NoError(r, err)
	leader := r.leader(status)
	r.during(r.c.Machine(leader).StopAgent(), func() {
		r.wait("another unit to lead", ledByOther(leader))
		r.aMoment(10 * time.Second) // in which its hooks run
	})
}

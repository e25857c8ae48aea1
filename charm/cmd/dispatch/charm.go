package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/concourse"
	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/juju"
	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/plan"
	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/relations"
	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/supervisor"
)

// charm is the charm on one unit. A hook reads what Juju says and how the unit is, plans,
// and writes what the unit should be and what Juju must know. On the machine it touches
// nothing but the supervisor.
type charm struct {
	paths      concourse.Paths
	system     concourse.System
	hostname   string
	hosts      string // the machine's file of host names
	executable string // of this process; the supervisor is a copy of it
	agents     string // directory with one of each of Juju's agents on this machine
	patience   patience
}

// patience is how long a hook waits for the supervisor.
type patience struct {
	start, leave, action, look time.Duration
}

// defaultPatience: a supervisor starts within a second, and a unit leaves when its builds
// have ended, for which they have drain-timeout, then its worker, for which it has a minute,
// and what it has on the volume is removed.
var defaultPatience = patience{start: 30 * time.Second, leave: 6 * time.Minute, action: time.Minute, look: 100 * time.Millisecond}

func (c charm) files() supervisor.Files { return supervisor.Files(c.paths.State) }

// run handles the event that Juju's environment names. An error makes Juju retry; what an
// operator or the supervisor can mend is a status instead.
func (c charm) run(ctx context.Context) error {
	event := juju.ReadEvent()
	files := c.files()
	if other, err := c.otherUnit(ctx, event.Unit); err != nil {
		return err
	} else if other != "" {
		return answer(event, plan.SecondUnit(other)) // and touches nothing of the other, not even to be removed
	}
	if event.Hook == "remove" {
		return supervisor.Remove(ctx, c.system, c.paths.State, c.hosts)
	}
	before, err := files.Spec()
	if err != nil {
		return err
	}
	if before.Leaving && event.Hook == "start" { // the machine was only stopped
		before.Leaving = false
		if !before.Paused {
			before.Asked = time.Time{}
		}
		if err := files.PutSpec(before); err != nil {
			return err
		}
	}
	// Juju takes a unit that goes out of its other relations first, as that to its database.
	gone := event.Departing != "" && event.Departing == event.Unit
	if gone || event.Hook == "stop" || before.Leaving {
		return c.leave(ctx, files, before, event)
	}
	if err := errors.Join(c.prepare(ctx, event), takeJournal(files)); err != nil {
		return answer(event, plan.Unable(err))
	}
	in := plan.Input{Hostname: c.hostname, Volume: c.paths.Volume, Before: before}
	if in.Juju, err = c.read(event, &in.Config); err != nil {
		return err
	}
	// The newest, as all that was read may have taken a while.
	if in.Status, err = readStatus(files); err != nil {
		return answer(event, plan.Unable(err))
	}
	if event.Action != "" {
		proceed, err := act(&in)
		if err != nil || !proceed {
			return err
		}
	}
	planned := plan.Make(in)
	if planned.Spec == nil && event.Action != "" && in.Before.Unit != "" {
		planned.Spec = &in.Before // which the action may have changed
	}
	if planned.Spec != nil {
		if err := files.PutSpec(*planned.Spec); err != nil {
			return answer(event, plan.Unable(err))
		}
	}
	if err := in.Juju.Write(planned.Changes); err != nil {
		return err
	}
	switch event.Action {
	case "restart-services":
		return c.awaitRestart(ctx, in.Before)
	case "verify-volume":
		return c.awaitCheck(ctx, in.Before)
	}
	return nil
}

// answer is that of a hook that can do no more, as on a machine whose disk is full. None
// fails for what its operator can mend: each hook tries it again.
func answer(event juju.Event, status juju.Status) error {
	if event.Action != "" {
		return juju.ActionFails("%s", status.Message)
	}
	return juju.SetStatus(status)
}

// silent is how long a supervisor may not have looked at the unit. It shows that it has
// every 30 s.
const silent = 2 * time.Minute

// readStatus takes nothing for news that a supervisor has written which looks no more.
func readStatus(files supervisor.Files) (supervisor.Status, error) {
	status, err := files.Status()
	if silence := files.Silence(); silence > silent {
		status = supervisor.Status{
			WorkerKey: status.WorkerKey, Stuck: fmt.Sprintf("the supervisor has not looked at this unit for %s", silence.Round(time.Minute)),
		}
	}
	return status, err
}

// prepare has this charm's supervisor run. The first hook of a charm waits until it has
// looked, so that there is something to read.
func (c charm) prepare(ctx context.Context, event juju.Event) error {
	if err := c.occupy(event.Unit); err != nil {
		return err
	}
	if err := supervisor.Install(ctx, c.system, c.paths.State, c.executable, event.Unit); err != nil {
		return err
	}
	switch event.Hook {
	case "install", "upgrade-charm":
		c.wait(ctx, c.patience.start, func(s supervisor.Status) bool { return s.WorkerKey != "" })
	case "start": // the machine may have been off
		c.wait(ctx, c.patience.start, func(supervisor.Status) bool { return c.files().Silence() <= silent })
	}
	return nil
}

// wait waits until the supervisor says something, but not for ever.
func (c charm) wait(ctx context.Context, limit time.Duration, until func(supervisor.Status) bool) bool {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		if status, err := c.files().Status(); err == nil && until(status) {
			return true
		}
		select {
		case <-ctx.Done():
			return false
		case <-time.After(c.patience.look):
		}
	}
}

// read takes the snapshot. The leader makes the application's keys once: any unit that
// leads later reads the same ones, so that sessions and workers survive it.
func (c charm) read(event juju.Event, config *plan.Config) (juju.Snapshot, error) {
	if err := juju.ReadConfig(config); err != nil {
		return juju.Snapshot{}, err
	}
	leader, err := juju.IsLeader()
	if err != nil {
		return juju.Snapshot{}, err
	}
	s, err := juju.Read(event, leader, relations.PeersEndpoint, func(app map[string]string) juju.Needs {
		return plan.Needs(*config, event, leader, app)
	})
	if err != nil || !leader || s.Peers == nil || s.Peers.App[relations.KeysSecret] != "" {
		return s, err
	}
	keys, err := concourse.NewKeys()
	if err != nil {
		return s, err
	}
	id, err := juju.AddSecret("Keys of the web server and password of the first administrator", keys.Content())
	if err != nil {
		return s, err
	}
	s.Secrets[id] = keys.Content()
	return s, s.SetApp(relations.KeysSecret, id)
}

// leave takes the unit out of the cluster for good. The supervisor begins at the first
// sign of departure, while the web server still knows this worker's key; the hook stop
// waits until it is through, and shows how far it is. The worker's builds have their time.
func (c charm) leave(ctx context.Context, files supervisor.Files, spec supervisor.Spec, event juju.Event) error {
	if spec.Unit == "" {
		return nil // removed before it ever ran
	}
	if !spec.Leaving || spec.Asked.IsZero() {
		spec.Leaving = true
		if spec.Asked.IsZero() || !spec.Paused {
			spec.Asked = time.Now().UTC().Truncate(time.Second)
		}
	}
	var shown juju.Status
	show := func(s supervisor.Status) error {
		now := plan.Leaving(spec, s)
		if now == shown {
			return nil
		}
		shown = now
		return errors.Join(juju.SetStatus(now), takeJournal(files))
	}
	status, _ := files.Status() // which says how far the unit is, and no more
	if err := show(status); err != nil {
		return err
	}
	if err := files.PutSpec(spec); err != nil { // nothing keeps a unit from being removed
		juju.Log("WARN", "The supervisor cannot be told that the unit leaves: "+err.Error())
		return nil
	}
	left := func(s supervisor.Status) bool {
		if err := show(s); err != nil {
			juju.Log("WARN", "Cannot show how far the unit is: "+err.Error())
		}
		return s.Left
	}
	if event.Hook == "stop" && !c.wait(ctx, spec.DrainTimeout+c.patience.leave, left) {
		juju.Log("WARN", "The unit has not left in time: what it has on the volume may stay there, and does no harm")
	}
	return takeJournal(files)
}

// takeJournal brings the supervisor's log into Juju's.
func takeJournal(files supervisor.Files) error {
	records, err := files.Journal().Take()
	if err != nil {
		return err
	}
	for _, r := range records {
		juju.Log(r.Level, strings.TrimSpace(r.Message))
	}
	return nil
}

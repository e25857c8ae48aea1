package sim

import (
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

// Protocol is what the charm decides: the functions of the product, or one of them broken.
type Protocol struct {
	Needs func(c plan.Config, e juju.Event, leader bool, app map[string]string) juju.Needs
	Make  func(plan.Input) plan.Plan
	Next  func(concourse.Paths, supervisor.Spec, supervisor.Seen, supervisor.Memory) supervisor.Due
	Note  func(supervisor.Memory, supervisor.Spec) supervisor.Memory
	Did   func(supervisor.Memory, supervisor.Task, supervisor.Spec) supervisor.Memory
}

// Product is the charm as it is.
func Product() Protocol {
	return Protocol{
		Needs: plan.Needs, Make: plan.Make, Next: supervisor.Next,
		Note: supervisor.Memory.Note, Did: supervisor.Memory.Did,
	}
}

var paths = concourse.Paths{Volume: "/var/lib/concourse", State: "/var/lib/concourse-ci-machine"}

// unit is one of the application's, with what is on its disk.
type unit struct {
	*world
	name    string
	life    life
	machine *machine
	agent   *agent
	super   *driver
	files   files
	status  juju.Status // as Juju shows it
}

// files are those through which hooks and the supervisor talk.
type files struct {
	spec     supervisor.Spec
	written  int // how often the spec was
	status   supervisor.Status
	memory   supervisor.Memory
	journal  int  // lines that wait for a hook
	prepared bool // there is a key
}

func (u *unit) key() string { return "ssh-rsa KEY-" + u.machine.address }

func (u *unit) worker() string { return concourse.WorkerName(u.name) }

func (u *unit) setStatus(s juju.Status) {
	if u.status != s {
		u.say(u.name, "is %s: %s", s.Level, s.Message)
		u.status = s
	}
}

// dispatch is the charm's process in a hook or an action: charm.go of cmd/dispatch, with
// the time that each part takes.
func (u *unit) dispatch(ctx *hookContext, done func(error)) {
	e, life := ctx.event, u.agent.lives
	later := func(least, most time.Duration, do func()) {
		u.soon(least, most, func() {
			if u.agent.lives == life { // else the process is gone
				do()
			}
		})
	}
	end := func(err error) { later(10*time.Millisecond, 300*time.Millisecond, func() { done(err) }) }
	switch before := &u.files.spec; {
	case e.Hook == "remove":
		u.super.remove(func() { end(nil) })
		return
	case before.Leaving && e.Hook == "start": // the machine was only stopped
		before.Leaving = false
		if !before.Paused {
			before.Asked = time.Time{}
		}
		u.files.written++
	}
	gone := e.Departing == u.name
	if gone || e.Hook == "stop" || u.files.spec.Leaving {
		u.leave(e, later, end)
		return
	}
	u.super.install()
	proceed := func() {
		u.files.journal = 0
		later(20*time.Millisecond, 400*time.Millisecond, func() {
			in, err := u.read(ctx)
			if err != nil || e.Action != "" && in.Juju.Peers == nil {
				end(err)
				return
			}
			// The newest status, as all that was read has taken a while.
			later(10*time.Millisecond, 300*time.Millisecond, func() { end(u.plan(ctx, in)) })
		})
	}
	if e.Hook == "install" || e.Hook == "upgrade-charm" {
		u.wait(30*time.Second, later, func() bool { return u.files.status.WorkerKey != "" }, func(bool) { proceed() })
		return
	}
	proceed()
}

// plan asks the product, and does what the hook does with the answer.
func (u *unit) plan(ctx *hookContext, in plan.Input) error {
	if !u.agent.connected() {
		return errors.New("no controller")
	}
	in.Status = u.files.status
	answer := u.protocol.Make(in)
	if answer.Spec != nil {
		u.files.spec = *answer.Spec
		u.files.written++
	}
	ctx.write(in.Juju, answer.Changes)
	return nil
}

// read takes the snapshot, and makes the application's keys once.
func (u *unit) read(ctx *hookContext) (plan.Input, error) {
	in := plan.Input{Hostname: u.machine.address, Volume: paths.Volume, Before: u.files.spec, Config: u.juju.config}
	var err error
	if in.Juju, err = ctx.snapshot(in.Config); err != nil || in.Juju.Peers == nil {
		return in, err
	}
	if in.Juju.Leader && in.Juju.Peers.App[relations.KeysSecret] == "" {
		id := fmt.Sprintf("secret:keys-%d", len(u.juju.secrets))
		keys := newKeys(len(u.juju.secrets)).Content()
		ctx.secrets = map[string]*secret{id: {revision: 1, content: keys, granted: true}}
		in.Juju.Secrets[id], in.Juju.Peers.App[relations.KeysSecret] = keys, id
		ctx.app = map[string]string{relations.KeysSecret: id}
	}
	switch ctx.event.Action {
	case "pause":
		in.Pause(u.time())
	case "resume":
		in.Resume()
	case "upgrade":
		request := fmt.Sprintf("%d %s", u.now, ctx.asked)
		in.Juju.Peers.Self[relations.UpgradeRequest] = request
		ctx.self = map[string]string{relations.UpgradeRequest: request}
	}
	return in, nil
}

type later = func(least, most time.Duration, do func())

// leave has the supervisor take the unit out of the cluster; the hook stop waits for it.
func (u *unit) leave(e juju.Event, later later, end func(error)) {
	if u.files.spec.Unit == "" {
		end(nil)
		return
	}
	u.setStatus(plan.Leaving(u.files.spec, u.files.status))
	if !u.files.spec.Leaving && !u.files.spec.Paused {
		u.files.spec.Asked = u.time()
	}
	u.files.spec.Leaving = true
	u.files.written++
	if e.Hook != "stop" {
		end(nil)
		return
	}
	u.wait(u.files.spec.DrainTimeout+6*time.Minute, later, func() bool { return u.files.status.Left }, func(bool) { end(nil) })
}

func (u *unit) wait(limit time.Duration, later later, until func() bool, then func(bool)) {
	deadline := u.now + limit
	var look func()
	look = func() {
		if until() || u.now >= deadline {
			then(until())
			return
		}
		later(250*time.Millisecond, 250*time.Millisecond, look)
	}
	look()
}

// isPaused tells whether an operator has its worker stay out.
func (u *unit) isPaused() bool { return u.files.spec.Paused && u.files.spec.Worker != nil }

// paused is what such a unit says when it has what its worker is to run.
func paused(version string) string {
	return "Paused: the worker is out (v" + version + "), run `resume`"
}

// named is the version that a status says is ready, and the roles that it speaks of.
func named(s juju.Status) (version string, web, worker bool) {
	if s.Level != juju.Active {
		return "", false, false
	}
	_, version, _ = strings.Cut(s.Message, "(v")
	version, _, _ = strings.Cut(version, ")")
	web, worker = strings.HasPrefix(s.Message, "Web"), strings.HasPrefix(s.Message, "Worker")
	return version, web || !worker, worker || !web
}

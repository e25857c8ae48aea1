package sim

import (
	"fmt"
	"time"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/juju"
	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/options"
	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/relations"
)

// deploy is what an operator does first, in an order that the seed chooses.
func (w *world) deploy(units int, mode string, shared bool) {
	c := w.juju
	c.config = options.Default()
	c.config.Mode, c.config.Version = mode, firstVersion
	if shared {
		c.config.SharedStorage = "lxc"
	}
	for range units {
		u := c.addUnit()
		if shared {
			w.attach(u)
		}
	}
	w.soon(0, 30*time.Second, c.integrate)
	w.after(0, c.tick)
	w.after(0, w.ci.tick)
	w.after(0, w.judge.tick)
}

// attach gives a unit the shared volume, a while after it was added.
func (w *world) attach(u *unit) {
	u.machine.mount.missing = true
	w.soon(0, 30*time.Second, func() {
		u.machine.mount.missing = false
		w.say(u.name, "the volume is attached")
	})
}

// pass lets some time go by.
func (w *world) pass(d time.Duration) {
	for end := w.now + d; w.judge.err == nil && w.next(end); {
	}
}

// unsettled says what keeps the cluster from being at rest.
func (w *world) unsettled() string {
	app := w.juju.peers.app.settings
	target := app[relations.TargetVersion]
	if target == "" || app[relations.ActiveVersion] != target {
		return fmt.Sprintf("the target is %q and %q has answered", target, app[relations.ActiveVersion])
	}
	if given := app[relations.Turns]; given != "" && given != relations.None {
		return "workers have their turns: " + given
	}
	workers := 0
	for _, u := range w.members() {
		m, version := u.machine, ""
		version, web, worker := named(u.status)
		failed := u.status.Level == juju.Blocked && app[relations.FailedUpgrade] != "" && u.status.Message == app[relations.FailedUpgrade]
		switch {
		case u.life != alive:
			return u.name + " is leaving"
		case u.agent.busy() != "":
			return u.name + " " + u.agent.busy()
		case u.isPaused():
			if web = m.web != nil; m.worker != nil || u.status.Message != paused(target) {
				return fmt.Sprintf("%s is to be paused and says %q", u.name, u.status.Message)
			}
			if w.ci.workers[u.worker()] != nil { // as one that has landed
				workers++
			}
		case failed:
			web, worker = m.web != nil, m.worker != nil
		case version != target:
			return fmt.Sprintf("%s says %s %q", u.name, u.status.Level, u.status.Message)
		}
		if web && (!m.web.serves() || m.web.version != target) {
			return "the web server of " + u.name + " does not answer"
		}
		if !worker {
			continue
		}
		workers++
		if m.worker == nil || m.worker.version != target || !m.worker.connected() || w.ci.workers[u.worker()].state != "running" {
			return "the worker of " + u.name + " is not registered"
		}
	}
	switch {
	case len(w.ci.servers()) == 0:
		return "no web server answers"
	case workers == 0 && w.juju.config.Mode == "all", workers != len(w.ci.workers):
		return fmt.Sprintf("%d workers are listed, and there are %d", len(w.ci.workers), workers)
	}
	return ""
}

package sim

import (
	"slices"
	"time"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/concourse"
)

// fault is something that nobody plans. Plan says what it explains, nil if it cannot be
// now, and how it begins; that returns how it ends, nil if there is nothing to end.
type fault struct {
	name  string
	lasts [2]time.Duration
	plan  func(w *world) (e *excuse, begin func() (end func()))
}

// one is a unit that the seed chooses.
func (w *world) one() *unit { return pick(w, w.living()) }

func (w *world) living() []*unit {
	return slices.DeleteFunc(w.members(), func(u *unit) bool { return u.life != alive })
}

// serving is the unit with the web server, if there is one.
func (w *world) serving() *unit {
	units := slices.DeleteFunc(w.living(), func(u *unit) bool { return u.machine.web == nil })
	return pick(w, units)
}

// migrating is the unit that changes the schema, or one that may be next.
func (w *world) migrating() *unit {
	if w.ci.migrates != nil && w.ci.migrates.unit.life == alive {
		return w.ci.migrates.unit
	}
	return w.serving()
}

func (w *world) leading() *unit {
	for _, u := range w.living() {
		if u.name == w.juju.leader {
			return u
		}
	}
	return w.one()
}

// on breaks something of one unit.
func on(choose func(*world) *unit, loses bool, do func(u *unit) func()) func(*world) (*excuse, func() func()) {
	return func(w *world) (*excuse, func() func()) {
		u := choose(w)
		if u == nil {
			return nil, nil
		}
		e := &excuse{why: u.name, fault: true}
		if loses {
			e.loses = []*unit{u}
		}
		return e, func() func() { return do(u) }
	}
}

// everywhere breaks something that all units need.
func everywhere(do func(w *world) func()) func(*world) (*excuse, func() func()) {
	return func(w *world) (*excuse, func() func()) {
		return &excuse{fault: true}, func() func() { return do(w) }
	}
}

func powerCut(u *unit) func() {
	u.machine.stop()
	return u.machine.start
}

func silence(u *unit) func() {
	u.agent.stop()
	return func() {
		if u.machine.on {
			u.agent.start(false)
		}
	}
}

func cut(u *unit) func() {
	u.machine.cut = true
	return func() { u.machine.cut, u.machine.healed = false, u.now }
}

func lostMount(u *unit) func() {
	u.mount().missing = true
	return func() { u.mount().missing = false }
}

func hungMount(u *unit) func() {
	u.mount().hung = true
	return func() { u.mount().hung = false }
}

func hungWeb(u *unit) func() {
	web := u.machine.web
	if web != nil {
		web.hung = true
	}
	return func() {
		if web != nil {
			web.hung = false
		}
	}
}

func killed(service string) func(*unit) func() {
	return func(u *unit) func() {
		m := u.machine
		m.kill(service, "it is killed")
		m.failed(service)
		return nil
	}
}

// faults are all that can be injected.
var faults = []fault{
	{"power cut", lasting(20, 240), on((*world).one, true, powerCut)},
	{"power cut of the web server", lasting(20, 240), on((*world).serving, true, powerCut)},
	{"silent agent of the leader", lasting(60, 180), on((*world).leading, false, silence)},
	{"silent agent", lasting(5, 120), on((*world).one, false, silence)},
	{"network cut", lasting(5, 180), on((*world).one, false, cut)},
	{"network cut of the web server", lasting(5, 240), on((*world).serving, false, cut)},
	{"network cut of the leader", lasting(30, 180), on((*world).leading, false, cut)},
	{"lost mount", lasting(5, 120), on((*world).one, true, lostMount)},
	{"hung mount", lasting(5, 120), on((*world).one, true, hungMount)},
	{"full volume", lasting(5, 90), everywhere(func(w *world) func() {
		w.volume.full = true
		return func() { w.volume.full = false }
	})},
	{"mirror away", lasting(5, 90), everywhere(func(w *world) func() {
		w.mirror.down = true
		return func() { w.mirror.down = false }
	})},
	{"database away", lasting(5, 120), everywhere(func(w *world) func() {
		w.ci.down = true
		return func() { w.ci.down = false }
	})},
	{"controller away", lasting(5, 120), everywhere(func(w *world) func() {
		w.juju.down = true
		return func() { w.juju.down = false }
	})},
	{"secrets unreadable", lasting(5, 60), everywhere(func(w *world) func() {
		hidden := []*secret{}
		for _, id := range sortedKeys(w.juju.secrets) {
			if s := w.juju.secrets[id]; s.granted {
				s.granted, hidden = false, append(hidden, s)
			}
		}
		return func() {
			for _, s := range hidden {
				s.granted = true
			}
		}
	})},
	{"failing hooks", lasting(1, 2), on((*world).one, false, func(u *unit) func() {
		u.agent.breaks = 1 + u.rand.IntN(4)
		return nil
	})},
	{"killed supervisor", lasting(1, 2), on((*world).one, false, func(u *unit) func() {
		u.super.crash()
		return nil
	})},
	{"paused supervisor", lasting(5, 90), on((*world).one, false, func(u *unit) func() {
		u.super.paused = true
		return func() { u.super.paused = false }
	})},
	{"failing migration", lasting(5, 120), everywhere(func(w *world) func() {
		w.ci.refuses = true
		return func() { w.ci.refuses = false }
	})},
	{"killed migration", lasting(1, 2), on((*world).migrating, false, killed(concourse.MigrationUnit))},
	{"killed supervisor of the migration", lasting(1, 2), on((*world).migrating, false, func(u *unit) func() {
		u.super.crash()
		return nil
	})},
	{"power cut of the migration", lasting(20, 240), on((*world).migrating, true, powerCut)},
	{"killed web server", lasting(1, 2), on((*world).serving, false, killed(concourse.ServerUnit))},
	{"hung web server", lasting(5, 240), on((*world).serving, false, hungWeb)},
	{"lost connection of a worker", lasting(1, 2), on((*world).one, false, func(u *unit) func() {
		if w := u.machine.worker; w != nil {
			w.to = nil // it dials anew
		}
		return nil
	})},
	{"killed worker", lasting(1, 2), on((*world).one, true, killed(concourse.WorkerUnit))},
	{"machine removed by force", lasting(1, 2), func(w *world) (*excuse, func() func()) {
		if len(w.living()) < 2 {
			return nil, nil
		}
		u := w.one()
		return &excuse{why: u.name, fault: true, loses: []*unit{u}}, func() func() {
			w.juju.forget(u)
			return nil
		}
	}},
}

func lasting(least, most int) [2]time.Duration {
	return [2]time.Duration{time.Duration(least) * time.Second, time.Duration(most) * time.Second}
}

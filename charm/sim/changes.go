package sim

import (
	"fmt"
	"time"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/plan"
)

// change is what an operator does. It returns what that explains.
type change struct {
	name string
	make func(w *world) *excuse
}

func configured(set func(w *world, c *plan.Config)) func(*world) *excuse {
	return func(w *world) *excuse {
		w.juju.configure(func(c *plan.Config) { set(w, c) })
		return &excuse{}
	}
}

// twoOptions is a change with another one soon after it, and no rest in between.
const twoOptions = "option of workers, then of the web server"

func externalURL(w *world, c *plan.Config) {
	c.ExternalURL = fmt.Sprintf("https://ci-%d.example.com", w.rand.IntN(1000))
}

func removed(choose func(*world) *unit) func(*world) *excuse {
	return func(w *world) *excuse {
		u := choose(w)
		if u == nil || len(w.living()) < 2 {
			return &excuse{}
		}
		w.juju.removeUnit(u)
		return &excuse{why: u.name}
	}
}

// pauses is a change after which a unit stays out.
const pauses = "unit paused"

// later has another change come some time within a limit.
func (w *world) later(within time.Duration, do func()) {
	w.coming++
	w.after(time.Duration(w.rand.Int64N(int64(within))), func() {
		do()
		w.coming--
	})
}

// act asks a unit for an action, if it is still there.
func (u *unit) act(name, version string) {
	if u.life != alive {
		return
	}
	u.agent.actions = append(u.agent.actions, action{name, version})
	u.soon(0, 1, u.agent.once(u.agent.step))
}

// changes are all that an operator may do.
var changes = []change{
	{"nothing", func(*world) *excuse { return &excuse{} }},
	{"option of the web server", configured(externalURL)},
	{"option of every process", configured(func(_ *world, c *plan.Config) { c.LogLevel = "debug" })},
	{twoOptions, func(w *world) *excuse {
		w.juju.configure(func(c *plan.Config) { c.Tag = "gpu" })
		w.later(time.Minute, func() { w.juju.configure(func(c *plan.Config) { externalURL(w, c) }) })
		return &excuse{}
	}},
	{"option version", configured(func(_ *world, c *plan.Config) { c.Version = newerVersion })},
	{"option version of a broken release", configured(func(_ *world, c *plan.Config) { c.Version = brokenVersion })},
	{"mode", configured(func(w *world, c *plan.Config) {
		w.judge.mode = w.now
		if c.Mode == "auto" {
			c.Mode = "all"
		} else {
			c.Mode = "auto"
		}
	})},
	{"action upgrade", func(w *world) *excuse {
		w.one().act("upgrade", newerVersion)
		return &excuse{}
	}},
	{pauses, func(w *world) *excuse {
		u := w.one()
		u.act("pause", "")
		return &excuse{why: u.name}
	}},
	{"unit paused, and resumed", func(w *world) *excuse {
		u := w.one()
		u.act("pause", "")
		w.later(4*time.Minute, func() { u.act("resume", "") })
		return &excuse{why: u.name}
	}},
	{"unit paused in an upgrade", func(w *world) *excuse {
		u := w.one()
		w.later(time.Minute, func() { u.act("pause", "") })
		w.juju.configure(func(c *plan.Config) { c.Version = newerVersion })
		return &excuse{why: u.name}
	}},
	{"option of workers, of which one is removed", func(w *world) *excuse {
		w.later(time.Minute, func() { removed((*world).one)(w) })
		w.juju.configure(func(c *plan.Config) { c.Tag = "gpu" })
		return &excuse{}
	}},
	{"unit added", func(w *world) *excuse {
		u := w.juju.addUnit()
		if w.juju.config.SharedStorage == "lxc" {
			w.attach(u)
		}
		return &excuse{}
	}},
	{"unit removed", removed((*world).one)},
	{"web server's unit removed", removed((*world).serving)},
	{"charm refreshed", func(w *world) *excuse {
		w.juju.refreshCharm()
		return &excuse{}
	}},
	{"password of the database", func(w *world) *excuse {
		w.juju.rotate()
		return &excuse{}
	}},
	{"database related anew", func(w *world) *excuse {
		w.juju.disintegrate()
		return &excuse{}
	}},
}

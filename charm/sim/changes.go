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
		return &excuse{why: u.name, loses: []*unit{u}}
	}
}

// changes are all that an operator may do.
var changes = []change{
	{"nothing", func(*world) *excuse { return &excuse{} }},
	{"option of the web server", configured(externalURL)},
	{"option of every process", configured(func(_ *world, c *plan.Config) { c.LogLevel = "debug" })},
	{twoOptions, func(w *world) *excuse {
		w.juju.configure(func(c *plan.Config) { c.Tag = "gpu" })
		w.coming++
		w.after(time.Duration(w.rand.Int64N(int64(time.Minute))), func() {
			w.juju.configure(func(c *plan.Config) { externalURL(w, c) })
			w.coming--
		})
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
		u := w.one()
		u.agent.actions = append(u.agent.actions, action{"upgrade", newerVersion})
		w.soon(0, 1, u.agent.once(u.agent.step))
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

package sim

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/plan"
	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/relations"
)

// scene is a cluster at rest, of which a test decides what happens next. Seeds decide the
// rest.
func scene(t *testing.T, mode string, shared bool, units int, act func(t *testing.T, w *world)) {
	t.Parallel()
	for seed := range sceneSeeds {
		w := play(t, seed, mode, shared, units, act)
		if w.judge.err != nil || t.Failed() {
			t.Fatalf("seed %d: %v\n%s", seed, w.judge.err, strings.Join(*w.trace, "\n"))
		}
	}
}

const sceneSeeds = uint64(20)

// play has a cluster deployed, and something happen to it. No weakness counts as known.
func play(t *testing.T, seed uint64, mode string, shared bool, units int, act func(t *testing.T, w *world)) *world {
	w := newWorld(seed, Product())
	w.trace = &[]string{}
	w.judge.strict = true
	w.deploy(units, mode, shared)
	w.settle("the deployment")
	w.pass(10 * time.Second)
	act(t, w)
	return w
}

// until lets time go by until a condition holds.
func (w *world) until(t *testing.T, what string, holds func() bool) {
	for range int(30 * time.Minute / time.Second) {
		if w.judge.err != nil || holds() {
			return
		}
		w.pass(time.Second)
	}
	t.Errorf("%s did not come", what)
}

func (w *world) fault(why string, begin func(), loses ...*unit) *excuse {
	w.say("fault", "%s", why)
	e := w.judge.excuse(excuse{why: why, fault: true, loses: loses})
	begin()
	return e
}

func upgraded(w *world) *excuse {
	w.say("operator", "upgrade")
	w.juju.configure(func(c *plan.Config) { c.Version = newerVersion })
	return w.judge.excuse(excuse{why: "upgrade"})
}

// A leader that moves restarts nothing and loses no build.
func TestLeaderMoves(t *testing.T) {
	scene(t, "auto", true, 3, func(t *testing.T, w *world) {
		leader, begins := w.leading(), w.judge.begins
		e := w.fault("silent agent", leader.agent.stop)
		w.until(t, "another leader", func() bool { return w.juju.leader != leader.name && w.juju.leader != "" })
		w.pass(time.Minute)
		leader.agent.start(false)
		w.judge.over(e)
		w.settle("the moved leader")
		w.pass(time.Minute)
		require.Equal(t, begins, w.judge.begins, "processes that have begun")
	})
}

// A web server that moves, as its unit is off, loses no build of a worker that stays.
func TestWebServerMoves(t *testing.T) {
	scene(t, "auto", true, 3, func(t *testing.T, w *world) {
		serving := w.serving()
		e := w.fault("power cut", serving.machine.stop, serving)
		w.until(t, "another web server", func() bool { return len(w.ci.servers()) > 0 })
		w.pass(2 * time.Minute)
		serving.machine.start()
		w.judge.over(e)
		w.settle("the moved web server")
		require.NotEqual(t, serving.name, w.juju.peers.app.settings[relations.WebUnit])
		w.rests()
	})
}

// A unit that was off for an upgrade brings no old web server to the new schema, whether
// its release is on a volume that others share, or on its own disk.
func TestUnitThatWasOff(t *testing.T) {
	for name, shared := range map[string]bool{"shared volume": true, "own disk": false} {
		t.Run(name, func(t *testing.T) {
			scene(t, "web", shared, 3, func(t *testing.T, w *world) {
				u := w.one()
				for u.name == w.juju.leader {
					u = w.one()
				}
				e := w.fault("power cut of "+u.name, u.machine.stop, u)
				change := upgraded(w)
				w.until(t, "the upgrade of the others", func() bool {
					return w.juju.peers.app.settings[relations.ActiveVersion] == newerVersion
				})
				w.pass(3 * time.Minute)
				w.judge.strict = true
				u.machine.start()
				w.judge.over(e)
				w.settle("the unit's return")
				w.judge.over(change)
			})
		})
	}
}

// A leader that was not told that it is one no more does not make the release before
// current again and again, in turn with its successor.
func TestFormerLeader(t *testing.T) {
	scene(t, "all", true, 3, func(t *testing.T, w *world) {
		leader := w.leading()
		e := w.fault("silent agent", leader.agent.stop)
		change := upgraded(w)
		w.pass(5 * time.Minute)
		leader.agent.start(false)
		w.judge.over(e)
		w.settle("the upgrade")
		w.judge.over(change)
	})
}

// Workers come to rest where each unit gets a web server of its own.
func TestModeChanges(t *testing.T) {
	scene(t, "auto", true, 3, func(_ *testing.T, w *world) {
		w.juju.configure(func(c *plan.Config) { c.Mode = "all" })
		e := w.judge.excuse(excuse{losesAll: true})
		w.settle("the mode")
		w.judge.over(e)
	})
}

// A unit that was off does not collect what the others have installed and are about to
// make current.
func TestUnitThatWasOffCollects(t *testing.T) {
	scene(t, "auto", true, 4, func(t *testing.T, w *world) {
		serving := w.serving()
		e := w.fault("power cut", serving.machine.stop, serving)
		change := upgraded(w)
		w.until(t, "the release", func() bool { return w.volume.installed[newerVersion] })
		serving.machine.start()
		w.judge.over(e)
		w.settle("the upgrade")
		w.judge.over(change)
	})
}

// An option with which no worker starts takes one worker away, and the leader says whose. The
// others go on, and all run again without the option.
func TestReplacingStops(t *testing.T) {
	for _, mode := range []string{"auto", "all"} {
		t.Run(mode, func(t *testing.T) {
			scene(t, mode, true, 4, func(t *testing.T, w *world) {
				before := len(w.ci.workers)
				set := func(enable bool) {
					w.juju.configure(func(c *plan.Config) { c.ContainerdDNSProxyEnable = enable })
				}
				set(true)
				e := w.judge.excuse(excuse{why: "an option that no worker starts with"})
				w.pass(8 * time.Minute)
				require.Regexp(t, "has stopped at 0 of|exits again and again", w.leading().status.Message)
				running := 0
				for _, r := range w.ci.workers {
					if r.worker.connected() {
						running++
					}
				}
				require.Equal(t, before-1, running, "workers that run")
				set(false)
				w.settle("the option that was taken back")
				w.judge.over(e)
			})
		})
	}
}

// A unit that is paused loses no build, stays out when its machine boots, takes part in an
// upgrade, and works from the new release when it is resumed. Nobody waits for it.
func TestPausedUnit(t *testing.T) {
	for _, mode := range []string{"auto", "all"} {
		t.Run(mode, func(t *testing.T) {
			scene(t, mode, true, 3, func(t *testing.T, w *world) {
				u := w.one()
				for mode == "auto" && u.machine.web != nil {
					u = w.one()
				}
				u.act("pause", "")
				w.until(t, "that it is out", func() bool { return u.status.Message == paused(firstVersion) })
				e := w.fault("power cut of "+u.name, u.machine.stop)
				w.pass(30 * time.Second)
				u.machine.start()
				w.judge.over(e)
				w.settle("the reboot")
				w.judge.strict = false // of web servers that go one by one
				change := upgraded(w)
				w.settle("the upgrade")
				w.judge.over(change)
				require.Equal(t, paused(newerVersion), u.status.Message)
				u.act("resume", "")
				w.until(t, "its worker", func() bool { return u.machine.worker != nil })
				w.settle("its return")
				require.Equal(t, newerVersion, u.machine.worker.version)
			})
		})
	}
}

// The builds of a unit that is removed end first, also while the others take turns.
func TestRemovedUnit(t *testing.T) {
	scene(t, "auto", true, 4, func(t *testing.T, w *world) {
		u := w.one()
		for u.machine.web != nil {
			u = w.one()
		}
		w.until(t, "its builds", func() bool { return u.machine.worker != nil && len(u.machine.worker.builds) == 2 })
		w.juju.removeUnit(u)
		w.until(t, "its end", func() bool { return u.life == dead })
		w.settle("the removal")
	})
}

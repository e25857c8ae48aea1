package sim

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/concourse"
	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/plan"
	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/relations"
)

// untilMigrating lets time go by until the schema is being changed, and returns who does it.
func (w *world) untilMigrating(t *testing.T) *unit {
	w.until(t, "a migration under way", func() bool { return w.ci.migrates != nil && w.ci.schema > releases[firstVersion].schema })
	if w.ci.migrates == nil {
		return w.one() // it did not come
	}
	return w.ci.migrates.unit
}

// The schema is changed once, by one unit, whatever happens meanwhile: a migration goes on
// without its supervisor, over a refresh of the charm and without a leader; one that the
// database, the network or its machine has ended is begun anew.
func TestMigrationIsDisturbed(t *testing.T) {
	for name, disturb := range map[string]func(*world, *unit) (end func()){
		"supervisor killed": func(_ *world, u *unit) func() { u.super.crash(); return nil },
		"charm refreshed":   func(w *world, _ *unit) func() { w.juju.refreshCharm(); return nil },
		"leader silent":     func(w *world, _ *unit) func() { return silence(w.leading()) },
		"machine stopped":   func(_ *world, u *unit) func() { return powerCut(u) },
		"network cut":       func(_ *world, u *unit) func() { return cut(u) },
		"program killed":    func(_ *world, u *unit) func() { return killed(concourse.MigrationUnit)(u) },
		"database away": func(w *world, _ *unit) func() {
			w.ci.down = true
			return func() { w.ci.down = false }
		},
	} {
		for _, mode := range []string{"auto", "web"} {
			t.Run(name+" in mode "+mode, func(t *testing.T) {
				scene(t, mode, true, 3, func(t *testing.T, w *world) {
					change := upgraded(w)
					u := w.untilMigrating(t)
					e := w.fault(name, func() {}, u)
					end := disturb(w, u)
					w.pass(100 * time.Second)
					if end != nil {
						end()
					}
					w.judge.over(e)
					w.settle("the upgrade")
					w.judge.over(change)
					require.Equal(t, releases[newerVersion].schema, w.ci.schema)
					require.Equal(t, newerVersion, w.juju.peers.app.settings[relations.ActiveVersion])
				})
			})
		}
	}
}

// An upgrade whose migration fails, or whose web server never answers, is taken back with its
// schema: the release before serves again.
func TestGoingBack(t *testing.T) {
	for _, mode := range []string{"auto", "web", "all"} {
		back := func(t *testing.T, w *world) {
			w.until(t, "the way back", func() bool { return w.juju.peers.app.settings[relations.FailedUpgrade] != "" })
			w.settle("the way back")
			require.Equal(t, releases[firstVersion].schema, w.ci.schema)
			require.Equal(t, firstVersion, w.juju.peers.app.settings[relations.TargetVersion])
		}
		t.Run("the migration fails in mode "+mode, func(t *testing.T) {
			scene(t, mode, true, 3, func(t *testing.T, w *world) {
				change := upgraded(w)
				w.untilMigrating(t)
				e := w.fault("failing migration", func() { w.ci.refuses = true })
				w.until(t, "the failure", func() bool { return w.juju.peers.app.settings[relations.FailedUpgrade] != "" })
				w.ci.refuses = false
				w.judge.over(e)
				back(t, w)
				w.judge.over(change)
			})
		})
		t.Run("the web server never answers in mode "+mode, func(t *testing.T) {
			scene(t, mode, true, 3, func(t *testing.T, w *world) {
				w.juju.configure(func(c *plan.Config) { c.Version = brokenVersion })
				back(t, w)
			})
		})
	}
}

// What a web server has served is not taken down: a downgrade is refused, and the web server
// serves on.
func TestDowngradeIsRefused(t *testing.T) {
	scene(t, "auto", true, 2, func(t *testing.T, w *world) {
		change := upgraded(w)
		w.settle("the upgrade")
		w.judge.over(change)
		w.juju.configure(func(c *plan.Config) { c.Version = firstVersion })
		w.until(t, "the refusal", func() bool {
			return slices.ContainsFunc(w.living(), func(u *unit) bool {
				return strings.HasPrefix(u.status.Message, "Downgrade to v"+firstVersion+" refused")
			})
		})
		w.pass(5 * time.Minute)
		require.Equal(t, releases[newerVersion].schema, w.ci.schema)
		require.Len(t, w.ci.servers(), 1)
		w.juju.configure(func(c *plan.Config) { c.Version = newerVersion })
		w.settle("the version as it was")
	})
}

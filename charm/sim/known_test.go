package sim

import (
	"testing"
	"time"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/concourse"
	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/plan"
)

// TestKnown shows each known weakness. One that shows no more is mended.
func TestKnown(t *testing.T) {
	for _, test := range []struct {
		what   known
		mode   string
		shared bool
		units  int
		act    func(t *testing.T, w *world)
	}{
		{schemaStays, "auto", true, 1, func(t *testing.T, w *world) {
			web := upgradedWeb(t, w)
			e := w.fault("hung web server", func() { web.hung = true })
			w.pass(5 * time.Minute)
			w.judge.over(e)
			w.settle("the upgrade")
		}},
		{websGoOneByOne, "web", true, 2, func(t *testing.T, w *world) {
			upgradedWeb(t, w)
			for _, u := range w.living() {
				if m := u.machine; m.web != nil && m.web.version == firstVersion {
					w.judge.over(w.fault("killed web server", func() { killed(concourse.ServerUnit)(u) }))
				}
			}
			w.settle("the upgrade")
		}},
		{modeChanges, "all", true, 3, func(t *testing.T, w *world) {
			w.say("operator", "mode")
			w.juju.configure(func(c *plan.Config) { c.Mode = "auto" })
			w.settle("the change")
		}},
	} {
		t.Run(string(test.what), func(t *testing.T) {
			t.Parallel()
			for seed := range 3 * sceneSeeds {
				if play(t, seed, test.mode, test.shared, test.units, test.act).judge.err != nil {
					return
				}
			}
			t.Error("it is mended: take it from known.go")
		})
	}
}

// upgradedWeb is the web server that has just taken the schema up, and does not answer yet.
func upgradedWeb(t *testing.T, w *world) *webServer {
	upgraded(w)
	var web *webServer
	w.until(t, "the new schema", func() bool {
		for _, s := range w.ci.servers() {
			if s.version == newerVersion {
				web = s
			}
		}
		return web != nil
	})
	return web
}

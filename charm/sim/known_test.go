package sim

import (
	"testing"

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

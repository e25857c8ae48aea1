package judge

import (
	"strings"

	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/observation"
)

var pauseRules = []Rule{
	{Name: "paused-stays-out", Promise: "A unit that says it is paused runs no worker, until it is resumed.", Broken: worksWhilePaused},
}

// paused tells whether a unit says so.
func paused(o observation.Observation, unit string) bool {
	u, ok := o.Status.Unit(unit)
	return ok && strings.HasPrefix(u.Message, "Paused:")
}

func worksWhilePaused(r observation.Record) []string {
	var f findings
	for o := range resting(r) {
		for unit, m := range machines(o) {
			if s, does := m.Service(worker); paused(o, unit) && does && s.PID != 0 {
				u, _ := o.Status.Unit(unit)
				f.add(o, unit, "says %q, and %s is %s", u.Message, worker, s.State)
			}
		}
		if o.Web == nil {
			continue
		}
		for _, w := range o.Web.Workers {
			for u := range allUnits(o.Status) {
				if dashed(u.Name) == w.Name && paused(o, u.Name) && w.State == "running" {
					f.add(o, u.Name, "says %q, and the web server lists its worker as running", u.Message)
				}
			}
		}
	}
	return f
}

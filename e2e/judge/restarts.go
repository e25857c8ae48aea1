package judge

import (
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/cluster"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/observation"
)

var restartRules = []Rule{
	{Name: "active-means-up", Promise: "A unit whose service ends again and again is not active.", Broken: activeWhileRestarting},
}

// tooOften is how many restarts by systemd, between two observations, are no accident.
const tooOften = 3

// activeWhileRestarting compares each observation of a unit with the one before it. A
// start by anybody but systemd sets the count of restarts to 0: where it has grown,
// systemd alone was at work. A fault explains restarts.
func activeWhileRestarting(r observation.Record) []string {
	var f findings
	last := map[string]observation.Observation{} // by unit
	for _, o := range r.Observations {
		for unit, m := range machines(o) {
			before, seen := last[unit]
			last[unit] = o
			was, _ := before.Status.Unit(unit)
			is, _ := o.Status.Unit(unit)
			if !seen || faulty(r, before.Time, o.Time) ||
				is.Workload != cluster.Active || was.Workload != cluster.Active || was.Message != is.Message {
				continue
			}
			for _, s := range m.Services {
				old, known := before.Machines[unit].Service(s.Name)
				if known && s.Restarts-old.Restarts >= tooOften {
					f.add(o, unit, "is active (%q) while systemd has started %s %d times since %q",
						is.Message, s.Name, s.Restarts-old.Restarts, before.Phase)
				}
			}
		}
	}
	return f
}

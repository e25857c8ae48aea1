package judge

import (
	"slices"
	"time"

	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/observation"
)

var webRules = []Rule{
	{
		Name: "web-answers", Promise: "The web server answers with the version that all units should run.", Broken: wrongAnswer,
		Recovers: "A web server that was killed is started again while its unit says what it said.",
	},
	{
		Name: "workers-registered", Promise: "The web server knows the workers of all units as running, and no others.", Broken: wrongWorkers,
		Settles: "Workers are registered by their heartbeats, and forgotten when these stay away.",
	},
}

func wrongAnswer(r observation.Record) []string {
	var f findings
	for o := range resting(r) {
		switch {
		case o.Expected == "" || o.Web == nil:
		case o.Web.Version == "":
			f.add(o, o.Web.URL, "the web server does not answer")
		case o.Web.Version != o.Expected:
			f.add(o, o.Web.URL, "the web server answers with %s, and must with %s", o.Web.Version, o.Expected)
		}
	}
	return f
}

// wrongWorkers says nothing of units whose machines could not be asked.
func wrongWorkers(r observation.Record) []string {
	var f findings
	for o := range resting(r) {
		if o.Expected == "" || o.Web == nil || o.Web.Workers == nil {
			continue
		}
		wanted := map[string]bool{} // by worker: whether it has to run
		for u := range allUnits(o.Status) {
			if m, asked := o.Machines[u.Name]; asked {
				_, wanted[dashed(u.Name)] = runs(m, worker)
			}
		}
		listed := map[string]bool{}
		for _, w := range o.Web.Workers {
			if listed[w.Name] {
				f.add(o, w.Name, "the web server lists it twice")
			}
			listed[w.Name] = true
			must, asked := wanted[w.Name]
			switch {
			case !asked && (isUnit(o, w.Name) || len(o.Status.Apps) == 0):
			case !must && w.State == "retiring" && leftBefore(r, w.Name, o.Time):
			case !must && w.State == "landed" && pausedWorker(o, w.Name):
			case !must:
				f.add(o, w.Name, "the web server lists it as %s, and no unit runs it", w.State)
			case w.State != "running":
				f.add(o, w.Name, "the web server lists it as %s, and its unit runs it", w.State)
			}
		}
		for unit := range machines(o) {
			if name := dashed(unit); wanted[name] && !listed[name] {
				f.add(o, unit, "its worker runs, and the web server does not know it")
			}
		}
	}
	return f
}

// forgets is how long a web server may list the worker of a unit that has left: it forgets
// one 30 s after its last heartbeat, and looks each 30 s.
const forgets = 75 * time.Second

// leftBefore tells whether a worker's unit was seen, not long before a time.
func leftBefore(r observation.Record, name string, at time.Time) bool {
	return slices.ContainsFunc(r.Observations, func(o observation.Observation) bool {
		return o.Time.Before(at) && at.Sub(o.Time) <= forgets && isUnit(o, name)
	})
}

// pausedWorker tells whether a worker's unit says that it is paused.
func pausedWorker(o observation.Observation, name string) bool {
	for u := range allUnits(o.Status) {
		if dashed(u.Name) == name {
			return paused(o, u.Name)
		}
	}
	return false
}

// isUnit tells whether a worker's name is that of a unit.
func isUnit(o observation.Observation, name string) bool {
	for u := range allUnits(o.Status) {
		if dashed(u.Name) == name {
			return true
		}
	}
	return false
}

// Unlisted judges an observation of a time in which the web server has not listed the
// workers of units as running for longer than they may take to say so.
func Unlisted(o observation.Observation, units ...string) []string {
	var f findings
	for _, unit := range units {
		if u, _ := o.Status.Unit(unit); active(o, unit) {
			f.add(o, unit, "says %q, and the web server does not list its worker as running", u.Message)
		}
	}
	return f
}

package judge

import (
	"slices"
	"strings"
	"time"

	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/cluster"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/observation"
)

var buildRules = []Rule{
	{Name: "no-lost-build", Promise: "Every build succeeds at the first attempt, unless a known flaw of Concourse or a fault on its worker's machine explains why not.", Broken: lostBuilds},
	{Name: "builds-on-units", Promise: "Builds run on the units' workers.", Broken: strayBuilds},
}

// knownFlaws of Concourse make a build end as errored for no fault of anybody.
var knownFlaws = map[string]func(observation.Record, observation.Build) bool{
	// "load proc: no running process found", of a process that ends in milliseconds
	"concourse#7056": func(observation.Record, observation.Build) bool { return true },
	// "proc closeio: process does not exist": the worker goes on waiting for the process on
	// behalf of the web server that was killed. Where that wait is the first to see the end, it
	// takes the process away from the one that counts. What #6959 has mended is the
	// step right after that.
	"concourse#6959": func(r observation.Record, b observation.Build) bool {
		return slices.ContainsFunc(r.Log, func(line cluster.LogLine) bool {
			return startsServer(r, line) && line.Time.After(b.Started) && line.Time.Before(b.Ended)
		})
	},
}

func startsServer(r observation.Record, line cluster.LogLine) bool {
	return strings.HasPrefix(line.Unit, r.App+"/") && strings.Contains(line.Message, "Starting "+server)
}

// lostBuilds takes no fault of a web server's machine for an explanation, unless the
// build's worker was there, too: builds go on without their web server.
func lostBuilds(r observation.Record) []string {
	var f findings
	for _, b := range r.Builds {
		switch b.Result {
		case "succeeded":
			if b.Begun > 1 && !explained(r, b) && !unheard(r, b) {
				f.note("build %s on %q from %s to %s: its task was begun %d times, and no fault explains it: what it had done was lost",
					b.Name, b.Worker, clock(b.Started), clock(b.Ended), b.Begun)
			}
			continue
		case "":
			if b.Ended.IsZero() {
				continue // it has not ended yet
			}
		case "errored":
			if known := knownFlaws[b.Flaw]; known != nil && known(r, b) {
				continue
			}
			fallthrough
		case "failed":
			if explained(r, b) {
				continue
			}
		}
		f.note("build %s on %q from %s to %s: %q, and no fault explains it: %s",
			b.Name, b.Worker, clock(b.Started), clock(b.Ended), b.Result, b.Output)
	}
	return f
}

// deaf is how long a web server that is started anew does not hear of a task that ends. It
// has let go of its builds when it is stopped, and takes them up 10 s after its start, by
// what CONCOURSE_BUILD_TRACKER_INTERVAL is. A task that has ended by then is run again.
// The line in the log is written by a hook, some seconds late.
const (
	deaf = 15 * time.Second
	late = 5 * time.Second
)

// unheard tells whether the end of a build was due while a web server was not there to hear
// of it.
func unheard(r observation.Record, b observation.Build) bool {
	return !b.Due.IsZero() && slices.ContainsFunc(r.Log, func(line cluster.LogLine) bool {
		after := b.Due.Sub(line.Time)
		return startsServer(r, line) && after > -late && after < deaf
	})
}

func explained(r observation.Record, b observation.Build) bool {
	return b.Worker != "" && slices.ContainsFunc(r.Faults, func(fault observation.Fault) bool {
		return overlaps(fault, b.Started, b.Ended) && slices.ContainsFunc(fault.Units, func(unit string) bool {
			return dashed(unit) == b.Worker
		})
	})
}

func strayBuilds(r observation.Record) []string {
	var f findings
	if len(r.Observations) == 0 {
		return nil
	}
	for _, b := range r.Builds {
		known := slices.ContainsFunc(r.Observations, func(o observation.Observation) bool { return isUnit(o, b.Worker) })
		if b.Result == "succeeded" && !known {
			f.note("build %s ran on %q, which is no unit's worker", b.Name, b.Worker)
		}
	}
	return f
}

// BuiltOn returns a line for each unit on whose worker none of the builds has succeeded.
func BuiltOn(builds []observation.Build, units ...string) []string {
	var f findings
	for _, unit := range units {
		if !slices.ContainsFunc(builds, func(b observation.Build) bool { return b.Result == "succeeded" && b.Worker == dashed(unit) }) {
			f.note("%s: none of %d builds succeeded on its worker", unit, len(builds))
		}
	}
	return f
}

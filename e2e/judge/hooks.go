package judge

import (
	"regexp"
	"strings"
	"time"

	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/cluster"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/observation"
)

var restRules = []Rule{
	{Name: "hooks-rest", Promise: "Hooks come to rest when nobody does anything.", Broken: restless},
}

// What a cluster at rest may do. Hooks that were already due end in the first seconds. A
// shorter span of rest says nothing. After that a unit may run a few hooks for what
// happens by itself, such as a download of the charm's that ends, and one more a minute.
const (
	settling     = 5 * time.Second
	shortestRest = 10 * time.Second
	fewHooks     = 3
	aMinute      = time.Minute
)

// These are Juju's words. An agent logs each hook when it has ended. The charm's supervisor
// wakes the charm with juju-exec: that is no hook but a command, which an agent logs
// at level DEBUG only. The controller records it in the log at any level, as a status of
// the agent, but not whose, and only once for commands in quick succession.
var (
	ranHook     = regexp.MustCompile(`^ran "([^"]+)" hook \(via `)
	ranCommands = regexp.MustCompile(`^running operation run commands\b`)
)

const executed = `status-history (status: "executing", status-message: "running commands")`

// restless counts what ran between an observation at rest and the next event.
func restless(r observation.Record) []string {
	var f findings
	for o := range resting(r) {
		from, to := o.Time.Add(settling), calmUntil(r, o.Time)
		span := to.Sub(from)
		if span < shortestRest {
			continue
		}
		allowed := fewHooks + int(span/aMinute)
		ran, all := count(r, from, to)
		for _, u := range o.Status.Units(r.App) {
			if n := ran[u.Name]; n > allowed {
				f.add(o, u.Name, "ran %d hooks in %s of rest, more than %d", n, span.Round(time.Second), allowed)
			}
		}
		units := 0
		for range allUnits(o.Status) {
			units++
		}
		if units > 0 && all > allowed*units {
			f.add(o, r.App, "%d units ran commands %d times in %s of rest, more than %d", units, all, span.Round(time.Second), allowed*units)
		}
	}
	return f
}

// calmUntil returns when the calm after a moment ended: with the next event, or where
// nothing more is known.
func calmUntil(r observation.Record, from time.Time) time.Time {
	var end time.Time
	for _, line := range r.Log {
		if line.Time.After(end) {
			end = line.Time
		}
	}
	for at := range events(r) {
		if at.After(from) && at.Before(end) {
			end = at
		}
	}
	return end
}

// count returns how many hooks and commands each unit ran in a span, and how many
// commands were recorded for all units together.
func count(r observation.Record, from, to time.Time) (ran map[string]int, commands int) {
	ran = map[string]int{}
	for _, line := range r.Log {
		if line.Time.Before(from) || line.Time.After(to) {
			continue
		}
		if strings.Contains(line.Message, executed) {
			commands++
		}
		if isRun(line) {
			ran[line.Unit]++
		}
	}
	return ran, commands
}

// isRun tells whether an agent says that it has run something. Juju itself asks for
// update-status every few minutes.
func isRun(line cluster.LogLine) bool {
	if !strings.HasSuffix(line.Module, "worker.uniter.operation") {
		return false
	}
	hook := ranHook.FindStringSubmatch(line.Message)
	return hook != nil && hook[1] != "update-status" || ranCommands.MatchString(line.Message)
}

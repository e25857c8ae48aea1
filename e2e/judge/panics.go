package judge

import (
	"regexp"
	"strings"

	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/observation"
)

var panicRules = []Rule{
	{Name: "no-panic", Promise: "No program of the charm panics.", Broken: panicked},
}

var (
	panicLine = regexp.MustCompile(`(?m)^(panic: |fatal error: )`)
	traceLine = regexp.MustCompile(`(?m)^goroutine \d+ \[`)
)

// traceWithin is in how many lines of a hook the trace follows the panic. In between
// are the values of nested panics, and the signal.
const traceWithin = 20

// panicked finds panics with their traces: the word alone may be about anything. Juju
// logs each line that a hook prints, under the name of the hook, as "unit.ci/0.install".
func panicked(r observation.Record) []string {
	var f findings
	for i, line := range r.Log {
		if !strings.HasPrefix(line.Module, "unit."+r.App+"/") || !panicLine.MatchString(line.Message) {
			continue
		}
		left := traceWithin
		for _, next := range r.Log[i:] {
			if left == 0 {
				break
			}
			if next.Module != line.Module { // which names the unit
				continue
			}
			left--
			if traceLine.MatchString(next.Message) {
				first, _, _ := strings.Cut(line.Message, "\n")
				f.note("%s panicked in %s at %s: %s", line.Unit, line.Module, clock(line.Time), first)
				break
			}
		}
	}
	for _, o := range r.Observations {
		for unit, m := range machines(o) {
			for _, line := range m.Panics {
				f.add(o, unit, "the journal has a panic: %s", line)
			}
		}
	}
	return f
}

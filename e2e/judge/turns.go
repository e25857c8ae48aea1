package judge

import (
	"slices"
	"strings"
	"time"

	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/observation"
)

var turnRules = []Rule{
	{Name: "takes-turns", Promise: "One worker at a time ends with its builds, to be replaced (no scenario sets max-unavailable).", Broken: landsBeside},
}

// Landing is the time from when a unit told its worker to land until it started the next.
type Landing struct {
	Unit       string
	Begin, End time.Time
}

// Landings reads the units' log. A worker that is told again has begun before; one that has
// not ended yet is left out, and so is one that ends for good.
func Landings(r observation.Record) (all []Landing) {
	began := map[string]time.Time{}
	for _, line := range r.Log {
		if !strings.HasPrefix(line.Unit, r.App+"/") {
			continue
		}
		begin, told := began[line.Unit]
		switch {
		case strings.Contains(line.Message, "Landing the worker in its turn") && !told:
			began[line.Unit] = line.Time
		case strings.Contains(line.Message, "Starting "+worker) && told:
			all = append(all, Landing{line.Unit, begin, line.Time})
			delete(began, line.Unit)
		}
	}
	slices.SortStableFunc(all, func(a, b Landing) int { return a.Begin.Compare(b.Begin) })
	return all
}

func landsBeside(r observation.Record) []string {
	var f findings
	all := Landings(r)
	for i, later := range all {
		for _, earlier := range all[:i] {
			lost := faulty(r, earlier.Begin, later.Begin) // nobody waits for a unit that is off
			if later.Unit != earlier.Unit && later.Begin.Before(earlier.End) && !lost {
				f.note("%s was told to land its worker at %s, while %s did so, from %s to %s",
					later.Unit, clock(later.Begin), earlier.Unit, clock(earlier.Begin), clock(earlier.End))
			}
		}
	}
	return f
}

package judge

import (
	"regexp"
	"slices"

	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/observation"
)

var optionRules = []Rule{
	{Name: "wrong-option", Promise: "An option that cannot be meant touches no running service.", Broken: touchedByOption},
}

// Undisturbed compares two observations: between them, no service of a unit may have
// been stopped, started or restarted. It leaves out the units that are excepted, those
// that were not there before or are gone, and machines that could not be asked.
func Undisturbed(before, after observation.Observation, except ...string) []string {
	var f findings
	for unit, was := range machines(before) {
		is, seen := after.Machines[unit]
		if !seen || slices.Contains(except, unit) {
			continue
		}
		for _, name := range []string{server, worker} {
			old, ran := runs(was, name)
			now, goesOn := runs(is, name)
			switch {
			case !ran && !goesOn:
			case !goesOn:
				f.add(after, unit, "%s was stopped; it ran at the end of %q and must go on", name, before.Phase)
			case !ran:
				f.add(after, unit, "%s was started; it did not run at the end of %q", name, before.Phase)
			case now.Invocation != old.Invocation || now.PID != old.PID:
				f.add(after, unit, "%s was restarted (process %d, before %d) and must go on", name, now.PID, old.PID)
			}
		}
	}
	return f
}

// Restarted compares two observations: between them, every service of the units must have
// been started anew.
func Restarted(before, after observation.Observation, units ...string) []string {
	var f findings
	for _, unit := range units {
		for _, name := range []string{server, worker} {
			old, ran := runs(before.Machines[unit], name)
			now, goesOn := runs(after.Machines[unit], name)
			if ran && (!goesOn || now.Invocation == old.Invocation) {
				f.add(after, unit, "%s was not started anew since %q", name, before.Phase)
			}
		}
	}
	return f
}

// wrongOption is how messages about an option begin that cannot be meant.
var wrongOption = regexp.MustCompile(`^(Unknown|Unusable|Malformed) `)

// touchedByOption compares an observation at rest with the next one, in which a unit
// complains about an option, where nothing but the setting of one happened in between.
func touchedByOption(r observation.Record) []string {
	var f findings
	for i := 1; i < len(r.Observations); i++ {
		before, o := r.Observations[i-1], r.Observations[i]
		if !before.Resting || happened(r, before.Time, o.Time) > 1 || faulty(r, before.Time, o.Time) {
			continue
		}
		var others []string
		for unit := range machines(before) {
			if u, ok := o.Status.Unit(unit); !ok || !wrongOption.MatchString(u.Message) {
				others = append(others, unit)
			}
		}
		f = append(f, Undisturbed(before, o, others...)...)
	}
	return f
}

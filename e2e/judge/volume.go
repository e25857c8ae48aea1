package judge

import (
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/observation"
)

var volumeRules = []Rule{
	{
		Name: "sound-volume", Promise: "Where all units run one release, it is on the volume, and nothing there is damaged.", Broken: unsoundVolume,
		Recovers: "A damaged release is downloaded again beside what runs.",
	},
	{
		Name: "nothing-left", Promise: "Where all units run one release, nothing on the volume has failed or is left half done.", Broken: leftHalfDone,
		Settles: "A supervisor removes what is left over.",
	},
	{Name: "known-units", Promise: "The volume has the state of the units that are there, and of nobody else.", Broken: strangers},
	{Name: "pins-what-it-runs", Promise: "A unit has pinned the download that it runs from, and what is pinned is there.", Broken: wrongPins},
}

// unsoundVolume leaves damage alone while a fault is there that may have done it.
func unsoundVolume(r observation.Record) []string {
	var f findings
	for o := range resting(r) {
		if o.Expected == "" {
			continue
		}
		for unit, m := range inUse(o) {
			v := m.Volume
			if !faulty(r, o.Time, o.Time) {
				for _, what := range slices.Sorted(maps.Keys(v.Damaged)) {
					f.add(o, unit, "%s is damaged: %s", what, v.Damaged[what])
				}
				for _, version := range slices.Sorted(maps.Keys(v.Unsound)) {
					f.add(o, unit, "release %s is not sound: %s", version, v.Unsound[version])
				}
			}
			if _, ok := released(v.Inspection, o.Expected); !ok {
				f.add(o, unit, "release %s is not on the volume", o.Expected)
			}
		}
	}
	return f
}

func leftHalfDone(r observation.Record) []string {
	var f findings
	for o := range resting(r) {
		if o.Expected == "" {
			continue
		}
		for unit, m := range inUse(o) {
			v := m.Volume
			for _, version := range slices.Sorted(maps.Keys(v.Failures)) {
				if _, ok := released(v.Inspection, version); ok {
					f.add(o, unit, "a failure is noted of %s, which is installed: %s", version, v.Failures[version])
				}
			}
			if p := v.Progress; p != nil {
				f.add(o, unit, "%s still downloads %s", p.Unit, p.Version)
			}
			for _, name := range v.Staged {
				if !resumable(*v, name) {
					f.add(o, unit, "staging/%s was left", name)
				}
			}
		}
	}
	return f
}

// staged is the form of a name below staging/: VERSION.N.UNIT.
var staged = regexp.MustCompile(`^(.+)\.\d+\.[^.]+$`)

// resumable tells whether something staged is kept on purpose: a part of a release that
// is not installed, which the next attempt goes on with.
func resumable(v observation.Volume, name string) bool {
	m := staged.FindStringSubmatch(name)
	if m == nil || strings.HasPrefix(name, "collecting-") || strings.HasPrefix(name, ".") {
		return false
	}
	_, installed := released(v.Inspection, m[1])
	return !installed
}

// LeftOf returns a line for each thing that a unit has left behind: on the volume, or in the
// web server's list of workers.
func LeftOf(o observation.Observation, gone string) []string {
	var f findings
	for unit, m := range machines(o) {
		if slices.Contains(m.Volume.Workers, dashed(gone)) {
			f.add(o, unit, "worker/%s is still there", dashed(gone))
		}
		if _, there := m.Volume.Pins[dashed(gone)]; there {
			f.add(o, unit, "pins/%s is still there", dashed(gone))
		}
	}
	if o.Web != nil {
		for _, w := range o.Web.Workers {
			if w.Name == dashed(gone) {
				f.note("the web server lists %s as %s", w.Name, w.State)
			}
		}
	}
	return f
}

func strangers(r observation.Record) []string {
	var f findings
	for o := range resting(r) {
		units := map[string]string{} // by directory
		for u := range allUnits(o.Status) {
			units[dashed(u.Name)] = u.Name
		}
		for unit, m := range inUse(o) {
			v := m.Volume
			for _, name := range v.Workers {
				if units[name] == "" {
					f.add(o, unit, "worker/%s is of no unit", name)
				}
			}
			for _, name := range slices.Sorted(maps.Keys(v.Pins)) {
				if units[name] == "" {
					f.add(o, unit, "pins/%s is of no unit", name)
				}
			}
			if !slices.Contains(v.Workers, dashed(unit)) {
				f.add(o, unit, "it is active, and worker/%s is not there", dashed(unit))
			}
		}
	}
	return f
}

func wrongPins(r observation.Record) []string {
	var f findings
	for o := range resting(r) {
		for unit, m := range inUse(o) {
			v := m.Volume
			there := slices.Clone(v.Replaced)
			for _, release := range v.Releases {
				there = append(there, installedEntry(release))
			}
			pinned := v.Pins[dashed(unit)]
			for s := range running(m) {
				if e, _, ok := entryOf(s.Executable); ok && e.name != pinned {
					f.add(o, unit, "%s runs from %s, and the unit has pinned %q", s.Name, e.name, pinned)
				}
			}
			if _, damaged := v.Damaged[versionOf(pinned)]; pinned != "" && !damaged && !slices.Contains(there, pinned) {
				f.add(o, unit, "has pinned %s, which is not on the volume", pinned)
			}
		}
	}
	return f
}

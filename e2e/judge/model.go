package judge

import (
	"maps"
	"regexp"
	"slices"

	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/history"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/observation"
)

var modelRules = []Rule{
	{Name: "follows-the-model", Promise: "Claims, activations and releases on a volume change in steps that the model of the coordinator allows.", Broken: leftModel},
}

// leftModel replays each volume as one unit at a time saw it: all see the same files, and
// what one observation shows was read before the next one began.
func leftModel(r observation.Record) []string {
	var f findings
	replays := map[string]*history.Replay{} // by the id of the volume
	for _, o := range r.Observations {
		seen := map[string]bool{}
		for unit, m := range machines(o) {
			if m.Volume == nil || m.Volume.History == nil {
				continue
			}
			id := m.Volume.History.ID
			if id != m.Volume.VolumeID || seen[id] {
				continue // the volume went away while it was looked at; or another unit saw it
			}
			seen[id] = true
			if replays[id] == nil {
				replays[id] = &history.Replay{}
			}
			for _, broken := range replays[id].Next(pastOf(r, o, m.Volume)) {
				f.add(o, unit, "%s", broken)
			}
		}
	}
	return f
}

// pastOf adds what else was observed to what a volume shows of its history.
func pastOf(r observation.Record, o observation.Observation, v *observation.Volume) history.Volume {
	past := *v.History
	past.Publishers = map[string]string{}
	for _, release := range v.Releases {
		past.Publishers[installedEntry(release)] = release.InstalledBy
	}
	past.Torn = slices.Sorted(maps.Keys(v.Damaged))
	for _, a := range r.Acts {
		past.Damaged = past.Damaged || !a.Time.After(o.Time) && damages.MatchString(a.Name)
	}
	return past
}

// damages is the form of the act of changing a file of a release.
var damages = regexp.MustCompile(`^change (?:releases|store)/`)

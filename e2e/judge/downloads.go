package judge

import (
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/observation"
)

var downloadRules = []Rule{
	{Name: "one-download", Promise: "Every byte of a release that is installed was sent once, to one unit, and no byte twice.", Broken: sentAgain},
	{
		Name: "one-line-a-download", Promise: "The log tells of a download as often as there was one.", Broken: wrongLines,
		Settles: "Juju hands out what units log some seconds later.",
	},
}

// allowed is how often the archive of a version may be sent.
func allowed(r observation.Record, version string) int {
	if n, ok := r.Allowed[version]; ok {
		return n
	}
	return 1
}

// sentAgain says of each version once what was wrong first.
func sentAgain(r observation.Record) []string {
	var f findings
	done := map[string]bool{}
	for _, o := range r.Observations {
		for _, version := range slices.Sorted(maps.Keys(o.Downloads)) {
			if done[version] {
				continue
			}
			t, most := o.Downloads[version], allowed(r, version)
			done[version] = true
			switch {
			case most == 0 && t.Sent > 0:
				f.add(o, version, "it was on the volume before, and was downloaded: %s", t)
			case most == 1 && t.Sent > t.Distinct:
				f.add(o, version, "bytes were sent more than once: %s", t)
			case t.Sent > int64(most)*t.Size:
				f.add(o, version, "the archive was sent more than %d times: %s", most, t)
			case len(t.Clients) > max(most, 0):
				f.add(o, version, "more than %d units downloaded: %s", most, t)
			// The mirror may have been asked while it still sent, and the volume later.
			case most > 0 && o.Resting && isInstalled(o, version) && (t.Size == 0 || t.Distinct != t.Size):
				f.add(o, version, "it is installed, and did not come from the mirror: %s", t)
			default:
				done[version] = false
			}
		}
	}
	return f
}

// isInstalled tells whether an active unit has the release on its volume.
func isInstalled(o observation.Observation, version string) bool {
	for _, m := range inUse(o) {
		if _, ok := released(m.Volume.Inspection, version); ok {
			return true
		}
	}
	return false
}

// logDelay is how long a line may take from a unit to the log. The charm writes what its
// supervisor has to say when the next hook runs.
const logDelay = 30 * time.Second

// The words are those that operators search the log for, wherever they are in it.
var downloading = regexp.MustCompile(`Downloading Concourse binaries v([0-9A-Za-z.+-]*[0-9A-Za-z])`)

func wrongLines(r observation.Record) []string {
	var f findings
	told := map[string][]string{} // who, by version
	for _, line := range r.Log {
		for _, m := range downloading.FindAllStringSubmatch(line.Message, -1) {
			told[m[1]] = append(told[m[1]], line.Unit+" at "+clock(line.Time))
		}
	}
	for _, version := range slices.Sorted(maps.Keys(told)) {
		if most := allowed(r, version); len(told[version]) > most {
			f.note("the log has %q %d times, more than %d: %s", "Downloading Concourse binaries v"+version,
				len(told[version]), most, strings.Join(told[version], ", "))
		}
	}
	if len(r.Log) == 0 {
		return f
	}
	end := r.Log[len(r.Log)-1].Time
	missing := map[string]bool{}
	for o := range resting(r) {
		for _, version := range slices.Sorted(maps.Keys(o.Downloads)) {
			late := end.Sub(o.Time) >= logDelay
			if late && len(told[version]) == 0 && o.Downloads[version].Sent > 0 && isInstalled(o, version) && !missing[version] {
				missing[version] = true
				f.add(o, version, "it was downloaded, and the log never says so")
			}
		}
	}
	return f
}

package judge_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/cluster"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/judge"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/observation"
)

// onVolume changes the volume as it is after the upgrade.
func onVolume(change func(v *observation.Volume)) func(r *observed) {
	return func(r *observed) { volumeOf(r, upgraded, change) }
}

var volumeTables = []table{
	{rule: "sound-volume",
		breaks: []row{
			{"a damaged file", onVolume(func(v *observation.Volume) { v.Damaged = map[string]string{"activations/2": "it cannot be read"} }),
				`ci/0 at the end of "upgraded": activations/2 is damaged: it cannot be read`},
			{"a release with another content", onVolume(func(v *observation.Volume) { v.Unsound = map[string]string{from: "bin/concourse differs"} }),
				"release 7.14.2 is not sound: bin/concourse differs"},
			{"no release", onVolume(func(v *observation.Volume) { v.Releases = v.Releases[:1] }), "release 7.14.3 is not on the volume"},
		},
		keeps: []row{
			{"damage by a fault", func(r *observed) {
				volumeOf(r, upgraded, func(v *observation.Volume) { v.Damaged = map[string]string{"activations/1": "it cannot be read"} })
				r.Faults = []observation.Fault{{Name: "volume: activations/1 damaged", Begin: at(190)}}
			}, ""},
		},
	},
	{rule: "nothing-left",
		breaks: []row{
			{"a failure of what is installed", onVolume(func(v *observation.Volume) { v.Failures = map[string]string{to: "digest mismatch"} }),
				"a failure is noted of 7.14.3, which is installed: digest mismatch"},
			{"a download", onVolume(func(v *observation.Volume) { v.Progress = &coordinator.Progress{Unit: "ci/1", Version: to} }),
				"ci/1 still downloads 7.14.3"},
			{"what a download left", onVolume(func(v *observation.Volume) { v.Staged = []string{"7.14.3.1.ci-0"} }), "staging/7.14.3.1.ci-0 was left"},
			{"what a collector left", onVolume(func(v *observation.Volume) { v.Staged = []string{"collecting-7.14.1.1"} }), "staging/collecting-7.14.1.1 was left"},
			{"what could not be removed", onVolume(func(v *observation.Volume) { v.Staged = []string{".gone-7.14.1.1.ci-0"} }), "staging/.gone-7.14.1.1.ci-0 was left"},
		},
		keeps: []row{
			{"a failure of another version", onVolume(func(v *observation.Volume) { v.Failures = map[string]string{"7.14.9": "not found"} }), ""},
			{"a part of another version", onVolume(func(v *observation.Volume) { v.Staged = []string{"7.14.9.1.ci-0"} }), ""},
			{"a release that comes", func(r *observed) {
				r.Observations[upgraded].Expected = ""
				volumeOf(r, upgraded, func(v *observation.Volume) {
					v.Staged, v.Progress = []string{"7.14.4.1.ci-0"}, &coordinator.Progress{Unit: "ci/0", Version: "7.14.4"}
				})
			}, ""},
		},
	},
	{rule: "known-units",
		breaks: []row{
			{"the directory of a unit that is gone", onVolume(func(v *observation.Volume) { v.Workers = append(v.Workers, "ci-3") }),
				`ci/0 at the end of "upgraded": worker/ci-3 is of no unit`},
			{"the pin of a unit that is gone", onVolume(func(v *observation.Volume) { v.Pins["ci-3"] = from + ".1" }), "pins/ci-3 is of no unit"},
			{"no directory", onVolume(func(v *observation.Volume) { v.Workers = v.Workers[:2] }), "ci/2 at the end of \"upgraded\": it is active, and worker/ci-2 is not there"},
		},
		keeps: []row{
			{"another application on the volume", func(r *observed) {
				volumeOf(r, upgraded, func(v *observation.Volume) { v.Workers, v.Pins["web-0"] = append(v.Workers, "web-0"), to+".1" })
				r.Observations[upgraded].Status.Apps["web"] = cluster.AppStatus{Units: map[string]cluster.UnitStatus{"web/0": {Name: "web/0"}}}
			}, ""},
			{"a unit that leaves", func(r *observed) {
				r.Observations[upgraded].Resting = false
				volumeOf(r, upgraded, func(v *observation.Volume) { v.Workers = append(v.Workers, "ci-3") })
			}, ""},
		},
	},
	{rule: "pins-what-it-runs",
		breaks: []row{
			{"no pin", onVolume(func(v *observation.Volume) { delete(v.Pins, "ci-1") }),
				`ci/1 at the end of "upgraded": concourse-worker.service runs from 7.14.3.1, and the unit has pinned ""`},
			{"an old pin", onVolume(func(v *observation.Volume) { v.Pins["ci-1"] = from + ".1" }), `has pinned "7.14.2.1"`},
			{"the pin of another download", onVolume(func(v *observation.Volume) { v.Pins["ci-1"] = to + ".2" }), `has pinned "7.14.3.2"`},
			{"a pinned download that is gone", func(r *observed) {
				stays(r, "ci/1")
				volumeOf(r, upgraded, func(v *observation.Volume) { v.Pins["ci-1"], v.Releases = from+".1", v.Releases[1:] })
			}, "has pinned 7.14.2.1, which is not on the volume"},
		},
		keeps: []row{
			{"a pinned download that was replaced", func(r *observed) {
				volumeOf(r, upgraded, func(v *observation.Volume) {
					v.Releases[1].Dir, v.Replaced = root+"/store/7.14.3.2", []string{"7.14.3.1"}
				})
			}, ""},
			{"a pinned release that is damaged", onVolume(func(v *observation.Volume) {
				v.Releases, v.Damaged = v.Releases[:1], map[string]string{to: "bin/concourse is missing"}
			}), ""},
		},
	},
}

func TestLeftOf(t *testing.T) {
	r := sound()
	last := &r.Observations[len(r.Observations)-1]
	require.Empty(t, judge.LeftOf(*last, "ci/7"))
	require.Len(t, judge.LeftOf(*last, "ci/1"), 1+2*len(last.Machines), "directory and pin on each machine, and the worker")
}

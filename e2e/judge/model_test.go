package judge_test

import (
	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator"
	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/history"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/observation"
)

// inPast changes what the volume keeps after the upgrade.
func inPast(change func(h *history.Volume)) func(r *observed) {
	return onVolume(func(v *observation.Volume) { change(v.History) })
}

// More histories are in package history, whose replay this is.
var modelTables = []table{
	{rule: "follows-the-model",
		breaks: []row{
			{"a generation given twice", inPast(func(h *history.Volume) { h.Claims[from][0].Nonce = "another" }),
				`ci/0 at the end of "upgraded": two units hold one generation: generation 1 of 7.14.2`},
			{"published without a claim", inPast(func(h *history.Volume) { h.Releases[to], h.Entries[1], h.Pins = to+".2", to+".2", nil }),
				"a release is published under a claim that nobody held: 7.14.3.2"},
			{"another publisher than the holder", onVolume(func(v *observation.Volume) { v.Releases[1].InstalledBy = "ci/2" }),
				"7.14.3.1 was published by ci/2, and its generation is that of ci/0"},
			{"the previous release collected", inPast(func(h *history.Volume) {
				h.Claims[from] = append(h.Claims[from], history.Claim{Generation: 2})
				delete(h.Releases, from)
			}), "the current or the previous release is gone: 7.14.2"},
			{"the previous release collected in the middle of the upgrade", func(r *observed) {
				r.Observations[upgraded].Resting = false
				inPast(func(h *history.Volume) { delete(h.Releases, from) })(r)
			}, "the current or the previous release is gone: 7.14.2"},
			{"a pinned download collected", inPast(func(h *history.Volume) { h.Pins["ci-1"] = from + ".2" }), "a pinned entry is gone: ci-1 has pinned 7.14.2.2"},
			{"a release torn by nobody", onVolume(func(v *observation.Volume) { v.Damaged = map[string]string{from: "bin/runc is missing"} }),
				"a published release is incomplete: 7.14.2"},
			{"activated by two units", inPast(func(h *history.Volume) {
				h.Activations = append(h.Activations, history.Activation{Number: 3, Version: to, Unit: "ci/1"})
			}), "ci/1 has activated 7.14.3 as number 3"},
			{"an activation taken back", func(r *observed) {
				r.Observations = append(r.Observations, atRest(260, "later", from))
			}, "number 2, 7.14.3, is gone"},
			{"a release torn before the scenario tore another", func(r *observed) {
				r.Acts = append(r.Acts, observation.Act{Name: "change releases/7.14.2/bin/runc on the volume data", Time: at(220)})
				volumeOf(r, upgraded, func(v *observation.Volume) { v.Damaged = map[string]string{from: "bin/runc is missing"} })
			}, "a published release is incomplete: 7.14.2"},
			{"seen by another unit", func(r *observed) {
				delete(r.Observations[upgraded].Machines, "ci/0")
				inPast(func(h *history.Volume) { h.Activations[0].Version = "7.14.1" })(r)
			}, `ci/1 at the end of "upgraded": an activation replaces one that it was decided without: number 1`},
		},
		keeps: []row{
			{"no history", onVolume(func(v *observation.Volume) { v.History = nil }), ""},
			{"a release torn by the scenario", func(r *observed) {
				r.Acts = append(r.Acts, observation.Act{Name: "change releases/7.14.2/bin/runc on the volume data", Time: at(180)})
				volumeOf(r, upgraded, func(v *observation.Volume) { v.Damaged = map[string]string{from: "bin/runc is missing"} })
			}, ""},
			{"another file changed by the scenario", func(r *observed) {
				r.Acts = append(r.Acts, observation.Act{Name: "change .installed_version on the volume data", Time: at(180)})
			}, ""},
			{"a volume that went away", inPast(func(h *history.Volume) { *h = history.Volume{} }), ""},
			{"another volume", inPastOf("V2"), ""},
			{"another volume beside", func(r *observed) {
				machineOf(r, upgraded, "ci/0", func(m *observation.Machine) {
					m.Volume = &observation.Volume{Inspection: coordinator.Inspection{VolumeID: "V2"}, History: &history.Volume{ID: "V2"}}
				})
			}, ""},
		},
	},
}

// inPastOf has all units use another volume after the upgrade, which knows of nothing.
func inPastOf(id string) func(r *observed) {
	return onVolume(func(v *observation.Volume) { v.VolumeID, v.History = id, &history.Volume{ID: id} })
}

package judge_test

import (
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/observation"
)

// unmounted takes the volume from a unit after the upgrade. Its services go on.
func unmounted(r *observed, unit string) {
	machineOf(r, upgraded, unit, func(m *observation.Machine) { m.Mount, m.Volume = observation.Mount{}, nil })
	says(r, upgraded, unit, "blocked", "Shared storage unavailable - attach it")
	r.Observations[upgraded].Expected = ""
	r.Faults = []observation.Fault{{Name: unit + ": volume detached", Begin: at(190)}}
}

// unmarked takes the marker away.
func unmarked(r *observed, i int, unit string) {
	machineOf(r, i, unit, func(m *observation.Machine) { m.Mount.Marked = false })
}

var mountTables = []table{
	{rule: "needs-its-volume",
		breaks: []row{
			{"a worker that goes on", func(r *observed) { unmounted(r, "ci/1") },
				`ci/1 at the end of "upgraded": runs concourse-worker.service without its mount`},
			{"a unit that is active", func(r *observed) {
				unmounted(r, "ci/0")
				says(r, upgraded, "ci/0", "active", "Web server ready (v7.14.3)")
			}, `ci/0 at the end of "upgraded": is active without its mount`},
			{"a web server that was started without it", func(r *observed) {
				unmounted(r, "ci/0")
				serviceOf(r, upgraded, "ci/0", server, func(s *observation.Service) { s.Started = at(195) })
			}, "ci/0 at the end of \"upgraded\": has started concourse-server.service without its mount"},
			{"a marker that is ignored", func(r *observed) {
				unmarked(r, deployed, "ci/1")
			}, `ci/1 at the end of "deployed": is active without the marker on its mount`},
			{"a marker that is ignored by a worker", func(r *observed) {
				unmarked(r, deployed, "ci/1")
				says(r, deployed, "ci/1", "maintenance", "Starting Concourse v7.14.2...")
			}, "runs concourse-worker.service without the marker on its mount"},
			{"files below the mount", func(r *observed) {
				machineOf(r, deploying, "ci/2", func(m *observation.Machine) { m.Mount.Underneath = []string{"staging", "volume.json"} })
			}, `ci/2 at the end of "deploying": the directory under the missing mount was written to: staging volume.json`},
			{"a mount that nobody can write to", func(r *observed) {
				machineOf(r, deployed, "ci/2", func(m *observation.Machine) { m.Mount.ReadOnly = true })
			}, "ci/2 at the end of \"deployed\": is active, and its mount is read-only"},
		},
		keeps: []row{
			{"a web server that was started before", func(r *observed) { unmounted(r, "ci/0") }, ""},
			{"a worker that is being stopped", func(r *observed) {
				unmounted(r, "ci/1")
				r.Observations[upgraded].Resting = false
			}, ""},
			{"units that share nothing", func(r *observed) {
				r.Shared = false
				unmarked(r, deployed, "ci/1")
			}, ""},
		},
	},
	{rule: "one-volume",
		breaks: []row{
			{"units with two file systems", func(r *observed) {
				machineOf(r, deployed, "ci/1", func(m *observation.Machine) { m.Mount.FileSystem = "f2" })
			}, `ci/1 at the end of "deployed": uses file system f2, and ci/0 uses f1`},
			{"another volume for one unit", func(r *observed) {
				machineOf(r, upgraded, "ci/2", func(m *observation.Machine) { m.Volume.VolumeID = "V2" })
			}, `ci/2 at the end of "upgraded": uses volume V2, and the units' volume is V1`},
			{"another volume for all units", func(r *observed) {
				volumeOf(r, upgraded, func(v *observation.Volume) { v.VolumeID = "V2" })
			}, "ci/0 at the end of \"upgraded\": uses volume V2, and the units' volume is V1"},
			{"another volume after one that was accepted", func(r *observed) {
				volumeOf(r, upgraded, func(v *observation.Volume) { v.VolumeID = "V2" })
				r.Acts = append(r.Acts, observation.Act{Name: "accept-volume", Time: at(50)}, observation.Act{Name: "accept-volume", Time: at(250)})
			}, "uses volume V2, and the units' volume is V1"},
			{"a worker that uses another volume", func(r *observed) {
				machineOf(r, upgraded, "ci/2", func(m *observation.Machine) { m.Volume.VolumeID = "V2" })
				says(r, upgraded, "ci/2", "blocked", "Shared storage unavailable - another volume is mounted")
			}, "ci/2 at the end of \"upgraded\": uses volume V2"},
		},
		keeps: []row{
			{"a volume whose id nobody knows", func(r *observed) {
				machineOf(r, upgraded, "ci/1", func(m *observation.Machine) { m.Volume.VolumeID = "" })
				machineOf(r, upgraded, "ci/2", func(m *observation.Machine) { m.Mount.FileSystem = "" })
			}, ""},
			{"a volume that was accepted before there was one", func(r *observed) {
				r.Acts = append(r.Acts, observation.Act{Name: "accept-volume", Time: at(1)})
			}, ""},
			{"another volume that was accepted", func(r *observed) {
				volumeOf(r, upgraded, func(v *observation.Volume) { v.VolumeID = "V2" })
				r.Acts = append(r.Acts, observation.Act{Name: "run accept-volume on ci/0", Time: at(180)})
			}, ""},
			{"units that share nothing", func(r *observed) {
				r.Shared = false
				machineOf(r, deployed, "ci/1", func(m *observation.Machine) { m.Mount.FileSystem, m.Volume.VolumeID = "f2", "V2" })
			}, ""},
		},
	},
}

package judge_test

import (
	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/observation"
)

var currentTables = []table{
	{rule: "one-current-release",
		breaks: []row{
			{"an old .installed_version", func(r *observed) {
				volumeOf(r, upgraded, func(v *observation.Volume) { v.InstalledVersion = from })
			}, `ci/1 at the end of "upgraded": .installed_version says "7.14.2", and the current release is 7.14.3`},
			{"no .installed_version", func(r *observed) {
				volumeOf(r, deployed, func(v *observation.Volume) { v.InstalledVersion = "" })
			}, `.installed_version says ""`},
			{"one unit that sees another version", func(r *observed) {
				machineOf(r, upgraded, "ci/2", func(m *observation.Machine) { m.Volume.InstalledVersion = from })
			}, "ci/2"},
			{"an old bin", func(r *observed) {
				volumeOf(r, upgraded, func(v *observation.Volume) { v.Bin = "releases/7.14.2/bin" })
			}, `bin leads to "releases/7.14.2/bin", and must lead to releases/7.14.3/bin`},
			{"no bin", func(r *observed) { volumeOf(r, upgraded, func(v *observation.Volume) { v.Bin = "" }) }, `bin leads to ""`},
			{"an activation that nobody made", func(r *observed) {
				volumeOf(r, deployed, func(v *observation.Volume) { v.Current = nil })
			}, "is active, and no release on the volume is current"},
			{"an upgrade that was not activated", func(r *observed) {
				for unit := range r.Observations[upgraded].Machines {
					machineOf(r, upgraded, unit, func(m *observation.Machine) { m.Volume = volume(from) })
				}
			}, "the current release is 7.14.2, and must be 7.14.3"},
		},
		keeps: []row{
			{"a bin with its whole path", func(r *observed) {
				volumeOf(r, deployed, func(v *observation.Volume) { v.Bin = root + "/" + v.Bin })
			}, ""},
			{"names that are about to change", func(r *observed) {
				r.Observations[upgraded].Resting = false
				volumeOf(r, upgraded, func(v *observation.Volume) { v.InstalledVersion = from })
			}, ""},
			{"a volume whose unit has not got to it", func(r *observed) {
				says(r, deployed, "ci/1", "blocked", "PostgreSQL database required")
				machineOf(r, deployed, "ci/1", func(m *observation.Machine) { m.Volume = &observation.Volume{} })
			}, ""},
		},
	},
	{rule: "bin-is-the-release",
		breaks: []row{
			{"no bin/concourse", func(r *observed) {
				volumeOf(r, upgraded, func(v *observation.Volume) { v.BinFile = observation.File{} })
			}, `ci/0 at the end of "upgraded": there is no bin/concourse on the volume`},
			{"a copy in bin", func(r *observed) {
				volumeOf(r, upgraded, func(v *observation.Volume) { v.BinFile.Inode = 12 })
			}, "bin/concourse is inode 12 of file system f1, and concourse-server.service runs inode 3519 of f1 as /var/lib/concourse/store/7.14.3.1/bin/concourse"},
			{"one unit that runs a copy", func(r *observed) {
				serviceOf(r, upgraded, "ci/2", worker, func(s *observation.Service) { s.File.FileSystem = "own" })
			}, "ci/2"},
		},
		keeps: []row{
			{"a unit that runs another version", func(r *observed) { stays(r, "ci/2") }, ""},
			{"a unit that runs a download that was replaced", func(r *observed) {
				volumeOf(r, upgraded, func(v *observation.Volume) { v.Releases[1].Dir, v.BinFile.Inode = root+"/store/7.14.3.2", 12 })
			}, ""},
			{"a volume without a release", func(r *observed) {
				volumeOf(r, deployed, func(v *observation.Volume) {
					v.Current, v.BinFile = (*coordinator.Activation)(nil), observation.File{}
				})
			}, ""},
		},
	},
}

package judge_test

import "github.com/concourse-ci-machine/concourse-ci-machine/e2e/observation"

var diskTables = []table{
	{rule: "no-copies",
		breaks: []row{
			{"a copy", func(r *observed) {
				machineOf(r, deployed, "ci/1", func(m *observation.Machine) { m.Copies = []string{"/opt/concourse/bin/concourse"} })
			}, `ci/1 at the end of "deployed": has copies of its own: /opt/concourse/bin/concourse`},
			{"a copy while units are deployed", func(r *observed) {
				machineOf(r, deploying, "ci/2", func(m *observation.Machine) { m.Copies = []string{"/tmp/concourse.tgz"} })
			}, "ci/2 at the end of \"deploying\""},
		},
	},
	{rule: "disk-use",
		breaks: []row{
			{"an archive that was kept", onVolume(func(v *observation.Volume) { v.Use.Staging = archive }),
				`ci at the end of "upgraded": store 522000000, staging 125000000 and the units' own disks 0 bytes more than their program are 1.24 times the 522000000 bytes of the releases, more than 1.15`},
			{"a second tree in the store", onVolume(func(v *observation.Volume) { v.Use.Store += installed }), "1.50 times"},
			{"a second tree that nobody has pinned", onVolume(func(v *observation.Volume) {
				v.Use.Store += installed
				v.Replaced = []string{"7.14.3.2"}
			}), "1.50 times"},
			{"two trees, of which units have pinned one", onVolume(func(v *observation.Volume) {
				v.Use.Store += 2 * installed
				v.Releases[1].Dir, v.Replaced = root+"/store/7.14.3.2", []string{"7.14.3.1"}
			}), "1.33 times the 783000000 bytes"},
			{"files on a unit's own disk", func(r *observed) {
				machineOf(r, deployed, "ci/2", func(m *observation.Machine) { m.Used += archive })
			}, "the units' own disks 120417088 bytes more than their program are 1.46 times"},
			{"a little on each unit's own disk", func(r *observed) {
				for unit := range r.Observations[deployed].Machines {
					machineOf(r, deployed, unit, func(m *observation.Machine) { m.Used += 20_000_000 })
				}
			}, "1.18 times"},
		},
		keeps: []row{
			{"its program on each of many units", func(r *observed) {
				for unit, m := range r.Observations[deployed].Machines {
					m.Used = 12 << 20
					for _, more := range []string{"4", "5", "6"} {
						r.Observations[deployed].Machines[unit+more] = m
					}
				}
			}, ""},
			{"a download that was replaced and is pinned", onVolume(func(v *observation.Volume) {
				v.Use.Store += installed
				v.Releases[1].Dir, v.Replaced = root+"/store/7.14.3.2", []string{"7.14.3.1"}
			}), ""},
			{"the state of workers", onVolume(func(v *observation.Volume) { v.Use.Worker *= 10 }), ""},
			{"an upgrade that goes on", func(r *observed) {
				r.Observations[upgraded].Expected = ""
				volumeOf(r, upgraded, func(v *observation.Volume) { v.Use.Staging = archive })
			}, ""},
		},
	},
}

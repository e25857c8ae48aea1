package judge_test

import "github.com/concourse-ci-machine/concourse-ci-machine/e2e/observation"

var fileTables = []table{
	{rule: "one-file",
		breaks: []row{
			{"a copy with the same path", func(r *observed) {
				serviceOf(r, deployed, "ci/1", worker, func(s *observation.Service) { s.File.Inode = 9 })
			}, `ci/1 at the end of "deployed": concourse-worker.service runs inode 9 of file system f1, and ci/0 runs inode 387 of f1, both as /var/lib/concourse/store/7.14.2.1/bin/concourse`},
			{"another file system with the same path", func(r *observed) {
				machineOf(r, deployed, "ci/2", func(m *observation.Machine) { m.Mount.FileSystem = "f2" })
				serviceOf(r, deployed, "ci/2", worker, func(s *observation.Service) { s.File.FileSystem = "f2" })
			}, "ci/2 at the end of \"deployed\": concourse-worker.service runs inode 387 of file system f2, and ci/0 runs inode 387 of f1"},
			{"a file that is not on the volume", func(r *observed) {
				for _, unit := range []string{"ci/0", "ci/1", "ci/2"} {
					machineOf(r, deployed, unit, func(m *observation.Machine) { m.Mount.FileSystem = "f2" })
				}
			}, "concourse-server.service runs a file of file system f1, and the volume is f2"},
		},
		keeps: []row{
			{"units that run several downloads", func(r *observed) { stays(r, "ci/1") }, ""},
			{"files that could not be read", func(r *observed) {
				serviceOf(r, deployed, "ci/1", worker, func(s *observation.Service) { s.File = observation.File{} })
			}, ""},
			{"a volume for each unit", func(r *observed) {
				r.Shared = false
				serviceOf(r, deployed, "ci/1", worker, func(s *observation.Service) { s.File.Inode = 9 })
			}, ""},
		},
	},
	{rule: "no-deleted-program",
		breaks: []row{
			{"a release that was removed", func(r *observed) {
				machineOf(r, upgraded, "ci/1", func(m *observation.Machine) { m.Processes[0].Deleted = true })
			}, `ci/1 at the end of "upgraded": process 1301 runs from /var/lib/concourse/store/7.14.3.1/bin/concourse, which is deleted`},
			{"a child of a worker", func(r *observed) {
				machineOf(r, upgraded, "ci/1", func(m *observation.Machine) {
					m.Processes = append(m.Processes, observation.Process{PID: 77, Executable: root + "/releases/7.14.1/bin/containerd", Deleted: true})
				})
			}, "process 77 runs from /var/lib/concourse/releases/7.14.1/bin/containerd, which is deleted"},
			{"a release that is being removed", func(r *observed) {
				machineOf(r, upgraded, "ci/1", func(m *observation.Machine) {
					m.Processes[0].Executable = root + "/staging/collecting-7.14.2.1/7.14.2.1/bin/concourse"
				})
			}, "which is no release"},
		},
		keeps: []row{
			{"a build's own files", func(r *observed) {
				machineOf(r, upgraded, "ci/1", func(m *observation.Machine) {
					m.Processes = append(m.Processes, observation.Process{PID: 77, Executable: root + "/worker/ci-1/volumes/live/x/bin/sh", Deleted: true})
				})
			}, ""},
			{"a program of the system", func(r *observed) {
				machineOf(r, upgraded, "ci/1", func(m *observation.Machine) {
					m.Processes = append(m.Processes, observation.Process{PID: 77, Executable: "/usr/bin/python3", Deleted: true})
				})
			}, ""},
			{"an upgrade that goes on", func(r *observed) {
				r.Observations[upgraded].Resting = false
				machineOf(r, upgraded, "ci/1", func(m *observation.Machine) { m.Processes[0].Deleted = true })
			}, ""},
		},
	},
}

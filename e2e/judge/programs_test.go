package judge_test

import "github.com/concourse-ci-machine/concourse-ci-machine/e2e/observation"

// stays has a worker go on with the release before the upgrade.
func stays(r *observed, unit string) {
	serviceOf(r, upgraded, unit, worker, func(s *observation.Service) { s.Executable, s.File = program(from) })
}

var programTables = []table{
	{rule: "runs-what-it-says",
		breaks: []row{
			{"a worker that never restarted in an upgrade", func(r *observed) { stays(r, "ci/1") },
				`ci/1 at the end of "upgraded": concourse-worker.service runs /var/lib/concourse/store/7.14.2.1/bin/concourse, and the status says "Worker ready (v7.14.3)"`},
			{"a worker that says so", func(r *observed) {
				stays(r, "ci/1")
				says(r, upgraded, "ci/1", "active", "Worker ready (v7.14.2)")
			}, "runs /var/lib/concourse/store/7.14.2.1/bin/concourse, and must run 7.14.3"},
			{"a unit that is blocked", func(r *observed) {
				stays(r, "ci/2")
				says(r, upgraded, "ci/2", "blocked", "Unknown mode")
			}, "ci/2 at the end of \"upgraded\": concourse-worker.service runs /var/lib/concourse/store/7.14.2.1/bin/concourse, and must run 7.14.3"},
			{"a status that lies while versions may differ", func(r *observed) {
				stays(r, "ci/1")
				r.Observations[upgraded].Expected = ""
			}, `the status says "Worker ready (v7.14.3)"`},
			{"a copy on the own disk", func(r *observed) {
				serviceOf(r, deployed, "ci/0", server, func(s *observation.Service) { s.Executable = "/opt/concourse/bin/concourse" })
			}, "concourse-server.service runs /opt/concourse/bin/concourse, and must run /var/lib/concourse/store/VERSION.N/bin/concourse"},
			{"a copy beside the releases", func(r *observed) {
				serviceOf(r, deployed, "ci/0", server, func(s *observation.Service) { s.Executable = root + "/bin/concourse" })
			}, "runs /var/lib/concourse/bin/concourse"},
			{"another program of the release", func(r *observed) {
				serviceOf(r, deployed, "ci/0", server, func(s *observation.Service) { s.Executable = root + "/store/7.14.2.1/bin/gdn" })
			}, "runs /var/lib/concourse/store/7.14.2.1/bin/gdn"},
			{"a path that leads nowhere", func(r *observed) {
				serviceOf(r, deployed, "ci/0", server, func(s *observation.Service) { s.Executable = "7.14.2.1/bin/concourse" })
			}, "runs 7.14.2.1/bin/concourse"},
			{"a tree in the store that is no download", func(r *observed) {
				serviceOf(r, deployed, "ci/0", server, func(s *observation.Service) { s.Executable = root + "/store/7.14.x/bin/concourse" })
			}, "runs /var/lib/concourse/store/7.14.x/bin/concourse"},
			{"a tree that is staged", func(r *observed) {
				serviceOf(r, deployed, "ci/0", server, func(s *observation.Service) { s.Executable = root + "/staging/7.14.2.1.ci-0/bin/concourse" })
			}, "runs /var/lib/concourse/staging"},
		},
		keeps: []row{
			{"an upgrade that goes on", func(r *observed) {
				stays(r, "ci/1")
				r.Observations[upgraded].Resting = false
			}, ""},
			{"a service that is stopped", func(r *observed) {
				stays(r, "ci/1")
				serviceOf(r, upgraded, "ci/1", worker, func(s *observation.Service) { s.State, s.PID = "inactive", 0 })
			}, ""},
			{"a process that could not be read", func(r *observed) {
				serviceOf(r, upgraded, "ci/1", worker, func(s *observation.Service) { s.Executable, s.File = "", observation.File{} })
			}, ""},
		},
	},
	{rule: "runs-its-role",
		breaks: []row{
			{"a web server that does not run", func(r *observed) {
				serviceOf(r, deployed, "ci/0", server, func(s *observation.Service) { s.State, s.PID = "failed", 0 })
			}, `ci/0 at the end of "deployed": says "Web server ready (v7.14.2)", and concourse-server.service does not run`},
			{"a worker between two attempts", func(r *observed) {
				serviceOf(r, deployed, "ci/1", worker, func(s *observation.Service) { s.State, s.PID = "activating", 0 })
			}, `says "Worker ready (v7.14.2)", and concourse-worker.service does not run`},
			{"a worker that is being stopped", func(r *observed) {
				serviceOf(r, deployed, "ci/1", worker, func(s *observation.Service) { s.State = "deactivating" })
			}, "concourse-worker.service does not run"},
			{"a worker without a process", func(r *observed) {
				serviceOf(r, deployed, "ci/1", worker, func(s *observation.Service) { s.PID = 0 })
			}, "concourse-worker.service does not run"},
			{"a worker that was never there", func(r *observed) {
				machineOf(r, deployed, "ci/1", func(m *observation.Machine) { m.Services = m.Services[:1] })
			}, "concourse-worker.service does not run"},
			{"half of a unit that is all", func(r *observed) { says(r, deployed, "ci/0", "active", "Ready (v7.14.2)") },
				`ci/0 at the end of "deployed": says "Ready (v7.14.2)", and concourse-worker.service does not run`},
			{"a web server that a worker still runs", func(r *observed) {
				serviceOf(r, deployed, "ci/1", server, func(s *observation.Service) { s.State, s.PID = "active", 900 })
			}, `ci/1 at the end of "deployed": says "Worker ready (v7.14.2)", and still runs concourse-server.service`},
		},
		keeps: []row{
			{"a unit that says it starts", func(r *observed) {
				says(r, deployed, "ci/1", "maintenance", "Starting Concourse v7.14.2...")
				machineOf(r, deployed, "ci/1", func(m *observation.Machine) { m.Services = nil })
			}, ""},
			{"a web server whose unit's worker still has builds", func(r *observed) {
				says(r, deployed, "ci/1", "active", "Web server ready (v7.14.2), the unit's worker ends with its builds")
				serviceOf(r, deployed, "ci/1", server, func(s *observation.Service) { s.State, s.PID = "active", 900 })
			}, ""},
		},
	},
	{rule: "own-directory",
		breaks: []row{
			{"another unit's directory", func(r *observed) {
				serviceOf(r, deployed, "ci/2", worker, func(s *observation.Service) { s.Directory = root + "/worker/ci-1" })
			}, `ci/2 at the end of "deployed": its worker keeps its state in /var/lib/concourse/worker/ci-1, and must in /var/lib/concourse/worker/ci-2`},
			{"the own disk", func(r *observed) {
				serviceOf(r, deployed, "ci/2", worker, func(s *observation.Service) { s.Directory = "/opt/concourse/worker" })
			}, "must in /var/lib/concourse/worker/ci-2"},
		},
		keeps: []row{
			{"an unknown directory", func(r *observed) {
				serviceOf(r, deployed, "ci/2", worker, func(s *observation.Service) { s.Directory = "" })
			}, ""},
		},
	},
}

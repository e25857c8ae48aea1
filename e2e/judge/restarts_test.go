package judge_test

import "github.com/concourse-ci-machine/concourse-ci-machine/e2e/observation"

// looping has systemd start a worker again and again after the upgrade.
func looping(r *observed) {
	o := atRest(260, "later", to)
	r.Observations = append(r.Observations, o)
	serviceOf(r, upgraded+1, "ci/1", worker, func(s *observation.Service) { s.Restarts, s.PID, s.Invocation = 3, 2000, "again" })
}

var restartTables = []table{
	{rule: "active-means-up",
		breaks: []row{
			{"a worker that loops", looping,
				`ci/1 at the end of "later": is active ("Worker ready (v7.14.3)") while systemd has started concourse-worker.service 3 times since "upgraded"`},
			{"a worker that looped before, too", func(r *observed) {
				looping(r)
				serviceOf(r, upgraded, "ci/1", worker, func(s *observation.Service) { s.Restarts = 7 })
				serviceOf(r, upgraded+1, "ci/1", worker, func(s *observation.Service) { s.Restarts = 12 })
			}, "5 times"},
		},
		keeps: []row{
			{"one restart", func(r *observed) {
				looping(r)
				serviceOf(r, upgraded+1, "ci/1", worker, func(s *observation.Service) { s.Restarts = 1 })
			}, ""},
			{"restarts during a fault", func(r *observed) {
				looping(r)
				r.Faults = []observation.Fault{fault("database stopped", 210, 240)}
			}, ""},
			{"a unit that says so", func(r *observed) {
				looping(r)
				says(r, upgraded+1, "ci/1", "blocked", "The worker exits again and again: check journalctl")
			}, ""},
			{"a unit that got better", func(r *observed) {
				looping(r)
				says(r, upgraded, "ci/1", "maintenance", "Starting Concourse v7.14.3...")
			}, ""},
			{"a unit that said something else", func(r *observed) {
				looping(r)
				says(r, upgraded, "ci/1", "active", "Ready (v7.14.3)")
			}, ""},
			{"a unit that got worse without a word", func(r *observed) {
				looping(r)
				says(r, upgraded+1, "ci/1", "maintenance", "Worker ready (v7.14.3)")
			}, ""},
			{"a count that was high before", func(r *observed) {
				for i := deployed; i <= upgraded; i++ {
					serviceOf(r, i, "ci/1", worker, func(s *observation.Service) { s.Restarts = 9 })
				}
			}, ""},
		},
	},
}

package judge_test

import "github.com/concourse-ci-machine/concourse-ci-machine/e2e/observation"

// pauses has a unit say that it is paused, after the upgrade; its worker is out, and has
// landed, says the web server.
func pauses(r *observed, unit string) {
	says(r, upgraded, unit, "maintenance", "Paused: the worker is out (v7.14.3), run `resume`")
	serviceOf(r, upgraded, unit, worker, func(s *observation.Service) { s.State, s.PID = "inactive", 0 })
	lists(r, unit, "landed")
}

func lists(r *observed, unit, state string) {
	for i, w := range r.Observations[upgraded].Web.Workers {
		if w.Name == "ci-"+unit[len("ci/"):] {
			r.Observations[upgraded].Web.Workers[i].State = state
		}
	}
}

var pauseTables = []table{
	{rule: "paused-stays-out",
		breaks: []row{
			{"a worker that was started", func(r *observed) {
				pauses(r, "ci/1")
				serviceOf(r, upgraded, "ci/1", worker, func(s *observation.Service) { s.State, s.PID = "active", 7 })
			}, "ci/1 at the end of \"upgraded\": says \"Paused: the worker is out (v7.14.3), run `resume`\", and concourse-worker.service is active"},
			{"a worker that takes builds", func(r *observed) { pauses(r, "ci/1"); lists(r, "ci/1", "running") }, "the web server lists its worker as running"},
		},
		keeps: []row{
			{"a worker that is out", func(r *observed) { pauses(r, "ci/1") }, ""},
			{"one that still ends with its builds", func(r *observed) {
				says(r, upgraded, "ci/1", "maintenance", "Pausing the worker: it ends with its builds, in 1h0m0s at most...")
			}, ""},
		},
	},
}

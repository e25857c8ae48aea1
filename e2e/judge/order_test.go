package judge_test

import (
	"time"

	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/observation"
)

// startedAt has a worker be started at another time.
func startedAt(r *observed, i int, unit string, seconds float64) {
	serviceOf(r, i, unit, worker, func(s *observation.Service) { s.Started = at(seconds) })
}

var orderTables = []table{
	{rule: "web-first",
		breaks: []row{
			{"a worker that did not wait", func(r *observed) { startedAt(r, deployed, "ci/1", 42) },
				`ci/1 at the end of "deployed": its worker runs 7.14.2 since 03:00:42.000, and the first web server was ready with it at 03:00:46.000`},
			{"a worker that did not wait in an upgrade", func(r *observed) { startedAt(r, upgraded, "ci/2", 170) },
				`ci/2 at the end of "upgraded": its worker runs 7.14.3 since 03:02:50.000`},
			{"a worker that did not wait for a turn", func(r *observed) {
				said(r, 172, "maintenance", "Replacing the workers (v7.14.3): 0 of 2 are through...")
				startedAt(r, upgraded, "ci/2", 170)
			}, "the first web server was ready with it at 03:02:52.000"},
			{"one whose leader had a complaint before", func(r *observed) {
				said(r, 30, "blocked", `Malformed version "x": use the form 7.14.3`)
				startedAt(r, upgraded, "ci/2", 170)
			}, "ci/2"},
		},
		keeps: []row{
			{"a worker beside its web server", func(r *observed) {
				startedAt(r, deployed, "ci/1", 42)
				serviceOf(r, deployed, "ci/1", server, func(s *observation.Service) { s.State, s.PID = "active", 9 })
			}, ""},
			{"a web server that was started later once more", func(r *observed) {
				serviceOf(r, upgraded, "ci/0", server, func(s *observation.Service) { s.Started = at(190) })
				said(r, 195, "active", "Web server ready (v7.14.3)")
			}, ""},
			{"workers that take turns", func(r *observed) {
				said(r, 160, "maintenance", "Replacing the workers (v7.14.3): 0 of 2 are through...")
				startedAt(r, upgraded, "ci/2", 170)
			}, ""},
			{"a log without statuses", func(r *observed) {
				startedAt(r, deployed, "ci/1", 42)
				only(r, "ran ")
			}, ""},
			{"a leader with a complaint to show", func(r *observed) {
				said(r, 160, "blocked", `Malformed version "x": use the form 7.14.3`)
				startedAt(r, upgraded, "ci/2", 170)
			}, ""},
			{"a start that nobody knows", func(r *observed) {
				serviceOf(r, deployed, "ci/1", worker, func(s *observation.Service) { s.Started = time.Time{} })
			}, ""},
			{"a program that is no release", func(r *observed) {
				startedAt(r, deployed, "ci/1", 42)
				serviceOf(r, deployed, "ci/1", worker, func(s *observation.Service) { s.Executable = "/opt/concourse" })
			}, ""},
			{"clocks that are a little apart", func(r *observed) { startedAt(r, deployed, "ci/1", 45.5) }, ""},
		},
	},
}

package judge_test

import "github.com/concourse-ci-machine/concourse-ci-machine/e2e/observation"

// lands has a unit tell its worker to land, and start the next.
func lands(r *observation.Record, unit string, begin, end float64) {
	logged(r, begin, unit, "unit.juju-log", "peers:0: Landing the worker in its turn: it ends with its builds")
	logged(r, end, unit, "unit.juju-log", "Starting concourse-worker.service from Concourse v7.14.3")
}

var turnTables = []table{
	{rule: "takes-turns",
		breaks: []row{
			{"two at once", func(r *observed) { lands(r, "ci/1", 160, 170); lands(r, "ci/2", 165, 175) },
				"ci/2 was told to land its worker at 03:02:45.000, while ci/1 did so, from 03:02:40.000 to 03:02:50.000"},
			{"one that was told again", func(r *observed) {
				lands(r, "ci/1", 160, 170)
				logged(r, 155, "ci/1", "unit.juju-log", "Landing the worker in its turn: it ends with its builds")
				lands(r, "ci/2", 157, 175)
			}, "ci/2"},
		},
		keeps: []row{
			{"one after the other", func(r *observed) { lands(r, "ci/1", 160, 170); lands(r, "ci/2", 170, 175) }, ""},
			{"the same one again", func(r *observed) { lands(r, "ci/1", 160, 170); lands(r, "ci/1", 170, 175) }, ""},
			{"one that ends for good", func(r *observed) {
				lands(r, "ci/1", 160, 170)
				logged(r, 150, "ci/2", "unit.juju-log", "Landing the worker for good: it ends with its builds")
				logged(r, 175, "ci/2", "unit.juju-log", "Starting concourse-worker.service from Concourse v7.14.3")
			}, ""},
			{"one whose machine was off", func(r *observed) {
				lands(r, "ci/1", 160, 170)
				lands(r, "ci/2", 165, 175)
				r.Faults = append(r.Faults, fault("stop", 161, 163, "ci/1"))
			}, ""},
			{"a unit of another application", func(r *observed) { lands(r, "ci/1", 160, 170); lands(r, "other/2", 165, 175) }, ""},
		},
	},
}

package judge_test

import "github.com/concourse-ci-machine/concourse-ci-machine/e2e/observation"

var panicTables = []table{
	{rule: "no-panic",
		breaks: []row{
			{"a panic in a hook", func(r *observed) {
				logged(r, 50, "ci/1", "unit.ci/1.config-changed", "panic: assignment to entry in nil map")
				logged(r, 50, "ci/2", "unit.ci/2.juju-log", "in between")
				logged(r, 50, "ci/1", "unit.ci/1.config-changed", "[signal SIGSEGV: segmentation violation]")
				logged(r, 50.001, "ci/1", "unit.ci/1.config-changed", "goroutine 1 [running]:")
			}, "ci/1 panicked in unit.ci/1.config-changed at 03:00:50.000: panic: assignment to entry in nil map"},
			{"a panic in one line of the log", func(r *observed) {
				logged(r, 50, "ci/1", "unit.ci/1.juju-log", "panic: oh\n\ngoroutine 7 [running]:\nmain.main()")
			}, "panic: oh"},
			{"a runtime that gives up", func(r *observed) {
				logged(r, 50, "ci/0", "unit.ci/0.start", "fatal error: concurrent map writes")
				logged(r, 51, "ci/0", "unit.ci/0.start", "goroutine 8 [running]:")
			}, "fatal error: concurrent map writes"},
			{"a panic in the journal", func(r *observed) {
				machineOf(r, deployed, "ci/2", func(m *observation.Machine) { m.Panics = []string{"panic: no volume"} })
			}, `ci/2 at the end of "deployed": the journal has a panic: panic: no volume`},
		},
		keeps: []row{
			{"the word alone", func(r *observed) {
				logged(r, 50, "ci/1", "unit.ci/1.juju-log", "panic: is a word of a build")
			}, ""},
			{"a trace of another unit", func(r *observed) {
				logged(r, 50, "ci/1", "unit.ci/1.juju-log", "panic: is a word of a build")
				logged(r, 51, "ci/2", "unit.ci/2.juju-log", "goroutine 1 [running]: is another")
			}, ""},
			{"a trace of another hook", func(r *observed) {
				logged(r, 50, "ci/1", "unit.ci/1.juju-log", "panic: is a word of a build")
				logged(r, 51, "ci/1", "unit.ci/1.start", "goroutine 1 [running]: is another")
			}, ""},
			{"a trace much later", func(r *observed) {
				logged(r, 50, "ci/1", "unit.ci/1.juju-log", "panic: is a word of a build")
				again(51, 55, 0.1, func(s float64) { logged(r, s, "ci/1", "unit.ci/1.juju-log", "something") })
				logged(r, 56, "ci/1", "unit.ci/1.juju-log", "goroutine 1 [running]: is another")
			}, ""},
			{"Juju's own panic", func(r *observed) {
				logged(r, 50, "ci/1", "juju.worker.dependency", "panic: lost\ngoroutine 1 [running]:")
			}, ""},
			{"another charm's panic", func(r *observed) {
				logged(r, 50, "postgresql/0", "unit.postgresql/0.start", "panic: lost\ngoroutine 1 [running]:")
			}, ""},
		},
	},
}

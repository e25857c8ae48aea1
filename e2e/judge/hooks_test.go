package judge_test

import (
	"fmt"
	"slices"
	"strings"

	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/cluster"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/observation"
)

// again repeats something in a record, every few seconds.
func again(from, to, every float64, what func(seconds float64)) {
	for seconds := from; seconds < to; seconds += every {
		what(seconds)
	}
}

// only leaves the lines of the log of which a text is a part.
func only(r *observed, text string) {
	r.Log = slices.DeleteFunc(r.Log, func(l cluster.LogLine) bool { return !strings.Contains(l.Message, text) })
}

var hookTables = []table{
	{rule: "hooks-rest",
		breaks: []row{
			{"a charm that is woken every second", func(r *observed) {
				again(206, 220, 1, func(s float64) { woken(r, s, "ci/1") })
			}, `ci/1 at the end of "upgraded": ran 14 hooks in 1m35s of rest, more than 4`},
			{"a charm that is woken every five seconds", func(r *observed) {
				again(206, 300, 5, func(s float64) { woken(r, s, "ci/1") })
			}, "ci/1 at the end of \"upgraded\": ran 19 hooks"},
			{"the same in a short rest", func(r *observed) {
				r.Acts[1].Time = at(92)
				again(71, 92, 5, func(s float64) { woken(r, s, "ci/1") })
			}, `ci/1 at the end of "deployed": ran 6 hooks in 27s of rest, more than 3`},
			{"a fault that is never healed", func(r *observed) {
				r.Faults = []observation.Fault{{Name: "ci/1: volume detached", Begin: at(180)}}
				again(206, 300, 5, func(s float64) { woken(r, s, "ci/1") })
			}, "ci/1 at the end of \"upgraded\": ran 19 hooks"},
			{"units that answer each other", func(r *observed) {
				again(206, 300, 10, func(s float64) { ran(r, s, "ci/0", "peers-relation-changed") })
			}, "ci/0 at the end of \"upgraded\": ran 10 hooks"},
			{"a log without the agents' own lines", func(r *observed) {
				again(206, 300, 3, func(s float64) { woken(r, s, "ci/1") })
				only(r, "status-history")
			}, `ci at the end of "upgraded": 4 units ran commands 32 times`},
		},
		keeps: []row{
			{"update-status", func(r *observed) {
				again(206, 300, 2, func(s float64) { ran(r, s, "ci/0", "update-status") })
			}, ""},
			{"hooks that were due", func(r *observed) {
				again(200, 205, 0.5, func(s float64) { woken(r, s, "ci/1") })
			}, ""},
			{"hooks after the next act", func(r *observed) {
				again(151, 200, 2, func(s float64) { ran(r, s, "ci/1", "config-changed") })
			}, ""},
			{"hooks after a fault", func(r *observed) {
				r.Faults = []observation.Fault{fault("ci/1: worker killed", 206, 207, "ci/1")}
				again(208, 290, 2, func(s float64) { ran(r, s, "ci/1", "config-changed") })
			}, ""},
			{"hooks after the end of a fault", func(r *observed) {
				r.Faults = []observation.Fault{fault("ci/1: worker frozen", 180, 207, "ci/1")}
				again(208, 290, 2, func(s float64) { ran(r, s, "ci/1", "config-changed") })
			}, ""},
			{"hooks while nobody says it is at rest", func(r *observed) {
				r.Observations[upgraded].Resting = false
				again(206, 300, 2, func(s float64) { woken(r, s, "ci/1") })
				r.Acts[1].Time = at(61)
			}, ""},
			{"a rest that is too short", func(r *observed) {
				r.Acts = append(r.Acts, observation.Act{Name: "add a unit", Time: at(214)})
				again(206, 214, 1, func(s float64) { woken(r, s, "ci/1") })
			}, ""},
			{"one hook a minute", func(r *observed) {
				for n := range 3 {
					again(206, 1500, 60, func(s float64) { woken(r, s, fmt.Sprintf("ci/%d", n)) })
				}
				ran(r, 1500, "ci/0", "update-status")
			}, ""},
			{"another charm", func(r *observed) {
				again(206, 300, 2, func(s float64) { ran(r, s, "postgresql/0", "config-changed") })
			}, ""},
		},
	},
}

package judge_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/judge"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/observation"
)

// ends has the second build, on ci/2 from 210 s to 216 s, end in another way.
func ends(r *observed, result string, faults ...observation.Fault) {
	r.Builds[1].Result, r.Builds[1].Output = result, "no such volume"
	r.Faults = faults
}

// rerun has a build's task be run twice, whose end was due then, and the web server be
// started anew at 220 s.
func rerun(r *observation.Record, due float64) {
	ends(r, "succeeded")
	logged(r, 220, "ci/0", "unit.juju-log", "Starting concourse-server.service from Concourse v7.14.3")
	r.Builds[1].Begun, r.Builds[1].Due = 2, at(due)
}

var buildTables = []table{
	{rule: "no-lost-build",
		breaks: []row{
			{"an error", func(r *observed) { ends(r, "errored") },
				`build 2 on "ci-2" from 03:03:30.000 to 03:03:36.000: "errored", and no fault explains it: no such volume`},
			{"a task that failed", func(r *observed) { ends(r, "failed") }, `"failed"`},
			{"an end that nobody knows", func(r *observed) { ends(r, "unknown", fault("ci/2: machine stopped", 212, 230, "ci/2")) }, `"unknown"`},
			{"a task that was begun again", func(r *observed) {
				ends(r, "succeeded", fault("ci/0: killed", 212, 230, "ci/0"))
				r.Builds[1].Begun = 2
			}, `its task was begun 2 times, and no fault explains it`},
			{"a task that was begun again, and ended when its web server was there", func(r *observed) {
				rerun(r, 240)
			}, `begun 2 times`},
			{"an error while the web server is started anew", func(r *observed) {
				rerun(r, 235)
				r.Builds[1].Result = "errored"
			}, `"errored"`},
			{"an end without a result", func(r *observed) { ends(r, "") }, `""`},
			{"a fault on another worker", func(r *observed) { ends(r, "errored", fault("ci/1: machine stopped", 212, 230, "ci/1")) }, `"errored"`},
			{"a fault on the web server", func(r *observed) { ends(r, "errored", fault("ci/0: killed", 212, 230, "ci/0")) }, `"errored"`},
			{"a fault before", func(r *observed) { ends(r, "errored", fault("ci/2: machine stopped", 170, 209, "ci/2")) }, `"errored"`},
			{"a fault after", func(r *observed) { ends(r, "errored", fault("ci/2: machine stopped", 217, 230, "ci/2")) }, `"errored"`},
			{"a flaw that is not known", func(r *observed) {
				ends(r, "errored")
				r.Builds[1].Flaw = "concourse#1"
			}, `"errored"`},
			{"a flaw of web servers that are started anew, where none was", func(r *observed) {
				ends(r, "errored")
				r.Builds[1].Flaw = "concourse#6959"
			}, `"errored"`},
			{"a known flaw in a task that failed", func(r *observed) {
				ends(r, "failed")
				r.Builds[1].Flaw = "concourse#7056"
			}, `"failed"`},
			{"a build that came to no worker", func(r *observed) {
				ends(r, "errored", observation.Fault{Name: "all stopped", Units: []string{"", "ci/2"}, Begin: at(200)})
				r.Builds[1].Worker = ""
			}, `build 2 on ""`},
		},
		keeps: []row{
			{"a fault on its worker", func(r *observed) { ends(r, "errored", fault("ci/2: machine stopped", 212, 230, "ci/2")) }, ""},
			{"a task that was begun again for a fault on its worker", func(r *observed) {
				ends(r, "succeeded", fault("ci/2: machine stopped", 212, 230, "ci/2"))
				r.Builds[1].Begun = 2
			}, ""},
			{"a task that ended while the web server was started anew", func(r *observed) { rerun(r, 225) }, ""},
			{"a fault that goes on", func(r *observed) {
				ends(r, "failed", observation.Fault{Name: "ci/2: machine stopped", Units: []string{"ci/2"}, Begin: at(180)})
			}, ""},
			{"a known flaw", func(r *observed) {
				ends(r, "errored")
				r.Builds[1].Flaw = "concourse#7056"
			}, ""},
			{"a flaw of web servers that are started anew", func(r *observed) {
				ends(r, "errored")
				r.Builds[1].Flaw = "concourse#6959"
				logged(r, 212, "ci/0", "unit.juju-log", "Starting concourse-server.service from Concourse v7.14.3")
			}, ""},
			{"a build that goes on", func(r *observed) {
				r.Builds = append(r.Builds, observation.Build{Name: "3", Started: at(290)})
			}, ""},
		},
	},
	{rule: "builds-on-units",
		breaks: []row{
			{"a worker that is no unit's", func(r *observed) { r.Builds[0].Worker = "juju-4711-1" }, `build 1 ran on "juju-4711-1", which is no unit's worker`},
			{"no worker", func(r *observed) { r.Builds[0].Worker = "" }, `build 1 ran on ""`},
		},
		keeps: []row{
			{"a unit that is gone by now", func(r *observed) { delete(r.Observations[upgraded].Status.Apps["ci"].Units, "ci/1") }, ""},
			{"nothing observed yet", func(r *observed) { r.Observations = nil }, ""},
		},
	},
}

func TestBuiltOn(t *testing.T) {
	builds := []observation.Build{
		{Worker: "ci-1", Result: "succeeded"}, {Worker: "ci-2", Result: "errored"}, {Worker: "ci-1", Result: "succeeded"},
	}
	require.Empty(t, judge.BuiltOn(builds, "ci/1"))
	require.Equal(t, []string{"ci/2: none of 3 builds succeeded on its worker"}, judge.BuiltOn(builds, "ci/1", "ci/2"))
	require.Len(t, judge.BuiltOn(nil, "ci/1"), 1)
}

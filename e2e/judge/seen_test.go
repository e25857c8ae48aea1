package judge_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/cluster"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/judge"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/observation"
)

// blindTo has the observer not see something of ci/1 after the upgrade.
func blindTo(forget func(m *observation.Machine)) func(r *observed) {
	return func(r *observed) { machineOf(r, upgraded, "ci/1", forget) }
}

// unheard takes the lines from the log that have a text.
func unheard(r *observed, unit, text string) {
	var heard []cluster.LogLine
	for _, line := range r.Log {
		if line.Unit != unit || !strings.Contains(line.Message, text) {
			heard = append(heard, line)
		}
	}
	r.Log = heard
}

// resumed is a rest after the upgrade, with a build in between.
func resumed(r *observed) *observation.Observation {
	r.Observations = append(r.Observations, atRest(300, "resumed", to))
	return &r.Observations[len(r.Observations)-1]
}

// beside says when builds were to run beside the scenario.
func beside(r *observed, begin, end float64) {
	r.Beside = append(r.Beside, observation.Span{Begin: at(begin), End: at(end)})
}

var seenTables = []table{{
	rule: "nothing-unseen",
	breaks: []row{
		{"a machine", func(r *observed) { delete(r.Observations[upgraded].Machines, "ci/1") }, `ci/1 at the end of "upgraded": was not seen: its machine`},
		{"hooks", func(r *observed) { unheard(r, "ci/1", "") }, "which hooks it has run"},
		{"a charm", blindTo(func(m *observation.Machine) { m.Charm = "" }), "its charm"},
		{"a start", blindTo(func(m *observation.Machine) { m.Started = observation.Machine{}.Started }), "when its machine was started"},
		{"traffic", blindTo(func(m *observation.Machine) { m.Received = 0 }), "what it has received"},
		{"its disk", blindTo(func(m *observation.Machine) { m.Used = 0 }), "what is on its own disk"},
		{"secrets", blindTo(func(m *observation.Machine) { m.Secrets = nil }), "its secrets"},
		{"an invocation", blindTo(func(m *observation.Machine) { m.Services[1].Invocation = "" }), "when concourse-worker.service was started"},
		{"a service's start", blindTo(func(m *observation.Machine) { m.Services[1].Started = observation.Machine{}.Started }), "when concourse-worker.service was started"},
		{"a program", blindTo(func(m *observation.Machine) { m.Services[1].Executable = "" }), "what concourse-worker.service executes"},
		{"a program's file", blindTo(func(m *observation.Machine) { m.Services[1].File = observation.File{} }), "what concourse-worker.service executes"},
		{"a worker's directory", blindTo(func(m *observation.Machine) { m.Services[1].Directory = "" }), "the directory of concourse-worker.service"},
		{"processes", blindTo(func(m *observation.Machine) { m.Processes = nil }), "the process of concourse-worker.service"},
		{"a file system", blindTo(func(m *observation.Machine) { m.Mount.FileSystem = "" }), "the file system of its mount"},
		{"a volume", blindTo(func(m *observation.Machine) { m.Volume = nil }), "its volume"},
		{"a history", blindTo(func(m *observation.Machine) { m.Volume.History = nil }), "the history of its volume"},
		{"activations", blindTo(func(m *observation.Machine) { m.Volume.History.Activations = nil }), "the history of its volume"},
		{"claims", blindTo(func(m *observation.Machine) { m.Volume.History.Claims = nil }), "the history of its volume"},
		{"releases", blindTo(func(m *observation.Machine) { m.Volume.Releases = nil }), "the releases on its volume"},
		{"the room that they take", blindTo(func(m *observation.Machine) { m.Volume.Use = coordinator.Space{} }), "the releases on its volume"},
		{"bytes", func(r *observed) { volumeOf(r, upgraded, func(v *observation.Volume) { v.Unsound = nil }) },
			`at the end of "upgraded": nobody has read the bytes of the releases`},
		{"what was downloaded", func(r *observed) { r.Observations[upgraded].Downloads = nil }, "it was not seen that the mirror sent 7.14.3"},
		{"a web server", func(r *observed) { r.Observations[upgraded].Web = nil }, "the web server was not asked"},
		{"readiness", func(r *observed) { unheard(r, "controller-0", "ready (v") }, "it was not seen when a web server was ready"},
		{"workers", func(r *observed) { resumed(r).Web.Workers = nil }, `at the end of "resumed": the web server was not asked for its workers`},
		{"builds beside", func(r *observed) { beside(r, 100, 170) }, "no build was seen beside the scenario from 03:01:40.000 on"},
		{"builds beside that go on", func(r *observed) { r.Beside = []observation.Span{{Begin: at(100)}} }, "no build was seen beside"},
		{"builds beside, but before", func(r *observed) {
			beside(r, 100, 170)
			r.Builds[0].Beside = true
		}, "no build was seen beside"},
	},
	keeps: []row{
		{"all that was seen", func(r *observed) {}, ""},
		{"less during a fault", func(r *observed) {
			r.Faults = []observation.Fault{fault("ci/1: machine stopped", 190, 195, "ci/1")}
			r.Observations[upgraded].Machines = nil
		}, ""},
		{"less before rest", func(r *observed) {
			r.Observations[upgraded].Resting = false
			r.Observations[upgraded].Machines = nil
		}, ""},
		{"a unit that is not active", func(r *observed) {
			says(r, upgraded, "ci/1", "blocked", "Shared storage unavailable - attach it")
			machineOf(r, upgraded, "ci/1", func(m *observation.Machine) { *m = observation.Machine{} })
		}, ""},
		{"bytes that a paused unit reads for all", func(r *observed) {
			volumeOf(r, upgraded, func(v *observation.Volume) { v.Unsound = nil })
			machineOf(r, upgraded, "ci/1", func(m *observation.Machine) {
				v := *m.Volume
				v.Unsound = map[string]string{}
				m.Volume = &v
			})
			says(r, upgraded, "ci/1", "maintenance", "Paused: the worker is out (v7.14.3): run resume")
		}, ""},
		{"units that are all blocked", func(r *observed) {
			for unit := range r.Observations[upgraded].Machines {
				says(r, upgraded, unit, "blocked", "Cannot install v7.14.4: set version")
			}
			volumeOf(r, upgraded, func(v *observation.Volume) { v.Unsound = nil })
		}, ""},
		{"units without a volume", func(r *observed) {
			r.Shared = false
			for unit := range r.Observations[upgraded].Machines {
				machineOf(r, upgraded, unit, func(m *observation.Machine) { m.Mount, m.Volume = observation.Mount{}, nil })
			}
		}, ""},
		{"a release that was on the volume before", func(r *observed) {
			r.Observations[upgraded].Downloads = nil
			r.Allowed = map[string]int{to: 0}
		}, ""},
		{"workers at a web server that has moved", func(r *observed) {
			o := resumed(r)
			o.Web.Workers, o.Web.URL = nil, "http://10.0.0.11:8080"
		}, ""},
		{"workers at a web server of another release", func(r *observed) { r.Observations[upgraded].Web.Workers = nil }, ""},
		{"builds beside", func(r *observed) {
			beside(r, 70, 170)
			r.Builds[0].Beside = true
		}, ""},
		{"builds beside for a moment", func(r *observed) { beside(r, 100, 110) }, ""},
		{"builds beside a fault", func(r *observed) {
			beside(r, 100, 170)
			r.Faults = []observation.Fault{fault("ci/0: machine stopped", 110, 120, "ci/0")}
		}, ""},
	},
}}

// TestEachRestIsSeen: a machine that was seen once is not seen for ever.
func TestEachRestIsSeen(t *testing.T) {
	for i, phase := range map[int]string{deployed: "deployed", upgraded: "upgraded"} {
		r := sound()
		delete(r.Observations[i].Machines, "ci/2")
		require.Equal(t, []string{`nothing-unseen: ci/2 at the end of "` + phase + `": was not seen: its machine`},
			texts(judge.Judge(*r, judge.Seen())))
	}
}

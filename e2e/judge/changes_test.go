package judge_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/judge"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/observation"
)

// wrongMode adds an observation in which an option is wrong and nothing else changed.
func wrongMode(r *observed) {
	o := atRest(260, "wrong mode", to)
	o.Expected = ""
	for n, message := range []string{`Unknown mode "x": set mode to one of auto, web, all`, `Unknown mode "x": set mode to one of auto, web, all`} {
		u := o.Status.Apps["ci"].Units[[]string{"ci/0", "ci/1"}[n]]
		u.Workload, u.Message = "blocked", message
		o.Status.Apps["ci"].Units[u.Name] = u
	}
	r.Observations = append(r.Observations, o)
	r.Acts = append(r.Acts, observation.Act{Name: "configure mode=x", Time: at(250)})
}

var optionTables = []table{
	{rule: "wrong-option",
		breaks: []row{
			{"a web server that was stopped", func(r *observed) {
				wrongMode(r)
				serviceOf(r, upgraded+1, "ci/0", server, func(s *observation.Service) { s.State, s.PID = "inactive", 0 })
			}, `ci/0 at the end of "wrong mode": concourse-server.service was stopped`},
			{"a worker that was restarted", func(r *observed) {
				wrongMode(r)
				serviceOf(r, upgraded+1, "ci/1", worker, func(s *observation.Service) { s.PID, s.Invocation = 4000, "again" })
			}, "concourse-worker.service was restarted (process 4000, before 1301)"},
			{"a web server that was started", func(r *observed) {
				wrongMode(r)
				serviceOf(r, upgraded+1, "ci/1", server, func(s *observation.Service) { s.State, s.PID = "active", 4001 })
			}, "ci/1 at the end of \"wrong mode\": concourse-server.service was started"},
		},
		keeps: []row{
			{"untouched services", wrongMode, ""},
			{"a unit that does not complain", func(r *observed) {
				wrongMode(r)
				serviceOf(r, upgraded+1, "ci/2", worker, func(s *observation.Service) { s.PID, s.Invocation = 4000, "again" })
			}, ""},
			{"an upgrade at the same time", func(r *observed) {
				wrongMode(r)
				r.Acts = append(r.Acts, observation.Act{Name: "upgrade", Time: at(251)})
				serviceOf(r, upgraded+1, "ci/1", worker, func(s *observation.Service) { s.PID, s.Invocation = 4000, "again" })
			}, ""},
			{"a crash at the same time", func(r *observed) {
				wrongMode(r)
				r.Faults = []observation.Fault{fault("ci/1: worker killed", 255, 255, "ci/1")}
				serviceOf(r, upgraded+1, "ci/1", worker, func(s *observation.Service) { s.PID, s.Invocation = 4000, "again" })
			}, ""},
		},
	},
}

func TestUndisturbed(t *testing.T) {
	before := atRest(200, "before", to)
	after := func(changes ...func(r *observed)) observation.Observation {
		r := &observed{Observations: []observation.Observation{atRest(300, "after", to)}}
		for _, change := range changes {
			change(r)
		}
		return r.Observations[0]
	}
	restarted := func(unit string) func(r *observed) {
		return func(r *observed) {
			serviceOf(r, 0, unit, worker, func(s *observation.Service) { s.Invocation = "again" })
		}
	}
	require.Empty(t, judge.Undisturbed(before, after()))
	require.Len(t, judge.Undisturbed(before, after(restarted("ci/1"), restarted("ci/2"))), 2)
	require.Len(t, judge.Undisturbed(before, after(restarted("ci/1"), restarted("ci/2")), "ci/1"), 1)
	removed := func(r *observed) { delete(r.Observations[0].Machines, "ci/2") }
	require.Empty(t, judge.Undisturbed(before, after(removed)), "a unit that is gone")
	looping := func(r *observed) {
		serviceOf(r, 0, "ci/1", worker, func(s *observation.Service) { s.State, s.PID = "activating", 0 })
	}
	require.Len(t, judge.Undisturbed(before, after(looping)), 1)
}

func TestUnlisted(t *testing.T) {
	r := &observed{Observations: []observation.Observation{atRest(300, "cut", to)}}
	o := r.Observations[0]
	require.Equal(t, []string{
		`ci/1 at the end of "cut": says "Worker ready (v7.14.3)", and the web server does not list its worker as running`,
	}, judge.Unlisted(o, "ci/1"))
	o.Status = status("active Ready (v7.14.3)", "waiting Waiting for the web server to list this worker as running...")
	require.Empty(t, judge.Unlisted(o, "ci/1"))
}

func TestRestarted(t *testing.T) {
	before := atRest(200, "before", to)
	r := &observed{Observations: []observation.Observation{atRest(300, "after", to)}}
	require.Len(t, judge.Restarted(before, r.Observations[0], "ci/0", "ci/1"), 2, "both go on")
	serviceOf(r, 0, "ci/1", worker, func(s *observation.Service) { s.Invocation = "again" })
	require.Empty(t, judge.Restarted(before, r.Observations[0], "ci/1"))
	serviceOf(r, 0, "ci/1", worker, func(s *observation.Service) { s.State, s.PID = "activating", 0 })
	require.Len(t, judge.Restarted(before, r.Observations[0], "ci/1"), 1, "it does not run again")
}

package judge_test

import (
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/observation"
)

// listed changes what the web server says after the upgrade.
func listed(change func(w *observation.Web)) func(r *observed) {
	return func(r *observed) { change(r.Observations[upgraded].Web) }
}

// retires has the web server list the worker of a unit that was last seen at a time.
func retires(seen float64) func(r *observed) {
	return func(r *observed) {
		o := r.Observations[deploying]
		o.Time = at(seen)
		o.Status = status("", "", "", "active Worker ready (v7.14.2)")
		r.Observations = []observation.Observation{r.Observations[deploying], r.Observations[deployed], o, r.Observations[upgraded]}
		web := r.Observations[len(r.Observations)-1].Web
		web.Workers = append(web.Workers, observation.Worker{Name: "ci-3", State: "retiring"})
	}
}

var webTables = []table{
	{rule: "web-answers",
		breaks: []row{
			{"an old version", listed(func(w *observation.Web) { w.Version = from }),
				`http://10.0.0.10:8080 at the end of "upgraded": the web server answers with 7.14.2, and must with 7.14.3`},
			{"silence", listed(func(w *observation.Web) { w.Version = "" }), "the web server does not answer"},
		},
		keeps: []row{
			{"an upgrade that goes on", func(r *observed) {
				r.Observations[upgraded].Expected = ""
				r.Observations[upgraded].Web.Version = from
			}, ""},
		},
	},
	{rule: "workers-registered",
		breaks: []row{
			{"a worker that is not known", listed(func(w *observation.Web) { w.Workers = w.Workers[:1] }),
				`ci/2 at the end of "upgraded": its worker runs, and the web server does not know it`},
			{"none is known", listed(func(w *observation.Web) { w.Workers = []observation.Worker{} }), "ci/1"},
			{"a worker that stalls", listed(func(w *observation.Web) { w.Workers[0].State = "stalled" }),
				"ci-1 at the end of \"upgraded\": the web server lists it as stalled, and its unit runs it"},
			{"a worker of a unit that is gone", listed(func(w *observation.Web) {
				w.Workers = append(w.Workers, observation.Worker{Name: "ci-3", State: "stalled"})
			}), "ci-3 at the end of \"upgraded\": the web server lists it as stalled, and no unit runs it"},
			{"a worker of a unit that is long gone", retires(120), "ci-3 at the end of \"upgraded\": the web server lists it as retiring, and no unit runs it"},
			{"a worker of a unit that never was", listed(func(w *observation.Web) {
				w.Workers = append(w.Workers, observation.Worker{Name: "ci-3", State: "retiring"})
			}), "ci-3"},
			{"a worker that became the web server", listed(func(w *observation.Web) {
				w.Workers = append(w.Workers, observation.Worker{Name: "ci-0", State: "running"})
			}), "ci-0 at the end of \"upgraded\": the web server lists it as running, and no unit runs it"},
			{"a worker that has landed, of a unit that says nothing of it", func(r *observed) {
				pauses(r, "ci/1")
				says(r, upgraded, "ci/1", "active", "Worker ready (v7.14.3)")
			}, "ci-1 at the end of \"upgraded\": the web server lists it as landed, and no unit runs it"},
			{"a worker that was paused without landing", func(r *observed) { pauses(r, "ci/1"); lists(r, "ci/1", "stalled") },
				"ci-1 at the end of \"upgraded\": the web server lists it as stalled, and no unit runs it"},
			{"a name that is none", listed(func(w *observation.Web) { w.Workers[1].Name = "juju-4711-2" }), "juju-4711-2"},
			{"one worker twice", listed(func(w *observation.Web) { w.Workers = append(w.Workers, w.Workers[0]) }), "the web server lists it twice"},
		},
		keeps: []row{
			{"a machine that is off", func(r *observed) {
				delete(r.Observations[upgraded].Machines, "ci/2")
				r.Observations[upgraded].Web.Workers[1].State = "stalled"
			}, ""},
			{"a worker of a unit that has just left", retires(130), ""},
			{"a worker that is paused", func(r *observed) { pauses(r, "ci/1") }, ""},
			{"a worker that is landing", func(r *observed) {
				r.Observations[upgraded].Resting = false
				r.Observations[upgraded].Web.Workers[1].State = "landing"
			}, ""},
		},
	},
}

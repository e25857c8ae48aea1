package judge_test

import (
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/cluster"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/observation"
)

const failedLine = `hook "config-changed" (via hook dispatching script: dispatch) failed: exit status 1`

var statusTables = []table{
	{rule: "no-error",
		breaks: []row{
			{"a unit in error", func(r *observed) {
				says(r, deployed, "ci/1", "error", `hook failed: "config-changed"`)
			}, `ci/1 at the end of "deployed": is in error (workload error, agent idle): hook failed: "config-changed"`},
			{"an agent that failed", func(r *observed) {
				unitOf(r, upgraded, "ci/2", func(u *cluster.UnitStatus) { u.Agent = "failed" })
			}, "ci/2 at the end of \"upgraded\": is in error (workload active, agent failed)"},
			{"a hook that failed in between", func(r *observed) {
				logged(r, 50, "ci/1", operations, failedLine)
			}, "ci/1 at 03:00:50.000: " + failedLine},
			{"a hook that said why", func(r *observed) {
				logged(r, 49, "ci/1", "unit.ci/1.config-changed", "it runs")
				complained(r, 10, "ci/1", "before")
				complained(r, 49, "ci/2", "another")
				complained(r, 49, "ci/1", "no space left on device")
				logged(r, 50, "ci/1", operations, failedLine)
			}, failedLine + "; it said: no space left on device"},
			{"a hook that failed long after a fault", func(r *observed) {
				r.Faults = []observation.Fault{fault("ci/1: cut off", 80, 90, "ci/1")}
				logged(r, 160, "ci/1", operations, failedLine)
			}, failedLine},
		},
		keeps: []row{
			{"an agent that is lost", func(r *observed) {
				unitOf(r, upgraded, "ci/2", func(u *cluster.UnitStatus) { u.Workload, u.Agent = "unknown", "lost" })
			}, ""},
			{"another charm's hook", func(r *observed) { logged(r, 50, "postgresql/0", operations, failedLine) }, ""},
			{"a hook without a network", func(r *observed) {
				r.Faults = []observation.Fault{fault("ci/1: cut off", 80, 90, "ci/1")}
				logged(r, 95, "ci/1", operations, failedLine)
			}, ""},
		},
	},
	{rule: "says-what-to-do",
		breaks: []row{
			{"only what is wrong", func(r *observed) { says(r, deployed, "ci/0", "blocked", "Storage unavailable - input/output error") },
				`ci/0 at the end of "deployed": is blocked and does not say what to do: "Storage unavailable - input/output error"`},
			{"what cannot be done", func(r *observed) {
				says(r, deployed, "ci/0", "blocked", "Cannot install Concourse v7.14.9: release not found")
			}, "does not say what to do"},
			{"nothing", func(r *observed) { says(r, deploying, "ci/0", "blocked", "") }, `does not say what to do: ""`},
		},
		keeps: []row{
			{"what is required", func(r *observed) { says(r, deployed, "ci/0", "blocked", "PostgreSQL database required") }, ""},
			{"a wrong option", func(r *observed) {
				says(r, deployed, "ci/0", "blocked", `Unknown mode "x": set mode to one of auto, web, all`)
			}, ""},
			{"a wrong digest", func(r *observed) {
				says(r, deployed, "ci/0", "blocked", "Cannot install Concourse v7.14.3: digest mismatch: nothing was installed; check the option release-digest")
			}, ""},
			{"another charm", func(r *observed) {
				r.Observations[deployed].Status.Apps["postgresql"].Units["postgresql/0"] = cluster.UnitStatus{Name: "postgresql/0", Workload: "blocked", Message: "no"}
			}, ""},
		},
	},
	{rule: "blocked-not-waiting",
		breaks: []row{
			{"a missing relation", func(r *observed) { says(r, deployed, "ci/0", "waiting", "PostgreSQL database required") },
				`ci/0 at the end of "deployed": is waiting, and must be blocked: "PostgreSQL database required"`},
			{"a lost volume", func(r *observed) {
				says(r, deploying, "ci/2", "waiting", "Shared storage unavailable - attach it")
			}, "must be blocked"},
			{"a mirror that is not there", func(r *observed) {
				says(r, deployed, "ci/0", "waiting", "Waiting for binaries: server unreachable, check release-url")
			}, "must be blocked"},
			{"a volume that somebody has to attach", func(r *observed) {
				says(r, deployed, "ci/2", "waiting", "Waiting for shared storage mount")
			}, "must be blocked"},
			{"for nothing", func(r *observed) { says(r, deployed, "ci/1", "waiting", "Preparing") }, `is waiting and does not say for what: "Preparing"`},
		},
		keeps: []row{
			{"a machine that comes", func(r *observed) { says(r, deployed, "ci/2", "waiting", "waiting for machine") }, ""},
			{"an agent that comes", func(r *observed) { says(r, deploying, "ci/2", "waiting", "agent initialising") }, ""},
		},
	},
}

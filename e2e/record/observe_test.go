package record_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/cluster"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/cluster/clustertest"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/judge"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/observation"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/record"
)

// brokenFor is a rule that is broken by observations of the first so many looks.
func brokenFor(looks int, rule judge.Rule) judge.Rule {
	rule.Name = "a-rule"
	rule.Broken = func(observation.Record) (broken []string) {
		if looks--; looks >= 0 {
			broken = []string{"twice"}
		}
		return broken
	}
	return rule
}

func TestSettle(t *testing.T) {
	settles, recovers := judge.Rule{Settles: "It takes time."}, judge.Rule{Recovers: "It starts again."}
	for name, test := range map[string]struct {
		rule   judge.Rule
		broken int  // looks
		moving bool // while the cluster is first looked at
		active bool // not at rest
		fault  bool
		took   time.Duration
		fails  bool
	}{
		"all well":                             {rule: judge.Rule{}},
		"what must never be broken":            {rule: judge.Rule{}, broken: 1, fails: true},
		"what settles":                         {rule: settles, broken: 5, took: 5 * time.Second},
		"what does not settle in time":         {rule: settles, broken: 100, took: 30 * time.Second, fails: true},
		"what settles, not at rest":            {rule: settles, broken: 1, active: true, fails: true},
		"what recovers, after a fault":         {rule: recovers, broken: 5, fault: true, took: 5 * time.Second},
		"what recovers, after none":            {rule: recovers, broken: 1, fails: true},
		"a unit that moves":                    {rule: judge.Rule{}, moving: true, took: time.Second},
		"a unit that moves and breaks a rule":  {rule: judge.Rule{}, moving: true, broken: 1, fails: true},
		"a unit that moves, and then a broken": {rule: settles, moving: true, broken: 2, took: 2 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, s, c := recorderFor(record.Options{Rules: []judge.Rule{brokenFor(test.broken, test.rule)}})
				require.NoError(t, r.Cluster().Deploy(t.Context(), cluster.App{Name: "ci", Units: 2}))
				if test.fault {
					require.NoError(t, r.Cluster().Machine("ci/1").Kill("concourse-worker.service").Inject(t.Context()))
				}
				if test.moving {
					c.Now = firstReading(func(u *cluster.UnitStatus) { u.Workload = cluster.Maintenance })
				}
				start := time.Now()
				observe := func() { r.Observe(t.Context(), "upgrade", !test.active, "") }
				if test.fails {
					require.PanicsWithValue(t, errEnded, observe)
					require.Equal(t, []string{"a-rule: twice"}, s.failures)
				} else {
					observe()
					require.Empty(t, s.failures)
				}
				require.Equal(t, test.took, time.Since(start))
				require.Len(t, r.Record().Observations, 1, "what was not at rest is not recorded as such")
			})
		})
	}
}

// Of a look at a unit that moves, or runs a hook, rules about a cluster at rest are not
// judged.
func TestRestIsNotJudgedOfWhoMoves(t *testing.T) {
	for name, test := range map[string]struct {
		first func(*cluster.UnitStatus) // what the first reading shows
		said  string
	}{
		"another status": {func(u *cluster.UnitStatus) { u.Workload = cluster.Maintenance },
			`ci/1 was maintenance "Ready" before the look, and active "Ready" after it`},
		"a hook": {func(u *cluster.UnitStatus) { u.Agent = "executing" }, "ci/1 runs a hook"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				atRest := judge.Rule{Name: "a-rule", Broken: func(r observation.Record) (broken []string) {
					u, _ := r.Last().Status.Unit("ci/1")
					if r.Last().Resting && (u.Workload != cluster.Active || u.Agent != "idle") {
						broken = []string{"it is not at rest"}
					}
					return broken
				}}
				r, s, c := recorderFor(record.Options{Rules: []judge.Rule{atRest}})
				require.NoError(t, r.Cluster().Deploy(t.Context(), cluster.App{Name: "ci", Units: 2}))
				c.Now = firstReading(test.first)
				require.True(t, r.Observe(t.Context(), "upgrade", true, "").Resting)
				require.Empty(t, s.failures)
				require.Equal(t, `not at rest yet at the end of "upgrade": `+test.said, s.log[1])
			})
		})
	}
}

// firstReading is two, of which one unit is changed in the first reading.
func firstReading(change func(*cluster.UnitStatus)) func() (cluster.Status, error) {
	readings := 0
	return func() (cluster.Status, error) {
		status, err := two()
		if readings++; readings == 1 {
			u := status.Apps["ci"].Units["ci/1"]
			change(&u)
			status.Apps["ci"].Units["ci/1"] = u
		}
		return status, err
	}
}

// What must never be broken fails also beside what may settle, and a rule that was broken
// for a moment leaves a trace.
func TestSettleOfMany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		settles := judge.Rule{Settles: "It takes time."}
		never := brokenFor(1, judge.Rule{})
		never.Name = "never-broken"
		r, s, _ := recorderFor(record.Options{Rules: []judge.Rule{brokenFor(5, settles), never}})
		require.PanicsWithValue(t, errEnded, func() { r.Observe(t.Context(), "upgrade", true, "") })
		require.Equal(t, []string{"never-broken: twice"}, s.failures, "the other one may settle")

		r, s, _ = recorderFor(record.Options{Rules: []judge.Rule{brokenFor(5, settles)}})
		r.Observe(t.Context(), "upgrade", true, "")
		require.Equal(t, []string{
			`not at rest yet at the end of "upgrade": a-rule: twice`,
			"at rest after 5s",
			`observed at the end of "upgrade": 0 machines; 7.14.2: 100 of 100 bytes, 0 of them again, in 1 requests from 10.0.3.5`,
		}, s.log)
	})
}

// A secret that one look has found fails the scenario, by the real rules.
func TestLeakOfAMoment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		leaks := []string{"config.env is for all to read"}
		r, s, c := recorderFor(record.Options{Look: func(_ context.Context, machine cluster.Machine, _ record.Thoroughness) (m observation.Machine, _ error) {
			if machine.Unit() == "ci/0" {
				m.Leaks, leaks = leaks, nil
			}
			return m, nil
		}})
		c.Now = func() (cluster.Status, error) {
			unit := cluster.UnitStatus{Name: "ci/0", Workload: "blocked", Message: "set an option", Instance: "juju-0"}
			return cluster.Status{Apps: map[string]cluster.AppStatus{"ci": {Units: map[string]cluster.UnitStatus{"ci/0": unit}}}}, nil
		}
		require.NoError(t, r.Cluster().Deploy(t.Context(), cluster.App{Name: "ci", Units: 1}))
		require.PanicsWithValue(t, errEnded, func() { r.Observe(t.Context(), "upgrade", true, "") })
		require.Equal(t, []string{`no-secret: ci/0 at the end of "upgrade": a secret is where it must not be: config.env is for all to read`}, s.failures)
	})
}

// recorderFor is recorder with the time that a cluster is given in earnest.
func recorderFor(o record.Options) (*record.Recorder, *scenario, *clustertest.Cluster) {
	o.Settle = 30 * time.Second
	return recorder(o)
}

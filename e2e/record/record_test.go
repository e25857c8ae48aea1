package record_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
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

// scenario is a record.T that keeps what it is told. FailNow panics with errEnded.
type scenario struct {
	failures, log []string
}

var errEnded = errors.New("the scenario has ended")

func (s *scenario) Helper() {}
func (s *scenario) Logf(format string, args ...any) {
	s.log = append(s.log, fmt.Sprintf(format, args...))
}
func (s *scenario) Errorf(format string, args ...any) {
	s.failures = append(s.failures, fmt.Sprintf(format, args...))
}
func (s *scenario) FailNow() { panic(errEnded) }

// mirror has sent a release of 100 bytes once.
type mirror struct{ cluster.Mirror }

func (mirror) Attempts(string, string) []time.Time { return nil }

func (mirror) Transfer(string) cluster.Transfer {
	return cluster.Transfer{Size: 100, Sent: 100, Distinct: 100, Requests: 1, Clients: []string{"10.0.3.5"}}
}
func (mirror) Break(string, cluster.MirrorFault) {}
func (mirror) Repair(string)                     {}

// two are two units with machines, the second is the leader.
func two() (cluster.Status, error) {
	units := map[string]cluster.UnitStatus{}
	for i, name := range []string{"ci/0", "ci/1"} {
		units[name] = cluster.UnitStatus{
			Name: name, Workload: cluster.Active, Message: "Ready", Agent: "idle", Leader: i == 1,
			Instance: fmt.Sprintf("juju-%d", i), Address: fmt.Sprintf("10.0.3.%d", i),
		}
	}
	database := map[string]cluster.UnitStatus{"postgresql/0": {Name: "postgresql/0", Instance: "juju-9"}}
	return cluster.Status{Apps: map[string]cluster.AppStatus{"ci": {Units: units}, "postgresql": {Units: database}}}, nil
}

// serving is a machine with a web server.
func serving(context.Context, cluster.Machine, record.Thoroughness) (observation.Machine, error) {
	return observation.Machine{
		Services: []observation.Service{{Name: "concourse-server.service", State: "active"}},
		Secrets:  map[string]string{"config.env: PASSWORD": "correct horse"},
	}, nil
}

func recorder(o record.Options) (*record.Recorder, *scenario, *clustertest.Cluster) {
	s, c := &scenario{}, &clustertest.Cluster{Now: two, Results: map[string]map[string]string{
		"get-admin-password": {"username": "admin", "password": "battery staple"},
	}}
	o.T, o.Cluster, o.Mirror, o.Versions, o.Others = s, c, mirror{}, []string{"7.14.2"}, []string{"postgresql"}
	if o.Look == nil {
		o.Look = serving
	}
	if o.Version == nil {
		o.Version = func(context.Context, string) (string, error) { return "7.14.2", nil }
	}
	o.Settle = max(o.Settle, time.Nanosecond)
	return record.New(o), s, c
}

func TestObserve(t *testing.T) {
	var asked []string
	r, _, c := recorder(record.Options{
		Scenario: "auto",
		Version: func(_ context.Context, url string) (string, error) {
			asked = append(asked, url)
			return "7.14.2", nil
		},
	})
	c.Log = []cluster.LogLine{{Unit: "ci/0", Message: "hello"}}
	require.NoError(t, r.Cluster().Deploy(t.Context(), cluster.App{Name: "ci", Units: 2}))
	require.NoError(t, r.Cluster().Deploy(t.Context(), cluster.App{Name: "postgresql", Units: 1}))
	r.Workers(func(context.Context) ([]observation.Worker, error) {
		return []observation.Worker{{Name: "ci-1", State: "running"}}, nil
	})
	// No rule may be broken by what is seen here: it is not at rest.
	require.NoError(t, r.ObserveFailure(t.Context()))

	o := r.Record().Last()
	require.Len(t, o.Machines, 2, "the database's machine is none of ours")
	require.Equal(t, int64(100), o.Downloads["7.14.2"].Sent)
	require.Equal(t, []string{"http://10.0.3.1:8080"}, asked, "the leader is asked")
	require.Equal(t, "7.14.2", o.Web.Version)
	require.Equal(t, "ci-1", o.Web.Workers[0].Name)
	require.Equal(t, "ci", r.Record().App)
	require.Equal(t, "auto", r.Record().Scenario)
	require.Equal(t, c.Log, r.Record().Log)
	require.Equal(t, "correct horse", r.Secrets()["ci/0: config.env: PASSWORD"])
}

// What cannot be seen ends the scenario: rules judge what was seen only.
func TestMachineThatDoesNotAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broken := true
		r, s, _ := recorder(record.Options{Look: func(ctx context.Context, m cluster.Machine, how record.Thoroughness) (observation.Machine, error) {
			if broken && m.Unit() == "ci/0" {
				return observation.Machine{}, errors.New("no such program")
			}
			return observation.Machine{}, nil
		}})
		require.NoError(t, r.Cluster().Deploy(t.Context(), cluster.App{Name: "ci", Units: 2}))
		start := time.Now()
		require.PanicsWithValue(t, errEnded, func() { r.Observe(t.Context(), "deployment", false, "") })
		require.Equal(t, time.Minute, time.Since(start), "it is asked again for a while")
		require.Len(t, s.failures, 1)
		require.Contains(t, s.failures[0], "the machine of ci/0")
		require.Contains(t, s.failures[0], "no such program")

		require.NoError(t, r.ObserveFailure(t.Context()))
		require.Contains(t, r.Record().Last().Machines, "ci/1", "of a failure all is recorded that can be had")
		require.NotContains(t, r.Record().Last().Machines, "ci/0")
	})
}

func TestMachineThatIsDownOnPurpose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, s, _ := recorder(record.Options{Look: func(ctx context.Context, m cluster.Machine, how record.Thoroughness) (observation.Machine, error) {
			if m.Unit() == "ci/0" {
				<-ctx.Done()
				return observation.Machine{}, ctx.Err()
			}
			return observation.Machine{}, nil
		}})
		require.NoError(t, r.Cluster().Deploy(t.Context(), cluster.App{Name: "ci", Units: 2}))
		require.NoError(t, r.Cluster().Machine("ci/0").Freeze().Inject(t.Context()))
		start := time.Now()
		o := r.Observe(t.Context(), "freeze", false, "")
		require.Equal(t, 5*time.Second, time.Since(start), "it may hang")
		require.Empty(t, s.failures)
		require.Contains(t, o.Machines, "ci/1")
		require.NotContains(t, o.Machines, "ci/0")
	})
}

// Every byte is read once where all units share one volume, and at rest only.
func TestDeepLook(t *testing.T) {
	var deep []string
	r, _, _ := recorder(record.Options{Look: func(_ context.Context, m cluster.Machine, how record.Thoroughness) (observation.Machine, error) {
		if how == record.Deep {
			deep = append(deep, m.Unit())
		}
		return observation.Machine{}, nil
	}})
	require.NoError(t, r.Cluster().Deploy(t.Context(), cluster.App{Name: "ci", Units: 2}))
	r.Observe(t.Context(), "deployment", false, "")
	require.Empty(t, deep)
	func() {
		defer func() { _ = recover() }() // The machines are empty: rules are broken at rest.
		r.Observe(t.Context(), "deployment", true, "")
	}()
	require.Equal(t, []string{"ci/0"}, deep)
}

// Who waits sees a broken rule, and no more than that a machine does not answer.
func TestGlance(t *testing.T) {
	var m observation.Machine
	r, s, _ := recorder(record.Options{Look: func(_ context.Context, machine cluster.Machine, how record.Thoroughness) (observation.Machine, error) {
		require.Equal(t, record.Quick, how)
		if machine.Unit() == "ci/1" {
			return m, errors.New("it hangs")
		}
		return m, nil
	}})
	require.NoError(t, r.Cluster().Deploy(t.Context(), cluster.App{Name: "ci", Units: 2}))
	require.Empty(t, r.Glance(t.Context(), "waiting"))
	require.Len(t, r.Record().Observations, 1)
	m.Panics = []string{"panic: oh"}
	broken := r.Glance(t.Context(), "waiting")
	require.Len(t, broken, 1)
	require.Equal(t, "no-panic", broken[0].Rule)
	require.Empty(t, s.failures, "the scenario ends itself")
	require.PanicsWithValue(t, errEnded, func() { r.Fail(broken) })

	settles := brokenFor(1, judge.Rule{Settles: "It takes time."})
	r, _, _ = recorder(record.Options{Rules: []judge.Rule{settles}})
	require.Empty(t, r.Glance(t.Context(), "waiting"), "it may settle until the cluster is at rest")
}

func TestBrokenRulesEndTheScenario(t *testing.T) {
	r, s, _ := recorder(record.Options{})
	rule := judge.Rule{Name: "one-download", Broken: func(observation.Record) []string { return []string{"twice", "thrice"} }}
	require.PanicsWithValue(t, errEnded, func() { r.Judge(rule) })
	require.Equal(t, []string{"one-download: twice", "one-download: thrice"}, s.failures)
	require.Equal(t, []judge.Violation{{Rule: "one-download", Text: "twice"}, {Rule: "one-download", Text: "thrice"}}, r.Violations())

	r, s, _ = recorder(record.Options{})
	r.Judge(judge.Rule{Name: "one-download", Broken: func(observation.Record) []string { return nil }})
	r.Demand("undisturbed", nil)
	require.Empty(t, s.failures)
	require.PanicsWithValue(t, errEnded, func() { r.Demand("undisturbed", []string{"ci/0 was restarted"}) })
	require.Equal(t, []string{"undisturbed: ci/0 was restarted"}, s.failures)
}

func TestActs(t *testing.T) {
	r, _, inner := recorder(record.Options{})
	c, ctx := r.Cluster(), t.Context()
	volume, err := c.NewVolume(ctx, "2GiB")
	require.NoError(t, err)
	require.NoError(t, c.Deploy(ctx, cluster.App{Name: "ci", Units: 3, Volume: volume, Config: map[string]string{"mode": "auto", "add-local-user": "me:hunter2"}, Storage: map[string]string{"data": "10G"}}), "the cluster gets its own volume")
	_, err = c.AddUnits(ctx, "ci", 1)
	require.NoError(t, err)
	require.NoError(t, c.Configure(ctx, "ci", map[string]string{"version": "7.14.3"}))
	results, err := c.RunAction(ctx, "ci/0", "get-admin-password", map[string]any{"wait": 1})
	require.NoError(t, err)
	require.Equal(t, "battery staple", results["password"])
	require.NoError(t, c.Integrate(ctx, "ci", "postgresql"))
	require.NoError(t, c.RemoveUnit(ctx, "ci/1"))
	storage, err := c.Storage(ctx, "ci/0")
	require.NoError(t, err)
	require.NoError(t, storage.Attach(ctx, "ci/2"))
	_, err = c.AddUnitWithStorage(ctx, "ci", storage.ID)
	require.NoError(t, err)
	require.NoError(t, c.RemoveStorage(ctx, "data/1"))
	require.NoError(t, volume.Detach(ctx, "ci/0"))
	r.Mirror().Break("7.14.3", cluster.WebPage)

	var acts []string
	for _, a := range r.Record().Acts {
		acts = append(acts, a.Name)
	}
	require.Equal(t, []string{
		"deploy ci: 3 units, add-local-user=… mode=auto, data=10G",
		"add 1 units to ci",
		"configure ci, version=7.14.3",
		"run get-admin-password on ci/0, wait=1",
		"relate ci with postgresql",
		"remove ci/1",
		"attach the volume volume to ci/2",
		"add a unit with the storage data/0 to ci",
		"remove the storage data/1",
		"detach the volume volume from ci/0",
		"break the mirror for 7.14.3: a web page instead",
	}, acts)
	require.Contains(t, strings.Join(inner.Calls(), "\n"), "run get-admin-password on ci/0", "it is done, too")
	require.Equal(t, map[string]string{"get-admin-password: password": "battery staple"}, r.Record().Secrets, "a name is no secret")
}

func TestFaults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, _, inner := recorder(record.Options{})
		ctx := t.Context()
		stop := r.Cluster().Machine("ci/0").Stop()
		require.Empty(t, r.Record().Faults, "it does nothing by itself")
		require.NoError(t, stop.Inject(ctx))
		began := time.Now().UTC()
		require.Equal(t, []observation.Fault{{Name: "machine of ci/0 stopped", Units: []string{"ci/0"}, Begin: began}}, r.Record().Faults)
		require.Equal(t, []string{"ci/0"}, r.Down())

		time.Sleep(time.Minute)
		require.NoError(t, stop.Heal(ctx))
		require.Equal(t, began.Add(time.Minute), r.Record().Faults[0].End)
		require.Equal(t, []string{"ci/0"}, r.Down(), "it boots")
		time.Sleep(3 * time.Minute)
		require.Empty(t, r.Down())

		kill := r.Cluster().Machine("ci/1").Kill("concourse-worker.service")
		require.Nil(t, kill.Heal)
		require.NoError(t, kill.Inject(ctx))
		require.False(t, r.Record().Faults[1].End.IsZero(), "it is over at once")
		require.Empty(t, r.Down(), "its machine is up")

		require.NoError(t, stop.Inject(ctx), "a fault can be injected again")
		require.Len(t, r.Record().Faults, 3)
		require.True(t, r.Record().Faults[2].End.IsZero())
		require.Contains(t, inner.Calls(), "inject machine of ci/0 stopped")
	})
}

// A fault may have happened also if its injection failed.
func TestFaultThatFails(t *testing.T) {
	r, _, _ := recorder(record.Options{})
	failed := errors.New("LXD does not answer")
	fails := func(context.Context) error { return failed }
	f := r.Fault(cluster.Fault{Name: "bridge down", Units: []string{"ci/0", "ci/1"}, Inject: fails, Heal: fails})
	require.ErrorIs(t, f.Inject(t.Context()), failed)
	require.Len(t, r.Record().Faults, 1)
	require.ErrorIs(t, f.Heal(t.Context()), failed)
	require.True(t, r.Record().Faults[0].End.IsZero())
}

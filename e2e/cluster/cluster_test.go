package cluster_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/cluster"
)

// units are those of one application, each by "WORKLOAD MESSAGE".
func units(states ...string) cluster.Status {
	app := cluster.AppStatus{Units: map[string]cluster.UnitStatus{}}
	for i, state := range states {
		workload, message, _ := strings.Cut(state, " ")
		name := fmt.Sprintf("ci/%d", i)
		app.Units[name] = cluster.UnitStatus{Name: name, Workload: workload, Message: message, Agent: "idle", Leader: i == 0}
	}
	return cluster.Status{Apps: map[string]cluster.AppStatus{"ci": app}}
}

// with returns the status with one unit changed.
func with(s cluster.Status, name string, change func(*cluster.UnitStatus)) cluster.Status {
	u, _ := s.Unit(name)
	change(&u)
	s.Apps["ci"].Units[name] = u
	return s
}

// lost is a unit with a lost agent.
func lost(workload string) cluster.Status {
	return with(units(workload), "ci/0", func(u *cluster.UnitStatus) { u.Agent = "lost" })
}

func TestUnitsAreOrderedByNumber(t *testing.T) {
	states := make([]string, 11)
	for i := range states {
		states[i] = "active x"
	}
	got := units(states...).Units("ci")
	require.Equal(t, "ci/2", got[2].Name)
	require.Equal(t, "ci/10", got[10].Name)
}

func TestChanges(t *testing.T) {
	machine := func(s cluster.Status, instance, agent, message string) cluster.Status {
		s.Machines = map[string]cluster.MachineStatus{"0": {Instance: instance, Agent: agent, Message: message}}
		return s
	}
	for name, test := range map[string]struct {
		prev, next cluster.Status
		want       []string
	}{
		"nothing":             {units("active a"), units("active a"), nil},
		"what a unit says":    {units("waiting a", "active c"), units("active b", "active c"), []string{`ci/0* is active "b"`}},
		"a unit goes":         {units("active a", "active c"), units("active a"), []string{"ci/1 is gone"}},
		"a unit comes":        {units("active a"), units("active a", "waiting b"), []string{`ci/1 is waiting "b"`}},
		"an agent works":      {units("active a"), with(units("active a"), "ci/0", func(u *cluster.UnitStatus) { u.Agent = "executing" }), nil},
		"an agent is lost":    {units("active a"), lost("active a"), []string{`ci/0* is active "a", agent lost`}},
		"a leader":            {units("active a", "active a"), with(units("active a", "active a"), "ci/1", func(u *cluster.UnitStatus) { u.Leader = true }), []string{`ci/1* is active "a"`}},
		"a machine is made":   {machine(units("active a"), "allocating", "pending", "making it"), machine(units("active a"), "running", "started", "made"), nil},
		"a machine is down":   {machine(units("active a"), "running", "started", ""), machine(units("active a"), "running", "down", ""), []string{"machine 0 is running, agent down"}},
		"a machine is up":     {machine(units("active a"), "running", "down", ""), machine(units("active a"), "running", "started", ""), []string{"machine 0 is well, or gone"}},
		"a machine is broken": {machine(units("active a"), "allocating", "pending", ""), machine(units("active a"), "provisioning error", "pending", "no space"), []string{"machine 0 is provisioning error, agent pending: no space"}},
	} {
		t.Run(name, func(t *testing.T) { require.Equal(t, test.want, cluster.Changes(test.prev, test.next)) })
	}
}

func TestExactlyOnce(t *testing.T) {
	cases := map[string]struct {
		transfer cluster.Transfer
		want     bool
	}{
		"once":           {cluster.Transfer{Size: 100, Sent: 100, Distinct: 100}, true},
		"never":          {cluster.Transfer{}, false},
		"in part":        {cluster.Transfer{Size: 100, Sent: 60, Distinct: 60}, false},
		"twice":          {cluster.Transfer{Size: 100, Sent: 200, Distinct: 100}, false},
		"a hole covered": {cluster.Transfer{Size: 100, Sent: 100, Distinct: 90}, false},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) { require.Equal(t, tc.want, tc.transfer.ExactlyOnce()) })
	}
}

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
	require.Equal(t,
		[]string{`ci/0*: active "b", agent idle, machine  `, "- ci/1"},
		cluster.Changes(units("waiting a", "active c"), units("active b")))
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

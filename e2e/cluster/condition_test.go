package cluster_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/cluster"
)

func TestConditions(t *testing.T) {
	cases := map[string]struct {
		condition cluster.Condition
		status    cluster.Status
		missing   string
	}{
		"message":                {cluster.UnitsAre("ci", 2, cluster.Active, "v2"), units("active v2", "active v1"), "ci/1"},
		"any active":             {cluster.AnyActive("ci"), units("waiting x", "active y"), ""},
		"none active":            {cluster.AnyActive("ci"), units("waiting x"), "no unit"},
		"gone":                   {cluster.Gone("ci/1"), units("active x"), ""},
		"not gone":               {cluster.Gone("ci/0"), units("active x"), "still there"},
		"unit unknown":           {cluster.UnitIs("ci/9", cluster.Active, ""), units("active x"), "no such unit"},
		"unit terminated":        {cluster.UnitIs("ci/0", cluster.Active, ""), units("terminated"), "cannot come true any more"},
		"blocked":                {cluster.Blocked("ci/0", "digest", "mirror"), units("blocked Digest differs: check the mirror"), ""},
		"blocked, no advice":     {cluster.Blocked("ci/0", "digest", "mirror"), units("blocked Digest differs"), "not blocked"},
		"blocked, no reason":     {cluster.Blocked("ci/0", "digest"), units("blocked something"), "not blocked"},
		"waiting is not blocked": {cluster.Blocked("ci/0", "digest"), units("waiting digest"), "not blocked"},
		"waiting":                {cluster.WaitingFor("ci/0", "database"), units("waiting Waiting for the database"), ""},
		"blocked is not waiting": {cluster.WaitingFor("ci/0", "database"), units("blocked no database"), "not waiting"},
		"waiting, terminated":    {cluster.WaitingFor("ci/0", "database"), units("terminated"), "cannot come true any more"},
		"all":                    {cluster.All(cluster.AllActive("ci", 1), cluster.Idle("ci")), units("active x"), ""},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			err := tc.condition(tc.status)
			if tc.missing == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, tc.missing)
		})
	}
}

func TestFailed(t *testing.T) {
	require.NoError(t, cluster.Failed(units("active x", "blocked y")))
	require.NoError(t, cluster.Failed(lost("active")), "it may come back")
	require.ErrorContains(t, cluster.Failed(units("error hook failed: install")), "hook failed: install")
	machine := units("waiting for machine")
	machine.Machines = map[string]cluster.MachineStatus{"0": {Instance: "provisioning error", Message: "no image"}}
	require.ErrorContains(t, cluster.Failed(machine), "no image")
}

func TestLost(t *testing.T) {
	require.Equal(t, []string{"ci/0"}, cluster.Lost(lost("active")))
	require.Empty(t, cluster.Lost(lost("terminated")), "a removed unit loses its agent in the normal course")
	require.Empty(t, cluster.Lost(units("active x")))
}

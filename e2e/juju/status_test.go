package juju

import (
	"testing"
	"time"

	"github.com/juju/juju/rpc/params"
	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/cluster"
)

func TestTyped(t *testing.T) {
	since := time.Now()
	full := &params.FullStatus{
		Machines: map[string]params.MachineStatus{
			"0": {AgentStatus: params.DetailedStatus{Status: "started"}, InstanceStatus: params.DetailedStatus{Status: "running", Info: "Running"}, InstanceId: "juju-abcdef-0"},
			"1": {AgentStatus: params.DetailedStatus{Status: "pending"}, InstanceStatus: params.DetailedStatus{Status: "allocating", Info: "Retrieving image: 42%"}, InstanceId: "pending"},
			"2": {InstanceStatus: params.DetailedStatus{Status: "provisioning error", Info: "no image"}, InstanceId: "pending"},
		},
		Applications: map[string]params.ApplicationStatus{"ci": {Units: map[string]params.UnitStatus{
			"ci/0": {
				AgentStatus:    params.DetailedStatus{Status: "idle"},
				WorkloadStatus: params.DetailedStatus{Status: "active", Info: "Ready", Since: &since},
				Machine:        "0", PublicAddress: "10.0.0.2", Leader: true,
			},
			"ci/1": {Machine: "1"},
		}}},
	}
	s := typed(full)
	leader, ok := s.Leader("ci")
	require.True(t, ok)
	require.Equal(t, cluster.UnitStatus{
		Name: "ci/0", Workload: "active", Message: "Ready", Since: since, Agent: "idle",
		Leader: true, Machine: "0", Instance: "juju-abcdef-0", Address: "10.0.0.2",
	}, leader)
	waiting, _ := s.Unit("ci/1")
	require.Empty(t, waiting.Instance, "an instance that is not made yet")
	require.Empty(t, s.Machines["1"].Message, "percents are noise")
	require.ErrorContains(t, cluster.Failed(s), "no image")
}

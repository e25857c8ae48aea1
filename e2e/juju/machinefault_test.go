package juju

import (
	"testing"

	"github.com/canonical/lxd/shared/api"
	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/cluster"
)

func TestFaultsSayWhatHappensToWhom(t *testing.T) {
	m := (&Cluster{}).Machine("ci/0")
	v := &volume{cluster: &Cluster{volumeAt: map[string]*volume{}}, name: "v"}
	v.cluster.volumeAt["ci/1"], v.cluster.volumeAt["ci/0"], v.cluster.volumeAt["ci/2"] = v, v, &volume{}
	for name, fault := range map[string]cluster.Fault{
		"concourse-worker of ci/0 killed":         m.Kill("concourse-worker"),
		"machine of ci/0 stopped":                 m.Stop(),
		"machine of ci/0 frozen":                  m.Freeze(),
		"network of ci/0 cut off":                 m.CutOff(),
		"port 2222 kept from the machine of ci/0": m.BlockPort(2222),
		"volume v of ci/0 lost":                   v.Lost("ci/0"),
		"volume v of ci/0 read-only":              v.ReadOnly("ci/0"),
	} {
		require.Equal(t, name, fault.Name)
		require.Equal(t, []string{"ci/0"}, fault.Units)
		require.NotNil(t, fault.Inject)
	}
	for name, fault := range map[string]cluster.Fault{
		"concourse-server of ci/0 killed":          m.Kill("concourse-server"),
		"Juju's agent of ci/0 stopped":             m.StopAgent(),
		"Juju's agent of ci/0 frozen":              m.FreezeAgent(),
		"table jobs on the machine of ci/0 locked": m.LockTable("ci", "jobs"),
	} {
		require.Equal(t, name, fault.Name)
		require.Empty(t, fault.Units, "it costs no build")
	}
	require.Nil(t, m.Kill("x").Heal, "systemd starts it again, or does not")
	require.Equal(t, []string{"ci/0", "ci/1"}, v.Full(1).Units)
}

func TestAddresses(t *testing.T) {
	address := func(family, scope, a string) api.InstanceStateNetworkAddress {
		return api.InstanceStateNetworkAddress{Family: family, Scope: scope, Address: a}
	}
	state := &api.InstanceState{Network: map[string]api.InstanceStateNetwork{
		"lo": {Addresses: []api.InstanceStateNetworkAddress{address("inet", "local", "127.0.0.1")}},
		"eth0": {HostName: "veth1", Addresses: []api.InstanceStateNetworkAddress{
			address("inet", "global", "10.0.0.2"), address("inet6", "global", "fd00::2"), address("inet6", "link", "fe80::1"),
		}},
		"eth1":       {HostName: "veth2"},
		"concourse0": {Addresses: []api.InstanceStateNetworkAddress{address("inet", "global", "10.80.0.1")}},
	}}
	have := interfaceAddresses(state)
	require.Equal(t, map[string][]string{"eth0": {"10.0.0.2"}, "eth1": nil}, have)
	require.True(t, containsAddresses(have, map[string][]string{"eth0": {"10.0.0.2"}}))
	require.False(t, containsAddresses(have, map[string][]string{"eth0": {"10.0.0.3"}}))
	require.False(t, containsAddresses(map[string][]string{"eth0": nil}, have))
	require.True(t, containsAddresses(have, nil))
}

func TestMachineNumber(t *testing.T) {
	const uuid = "8a0e5a34-0000-0000-0000-000000abcdef"
	number, err := machineNumber(uuid, "juju-abcdef-12")
	require.NoError(t, err)
	require.Equal(t, "12", number)
	for _, other := range []string{"juju-123456-0", "juju-abcdef-", "web"} {
		_, err := machineNumber(uuid, other)
		require.ErrorContains(t, err, "not named")
	}
}

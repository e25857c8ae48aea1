package scenarios

import (
	"context"
	"fmt"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/cluster"
)

// DNS has a build resolve a name on a machine whose own resolver is a stub on a loopback
// address, as on a stock Ubuntu: no container can reach it.
func DNS(ctx context.Context, t T, c cluster.Cluster, in Inputs) {
	r := begin(ctx, t, c, in, "")
	deployed := r.deployed(2)
	worker := unitsBut(deployed, r.server(deployed))[0]
	resolver, err := c.Machine(worker).Exec(ctx, "cat", "/etc/resolv.conf")
	require.NoError(t, err)
	require.Contains(t, resolver, "nameserver 127.0.0.53", "the machine's resolver is no stub")
	u, _ := deployed.Unit(worker)

	b := r.fly.task(ctx, "nslookup "+u.Instance+".lxd", 30*time.Second, func(string) {})
	in.Record.Build(b)
	if b.Result != "succeeded" {
		r.demand("resolves-names", []string{fmt.Sprintf("a build that resolves a name: %q: %s", b.Result, b.Output)})
	}
}

package scenarios

import (
	"context"
	"fmt"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/cluster"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/judge"
)

// DNS gives a worker's machine the resolver of a stock Ubuntu, a stub on the loopback
// address that no container can reach. Builds resolve names all the same.
func DNS(ctx context.Context, t T, c cluster.Cluster, in Inputs) {
	r := begin(ctx, t, c, in, "")
	deployed := r.deployed(2)
	before := in.Record.Record().Last()
	r.quiet() // the worker is started anew
	worker := unitsBut(deployed, r.server(deployed))[0]
	u, _ := deployed.Unit(worker)

	r.during(c.Machine(worker).StubResolver(), func() {
		require.NoError(t, cluster.Poll(ctx, "another process of the worker", time.Second, patience, func(ctx context.Context) (bool, error) {
			now := in.Record.Observe(ctx, "the worker's machine with a stub resolver", false, "")
			return len(judge.Restarted(before, now, worker)) == 0, nil
		}))
		r.active(2, in.From.Version)
		r.atRest("a stub resolver", in.From.Version)
		b := r.fly.task(ctx, "nslookup "+u.Instance+".lxd", 30*time.Second, func(string) {})
		in.Record.Build(b)
		r.demand("resolves-names", unlessSucceeded(b.Result, b.Output))
	})
}

func unlessSucceeded(result, output string) []string {
	if result == "succeeded" {
		return nil
	}
	return []string{fmt.Sprintf("a build that resolves a name: %q: %s", result, output)}
}

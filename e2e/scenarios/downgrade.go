package scenarios

import (
	"context"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/cluster"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/judge"
)

// Downgrade asks for a release of four years before. It is refused, or jobs run on it.
func Downgrade(ctx context.Context, t T, c cluster.Cluster, in Inputs) {
	r := begin(ctx, t, c, in, "")
	deployed := r.deployed(2)
	leader := r.leader(deployed)
	require.NoError(t, r.fly.jobs(ctx))
	in.Record.Build(r.fly.job(ctx))
	in.Record.Judge(judge.Always()...)

	r.quiet()
	refused := cluster.Blocked(leader, in.Old.Version)
	held := r.phase("downgrade made or refused", 0, func() cluster.Held {
		require.NoError(t, r.upgrade(leader, in.Old.Version))
		return r.wait("the downgrade to be made or refused", func(s cluster.Status) error {
			if refused(s) == nil {
				return nil
			}
			return cluster.UnitsAre(app, 2, cluster.Active, "v"+in.Old.Version)(s)
		})
	})
	if refused(held.Status) == nil {
		return
	}
	r.login(r.atRest("downgrade", in.Old.Version), in.Old)
	in.Record.Build(r.fly.job(ctx))
	in.Record.Judge(judge.Always()...)
}

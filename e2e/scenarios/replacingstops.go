package scenarios

import (
	"context"
	"strings"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/cluster"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/judge"
)

// ReplacingStops sets an option with which no worker starts: on a stock Ubuntu the machine's
// own resolver has the port of Concourse's. The first worker that is replaced is the last, and
// the leader says whose it is. The others run builds, and all do without the option.
func ReplacingStops(ctx context.Context, t T, c cluster.Cluster, in Inputs) {
	const option = "containerd-dns-proxy-enable"
	r := begin(ctx, t, c, in, "")
	deployed := r.deployed(3)
	leader := r.leader(deployed)
	before := in.Record.Record().Last()
	stopped := r.phase("replacing the workers stops", 0, func() cluster.Held {
		r.configure(option, "true")
		return r.wait("the leader's word", cluster.Blocked(leader, "has stopped at 0 of 2", "remove the unit"))
	})
	var left []string
	for _, unit := range unitsBut(deployed, r.server(deployed)) {
		if u, _ := stopped.Status.Unit(unit); u.Workload == cluster.Active || strings.HasPrefix(u.Message, "Waiting for its turn") {
			left = append(left, unit)
		}
	}
	require.Len(t, left, 1, "one worker is away:\n%s", stopped.Status)
	r.buildOn("a build on the worker that is left", workerNames(left))
	r.aMoment(time.Minute)
	now := in.Record.Observe(ctx, "replacing the workers stops", false, "")
	if len(judge.Restarted(before, now, left...)) == 0 {
		r.demand("stops-where-it-fails", []string{"the worker of " + left[0] + " was replaced, though the one before it does not run"})
	}
	r.phase("the option taken back", time.Minute, func() cluster.Held {
		r.configure(option, "false")
		return r.active(3, in.From.Version)
	})
	r.atRest("the option taken back", in.From.Version)
	r.buildOn("a build on every worker", workersOf(deployed))
}

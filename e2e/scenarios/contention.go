package scenarios

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/cluster"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/judge"
)

// Contention starts three units at the same time against a mirror that holds, and then
// changes an option of all at once. One of them gets the download lock, the others wait
// for it, and the log says who acquired and released it.
func Contention(ctx context.Context, t T, c cluster.Cluster, in Inputs) {
	r := begin(ctx, t, c, in, "")
	in.Mirror.Break(in.From.Version, cluster.MirrorFault{Name: "held in the middle", Hold: held})
	r.deploy(3, nil)
	r.underWay(in.From.Version)
	r.wait("one unit to download and two to wait", func(s cluster.Status) error {
		var downloading, waiting int
		for _, u := range s.Units(app) {
			switch {
			case strings.HasPrefix(u.Message, "Downloading Concourse CI"):
				downloading++
			case strings.HasPrefix(u.Message, "Waiting for binaries"):
				waiting++
			}
		}
		return expected("units that download, and that wait", [2]int{1, 2}, [2]int{downloading, waiting})
	})
	in.Mirror.Repair(in.From.Version)
	r.phase("three units active after the mirror went on", clusterTarget, func() cluster.Held { return r.active(3, in.From.Version) })
	o := r.atRest("three units that began together", in.From.Version)

	lock := "the download lock for v" + in.From.Version
	logged := map[string]int{}
	for _, line := range in.Record.Record().Log {
		for _, verb := range []string{"Acquired", "Waiting for", "Released"} {
			if strings.Contains(line.Message, verb+" "+lock) {
				logged[verb]++
			}
		}
	}
	require.Equal(t, map[string]int{"Acquired": 1, "Waiting for": 2, "Released": 1}, logged, "lines about the lock")

	r.login(o, in.From)
	r.quiet() // all services restart
	r.configure("log-level", "debug")
	require.NoError(t, cluster.Poll(ctx, "all services with another log level", time.Second, patience, func(ctx context.Context) (bool, error) {
		now := in.Record.Observe(ctx, "an option being changed", false, "")
		if missing := judge.Restarted(o, now, unitsBut(o.Status)...); len(missing) > 0 {
			return false, errors.New(strings.Join(missing, "; "))
		}
		return true, nil
	}))
	r.active(3, in.From.Version)
	r.atRest("an option changed on all units", in.From.Version)
	r.buildOn("a build on every worker", workersOf(o.Status))
}

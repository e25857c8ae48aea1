package scenarios

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/cluster"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/judge"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/observation"
)

// AddUnit adds two units at once while the first one downloads, then one more to a
// cluster that runs. Nobody but the first unit downloads anything.
func AddUnit(ctx context.Context, t T, c cluster.Cluster, in Inputs) {
	r := begin(ctx, t, c, in, "")
	in.Mirror.Break(in.From.Version, cluster.MirrorFault{Name: "held in the middle", Hold: held})
	r.deploy(1, nil)
	r.underWay(in.From.Version)
	_, err := c.AddUnits(ctx, app, 2)
	require.NoError(t, err)
	r.wait("two more units to wait for the download", cluster.All(
		cluster.UnitIs(app+"/1", cluster.Maintenance, "Waiting for binaries"),
		cluster.UnitIs(app+"/2", cluster.Maintenance, "Waiting for binaries"),
	))
	in.Mirror.Repair(in.From.Version)
	r.phase("three units active after the mirror went on", clusterTarget, func() cluster.Held { return r.active(3, in.From.Version) })
	three := r.atRest("two units added during a download", in.From.Version)
	r.noteStart(three)
	r.login(three, in.From)

	var added []string
	fourth := r.phase("fourth unit active", newUnitTarget, func() cluster.Held {
		added, err = c.AddUnits(ctx, app, 1)
		require.NoError(t, err)
		return r.active(4, in.From.Version)
	})
	four := r.atRest("a unit added to a running cluster", in.From.Version)
	r.demand("undisturbed", judge.Undisturbed(three, four, added...))
	r.noteRegistration(four, added[0], fourth.Since)
	r.buildOn("a build on every worker", workersOf(four.Status))
}

// noteStart notes how long the web server took to be started once the release was there.
func (r *run) noteStart(o observation.Observation) {
	r.Helper()
	server := r.server(o.Status)
	out, err := r.c.Machine(server).Exec(r.ctx, "stat", "--format=%.3Z", "/var/lib/concourse/releases/"+r.in.From.Version)
	require.NoError(r, err)
	published, err := strconv.ParseFloat(strings.TrimSpace(out), 64)
	require.NoError(r, err)
	service, ok := o.Machines[server].Service("concourse-server.service")
	require.True(r, ok)
	took := service.Started.Sub(time.UnixMilli(int64(published * 1000)))
	r.in.Report.Note("release published to web server started", "%s", took)
}

// noteRegistration notes how long an added unit took until it was registered, and how much
// of that passed after its agent wrote its first line: the charm's share is in that.
func (r *run) noteRegistration(o observation.Observation, unit string, registered time.Time) {
	r.Helper()
	log := r.in.Record.Record().Log
	first := slices.IndexFunc(log, func(l cluster.LogLine) bool { return l.Unit == unit })
	require.GreaterOrEqual(r, first, 0, "%s has logged nothing", unit)
	const tenth = 100 * time.Millisecond
	r.in.Report.Note("machine started to worker registered", "%s, of that %s since its agent runs",
		registered.Sub(o.Machines[unit].Started).Round(tenth), registered.Sub(log[first].Time).Round(tenth))
}

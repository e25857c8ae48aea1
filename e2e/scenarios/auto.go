package scenarios

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/cluster"
)

// Targets of the original order, for a cluster with shared storage.
const (
	firstUnitTarget = 3 * time.Minute
	clusterTarget   = 5 * time.Minute
	newUnitTarget   = 3 * time.Minute
	upgradeTarget   = 2 * time.Minute
)

// diskFactor is how much more than one installed release the whole cluster may
// occupy, workers' own state apart.
const diskFactor = 1.15

// buildsPerWorker bounds the attempts to get a build onto every worker.
// Concourse chooses among equal workers by chance: with three of them, one is
// missed by 36 builds once in a million runs.
const buildsPerWorker = 12

// logDelay is how long a line may take from a unit to the debug-log.
const logDelay = 30 * time.Second

// Auto deploys three units with mode=auto on one volume, upgrades them, adds a
// fourth and removes it. Each release is downloaded once, and real builds run
// on every worker all along.
func Auto(ctx context.Context, t T, c cluster.Cluster, in Inputs) {
	r := &run{T: t, ctx: ctx, c: c, in: in}
	from, to := in.From, in.To

	start := time.Now()
	require.NoError(t, c.Deploy(ctx, cluster.App{Name: app, Charm: in.Charm, Units: 3, Config: in.config(), Shared: true}))
	require.NoError(t, c.Deploy(ctx, in.Database))
	require.NoError(t, c.Integrate(ctx, app+":postgresql", in.Database.Name+":database"))
	r.wait("the first unit", 10*time.Minute, cluster.AnyActive(app))
	in.Report.Add("first unit active, release downloaded", time.Since(start), firstUnitTarget, nil)
	status := r.wait("three units on "+from.Version, 10*time.Minute, cluster.UnitsAre(app, 3, cluster.Active, "v"+from.Version))
	in.Report.Add("three units active", time.Since(start), clusterTarget, nil)

	r.oneDownload(from.Version)
	r.oneVolume(status, from.Version)
	r.diskUse(status, from)
	r.answersWith(status, from.Version)
	f := r.login(status, from)
	r.workersRunning(f, workersOf(status))
	r.timed("a build on every worker", 0, func() { r.buildEverywhere(f, workersOf(status)) })

	leader, ok := status.Leader(app)
	require.True(t, ok, "no leader:\n%s", status)
	r.timed("upgrade to "+to.Version, upgradeTarget, func() {
		_, err := c.RunAction(ctx, leader.Name, "upgrade", map[string]any{"version": to.Version})
		require.NoError(t, err)
		status = r.wait("three units on "+to.Version, 10*time.Minute, cluster.UnitsAre(app, 3, cluster.Active, "v"+to.Version))
	})
	r.oneDownload(from.Version)
	r.oneDownload(to.Version)
	r.oneVolume(status, to.Version)
	r.answersWith(status, to.Version)
	f = r.login(status, to)
	r.workersRunning(f, workersOf(status))
	r.timed("a build on every worker after the upgrade", 0, func() { r.buildEverywhere(f, workersOf(status)) })

	var added []string
	r.timed("fourth unit active", newUnitTarget, func() {
		var err error
		added, err = c.AddUnits(ctx, app, 1)
		require.NoError(t, err)
		require.Len(t, added, 1)
		status = r.wait("the fourth unit", 10*time.Minute, cluster.UnitsAre(app, 4, cluster.Active, "v"+to.Version))
	})
	r.oneDownload(to.Version)
	r.oneVolume(status, to.Version)
	r.workersRunning(f, workersOf(status))
	r.timed("a build on every worker with the fourth", 0, func() { r.buildEverywhere(f, workersOf(status)) })

	r.remove(f, status, added[0])
	r.oneDownload(from.Version)
	r.oneDownload(to.Version)
	for _, missed := range in.Report.Missed() {
		t.Errorf("%s took %s, longer than its target of %s", missed.Name, missed.Took.Round(time.Second), missed.Target)
	}
}

// timed records a phase; one whose assertions end the scenario is recorded too.
func (r *run) timed(name string, target time.Duration, phase func()) {
	r.Helper()
	err := fmt.Errorf("%s did not end", name)
	start := time.Now()
	defer func() { r.in.Report.Add(name, time.Since(start), target, err) }()
	phase()
	err = nil
}

// oneDownload demands of the mirror's ledger that every byte of the release
// was sent exactly once, and of the units' logs that they tell the same.
func (r *run) oneDownload(version string) {
	r.Helper()
	transfer := r.in.Mirror.Transfer(version)
	require.True(r, transfer.ExactlyOnce(), "release %s was not downloaded exactly once: %s", version, transfer)

	text := "Downloading Concourse binaries v" + version
	var said []cluster.LogLine
	for deadline := time.Now().Add(logDelay); len(said) == 0 && time.Now().Before(deadline); time.Sleep(time.Second) {
		lines, err := r.c.DebugLog(r.ctx)
		require.NoError(r, err)
		for _, l := range lines {
			if strings.Contains(l.Message, text) {
				said = append(said, l)
			}
		}
	}
	require.Len(r, said, 1, "the debug-log has %q other than once", text)
	r.in.Report.Note("downloads of "+version, "1 (%s; logged by %s)", transfer, said[0].Unit)
}

// oneVolume demands that all units see the same file system, the same binary
// and the same version, and that each has a directory of its own.
func (r *run) oneVolume(status cluster.Status, version string) {
	r.Helper()
	probe := strings.Join([]string{
		"stat -f -c %i " + root,
		"stat -L -c %i " + root + "/bin/concourse",
		"cat " + root + "/.installed_version; echo",
	}, "; ")
	views := map[string][]string{}
	for _, u := range status.Units(app) {
		view := strings.Join(strings.Fields(r.exec(u.Name, probe)), " ")
		views[view] = append(views[view], u.Name)
	}
	require.Len(r, views, 1, "units see different volumes (file system, inode, version): %v", views)
	for view := range views {
		require.True(r, strings.HasSuffix(view, " "+version), "the volume's version is not %s: %s", version, view)
		r.in.Report.Note(fmt.Sprintf("volume of %d units at %s", len(status.Units(app)), version), "one: file system, inode of bin/concourse, version: %s", view)
	}
	leader, _ := status.Leader(app)
	dirs := strings.Fields(r.exec(leader.Name, "ls "+root+"/worker"))
	require.ElementsMatch(r, dashed(status.Units(app)), dirs, "directories under worker/")
}

// diskUse demands that the cluster holds one copy of the release.
func (r *run) diskUse(status cluster.Status, release Release) {
	r.Helper()
	leader, _ := status.Leader(app)
	total := r.du(leader.Name, "--exclude="+root+"/worker", root)
	for _, u := range status.Units(app) {
		total += r.du(u.Name, "/var/lib/concourse-ci-machine", "/opt", "/usr/local")
		copies := r.exec(u.Name, "find / -xdev -type f -size +30M -name 'concourse*' -not -path '/proc/*' -not -path '/var/lib/juju/*'")
		require.Empty(r, copies, "%s has a copy of its own", u.Name)
	}
	factor := float64(total) / float64(release.Installed)
	r.in.Report.Note("disk use", "%.0f MB for a release of %.0f MB: %.2f times", float64(total)/1e6, float64(release.Installed)/1e6, factor)
	require.LessOrEqual(r, factor, diskFactor, "disk use of volume and units, in installed releases")
}

// du returns the bytes that the paths occupy on their own file systems.
func (r *run) du(unit string, paths ...string) int64 {
	r.Helper()
	out := strings.Fields(r.exec(unit, "du --summarize --one-file-system --total --block-size=1 "+strings.Join(paths, " ")+" 2>/dev/null | tail -n 1"))
	require.NotEmpty(r, out, "du printed nothing")
	bytes, err := strconv.ParseInt(out[0], 10, 64)
	require.NoError(r, err)
	return bytes
}

// answersWith demands that the web server serves the version.
func (r *run) answersWith(status cluster.Status, version string) {
	r.Helper()
	ctx, cancel := context.WithTimeout(r.ctx, 10*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, webURL(status)+"/api/v1/info", nil)
	require.NoError(r, err)
	response, err := http.DefaultClient.Do(request)
	require.NoError(r, err)
	defer response.Body.Close()
	var info struct {
		Version string `json:"version"`
	}
	require.NoError(r, json.NewDecoder(response.Body).Decode(&info))
	require.Equal(r, version, info.Version, "version that the web server answers with")
}

// login returns the release's fly, logged in with the password that the charm
// made.
func (r *run) login(status cluster.Status, release Release) *fly {
	r.Helper()
	leader, _ := status.Leader(app)
	admin, err := r.c.RunAction(r.ctx, leader.Name, "get-admin-password", nil)
	require.NoError(r, err)
	f := &fly{binary: release.Fly, home: r.TempDir()}
	require.NoError(r, f.login(r.ctx, webURL(status), admin["username"], admin["password"]))
	return f
}

// workersRunning waits until exactly the named workers run.
func (r *run) workersRunning(f *fly, names []string) {
	r.Helper()
	var last string
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(time.Second) {
		workers, err := f.workers(r.ctx)
		if err != nil {
			last = err.Error()
			continue
		}
		var running []string
		for _, w := range workers {
			if w.State == "running" {
				running = append(running, w.Name)
			}
		}
		slices.Sort(running)
		if len(workers) == len(running) && slices.Equal(running, names) {
			return
		}
		last = fmt.Sprintf("%+v", workers)
	}
	require.Fail(r, "workers are not all running", "want %v running, fly workers: %s", names, last)
}

// buildEverywhere runs real builds until each worker has run one.
func (r *run) buildEverywhere(f *fly, names []string) {
	r.Helper()
	done := map[string]int{}
	for n := 1; len(done) < len(names); n++ {
		require.LessOrEqual(r, n, buildsPerWorker*len(names), "builds on %v never reached every worker of %v", done, names)
		start := time.Now()
		worker, err := f.build(r.ctx)
		require.NoError(r, err)
		require.Contains(r, names, worker, "a build ran on a worker that is no unit's")
		done[worker]++
		r.Logf("build %d succeeded on %s in %s", n, worker, time.Since(start).Round(100*time.Millisecond))
	}
}

// remove removes a worker unit and demands that nothing else notices.
func (r *run) remove(f *fly, before cluster.Status, unit string) {
	r.Helper()
	others := slices.DeleteFunc(before.Units(app), func(u cluster.UnitStatus) bool { return u.Name == unit })
	invocations := func() map[string]string {
		seen := map[string]string{}
		for _, u := range others {
			seen[u.Name] = r.exec(u.Name, "systemctl show --property=Id,ActiveState,InvocationID concourse-server.service concourse-worker.service")
		}
		return seen
	}
	running := invocations()
	var after cluster.Status
	r.timed("unit removed", 0, func() {
		require.NoError(r, r.c.RemoveUnit(r.ctx, unit))
		after = r.wait("removal of "+unit, 5*time.Minute, cluster.All(cluster.Gone(unit), cluster.AllActive(app, len(others))))
	})
	r.workersRunning(f, workersOf(after))
	leader, _ := after.Leader(app)
	dirs := strings.Fields(r.exec(leader.Name, "ls "+root+"/worker"))
	require.ElementsMatch(r, dashed(after.Units(app)), dirs, "directories under worker/ after the removal of %s", unit)
	require.Equal(r, running, invocations(), "services of other units restarted when %s was removed", unit)
	r.in.Report.Note("removal of "+unit, "worker retired, its directory gone, no other service restarted")
}

// workersOf names the workers of a mode=auto cluster, sorted: all units but
// the leader, which is the web server.
func workersOf(status cluster.Status) []string {
	return dashed(slices.DeleteFunc(status.Units(app), func(u cluster.UnitStatus) bool { return u.Leader }))
}

// dashed are the units' names as workers and directories have them, sorted.
func dashed(units []cluster.UnitStatus) []string {
	var names []string
	for _, u := range units {
		names = append(names, strings.ReplaceAll(u.Name, "/", "-"))
	}
	slices.Sort(names)
	return names
}

func webURL(status cluster.Status) string {
	leader, _ := status.Leader(app)
	return "http://" + leader.Address + ":" + webPort
}

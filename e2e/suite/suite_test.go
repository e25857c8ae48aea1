package suite

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/cluster"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/cluster/clustertest"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/observation"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/record"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/report"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/scenarios"
)

// host is a Host without machines.
type host struct {
	cluster *clustertest.Cluster
	broken  error // that Build returns
	closed  bool
}

func newHost() *host { return &host{cluster: &clustertest.Cluster{}} }

func (h *host) Build(_ context.Context, log func(string)) (Build, error) {
	log("packing")
	return Build{
		Charm:    "ci.charm",
		Database: cluster.App{Name: "postgresql"},
		From:     scenarios.Release{Version: "7.14.2"},
		To:       scenarios.Release{Version: "7.14.3"},
	}, h.broken
}

func (h *host) Previous(context.Context, func(string)) (string, error) { return "previous.charm", nil }

func (h *host) StartMirror(Build) (Mirror, error) { return silent{}, nil }

func (h *host) NewCluster(context.Context) (cluster.Cluster, error) { return h.cluster, nil }

func (h *host) Look(context.Context, cluster.Machine, record.Thoroughness) (observation.Machine, error) {
	return observation.Machine{Secrets: map[string]string{"password": "correct horse"}}, nil
}

func (h *host) Visit(cluster.Cluster) string { return "juju status" }

func (h *host) Close() error {
	h.closed = true
	return nil
}

// silent is a mirror of which nothing was asked.
type silent struct{}

func (silent) URL() string                         { return "http://10.0.3.1/concourse/concourse" }
func (silent) Transfer(string) cluster.Transfer    { return cluster.Transfer{} }
func (silent) Attempts(string, string) []time.Time { return nil }
func (silent) Break(string, cluster.MirrorFault)   {}
func (silent) Repair(string)                       {}
func (silent) Ledger() ([]byte, error)             { return []byte(`[]`), nil }
func (silent) Close() error                        { return nil }

// started runs one scenario on a host and returns its report, what was printed, and its
// folder.
func started(t *testing.T, h *host, o Options, sc Scenario) (r *report.Report, printed, dir string) {
	t.Helper()
	base := t.TempDir()
	o.Artifacts = base
	if o.Again == nil {
		o.Again = func(name string) string { return "run " + name }
	}
	sc.Name, sc.Group, sc.Proves = "sample", "samples", "It is so."
	var out strings.Builder
	r = New(h, o).Run(t.Context(), sc, &out)
	return r, out.String(), filepath.Join(base, "sample")
}

func scenario(run func(ctx context.Context, t scenarios.T, c cluster.Cluster, in scenarios.Inputs)) Scenario {
	return Scenario{Run: run}
}

func read(t *testing.T, path ...string) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(path...))
	require.NoError(t, err)
	return string(content)
}

func TestScenarioThatPasses(t *testing.T) {
	h := newHost()
	r, printed, dir := started(t, h, Options{}, scenario(func(ctx context.Context, st scenarios.T, c cluster.Cluster, in scenarios.Inputs) {
		require.NoError(st, c.Deploy(ctx, cluster.App{Name: "ci", Charm: in.Charm}))
		require.NoError(st, in.Report.Time("three units active", time.Minute, func() error {
			st.Logf("12:34:56 +0s ci: active\nand more")
			return nil
		}))
		require.DirExists(st, st.TempDir())
	}))
	require.Equal(t, report.OK, r.Verdict, printed)
	require.Equal(t, []string{"deploy ci", "destroy"}, h.cluster.Calls(), "no evidence of what did not fail")
	require.Contains(t, read(t, dir, "report.json"), `"verdict": "ok"`)
	require.Contains(t, read(t, dir, "..", "junit.xml"), `name="sample"`)
	require.Regexp(t, `(?m)^\d\d:\d\d:\d\d sample: It is so\.$`, printed)
	require.Regexp(t, `(?m)^\d\d:\d\d:\d\d   three units active$`, printed)
	require.Regexp(t, `(?m)^12:34:56     \+0s ci: active\n +and more$`, printed)
	require.Regexp(t, `(?m)^\d\d:\d\d:\d\d   three units active: 0s, ok \(target 1m0s\)$`, printed)
	require.Regexp(t, `(?m)^\d\d:\d\d:\d\d     observed at the end of "end of the scenario"`, printed)
}

func TestScenarioThatFails(t *testing.T) {
	h := newHost()
	h.cluster.Now = func() (cluster.Status, error) {
		return cluster.Status{Apps: map[string]cluster.AppStatus{"ci": {Units: map[string]cluster.UnitStatus{
			"ci/0": {Name: "ci/0", Instance: "juju-0"},
		}}}}, nil
	}
	h.cluster.Evidence = func(ctx context.Context, dir string) error {
		return errors.Join(os.WriteFile(filepath.Join(dir, "juju.log"), []byte("logged in with correct horse"), 0o644), errors.New("LXD is gone"))
	}
	r, printed, dir := started(t, h, Options{}, scenario(func(ctx context.Context, st scenarios.T, c cluster.Cluster, in scenarios.Inputs) {
		require.NoError(st, c.Deploy(ctx, cluster.App{Name: "ci", Charm: in.Charm}))
		in.Report.Add("first unit active", 4*time.Minute, 3*time.Minute, nil)
		_ = in.Report.Time("upgrade", 0, func() error {
			in.Record.Secret("token", "battery staple")
			require.Fail(st, "no leader, says battery staple")
			return nil
		})
	}))
	require.Equal(t, report.Broken, r.Verdict)
	require.Len(t, r.Failures, 2)
	require.Contains(t, r.Failures[0], "no leader")
	require.Equal(t, "first unit active took 4m0s, longer than its target of 3m0s", r.Failures[1], "targets of phases that are done are judged")
	require.Equal(t, "upgrade", r.Missed()[1].Name)

	require.Equal(t, "destroy", h.cluster.Calls()[len(h.cluster.Calls())-1], "evidence comes first")
	require.Equal(t, "logged in with [redacted: ci/0: password]", read(t, dir, "juju.log"))
	require.Equal(t, "[]\n", read(t, dir, "ledger.json"))
	var observed observation.Record
	require.NoError(t, json.Unmarshal([]byte(read(t, dir, "record.json")), &observed))
	require.Equal(t, "ci", observed.App)
	require.Contains(t, observed.Last().Machines, "ci/0")
	require.Contains(t, printed, "LXD is gone")
	require.Contains(t, printed, "evidence is in "+dir)
	require.Contains(t, printed, "run it again: run sample")
	for _, text := range []string{printed, read(t, dir, "report.json"), read(t, dir, "report.md"), read(t, dir, "..", "junit.xml")} {
		require.NotContains(t, text, "battery staple")
		require.Contains(t, text, "[redacted: token]")
	}
}

func TestFormerRunIsKept(t *testing.T) {
	base := t.TempDir()
	s := New(newHost(), Options{Artifacts: base})
	for i := range 3 {
		s.Run(t.Context(), Scenario{Name: "sample", Run: func(_ context.Context, _ scenarios.T, _ cluster.Cluster, in scenarios.Inputs) {
			in.Report.Note("run", "%d", i)
		}}, &strings.Builder{})
	}
	require.Contains(t, read(t, base, "sample", "report.json"), `"value": "2"`)
	require.Contains(t, read(t, base, "sample.old", "report.json"), `"value": "1"`)
	entries, err := os.ReadDir(base)
	require.NoError(t, err)
	require.Len(t, entries, 3, "two folders and the JUnit file")
}

func TestKnownFailure(t *testing.T) {
	known := Known{Rule: "undisturbed", Missing: "workers restart for nothing"}
	sc := scenario(func(_ context.Context, _ scenarios.T, _ cluster.Cluster, in scenarios.Inputs) {
		in.Record.Demand("undisturbed", []string{"ci/0 was restarted"})
	})
	sc.Known = known
	r, printed, _ := started(t, newHost(), Options{}, sc)
	require.Equal(t, report.Known, r.Verdict, printed)
	require.Equal(t, "undisturbed: workers restart for nothing", r.Reason)

	sc = scenario(func(context.Context, scenarios.T, cluster.Cluster, scenarios.Inputs) {})
	sc.Known = known
	r, _, _ = started(t, newHost(), Options{}, sc)
	require.Equal(t, report.Broken, r.Verdict, "what passes is not known to fail any more")
}

func TestNeeds(t *testing.T) {
	sc := scenario(func(context.Context, scenarios.T, cluster.Cluster, scenarios.Inputs) { t.Error("it runs") })
	sc.Needs = Needs{Memory: 1 << 60}
	r, _, _ := started(t, newHost(), Options{}, sc)
	require.Equal(t, report.Skipped, r.Verdict)
	require.Contains(t, r.Reason, "memory")
	r, _, _ = started(t, newHost(), Options{Required: true}, sc)
	require.Equal(t, report.Broken, r.Verdict)
	require.Contains(t, r.Failures[0], "memory")
}

func TestKeep(t *testing.T) {
	h := newHost()
	_, printed, _ := started(t, h, Options{Keep: true}, scenario(func(context.Context, scenarios.T, cluster.Cluster, scenarios.Inputs) {}))
	require.NotContains(t, h.cluster.Calls(), "destroy")
	require.Contains(t, printed, "juju status")
}

func TestBuildThatFails(t *testing.T) {
	h := newHost()
	h.broken = errors.New("no compiler")
	r, _, dir := started(t, h, Options{}, scenario(func(context.Context, scenarios.T, cluster.Cluster, scenarios.Inputs) { t.Error("it runs") }))
	require.Equal(t, report.Broken, r.Verdict)
	require.Equal(t, []string{"no compiler"}, r.Failures)
	require.Contains(t, read(t, dir, "report.md"), "no compiler")
}

// A scenario that hangs costs neither its evidence nor its report.
func TestTimeIsUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost()
		released := make(chan struct{})
		defer close(released)
		var after time.Duration // of the evidence
		start := time.Now()
		h.cluster.Evidence = func(ctx context.Context, _ string) error {
			after = time.Since(start)
			return ctx.Err()
		}
		r, _, dir := started(t, h, Options{Deadline: start.Add(time.Hour), Timeout: time.Hour}, scenario(
			func(ctx context.Context, st scenarios.T, c cluster.Cluster, in scenarios.Inputs) {
				_ = in.Report.Time("upgrade", 0, func() error { <-released; return nil })
				st.Logf("too late")
			}))
		require.Equal(t, 55*time.Minute+30*time.Second, after)
		require.Contains(t, h.cluster.Calls(), "destroy")
		require.Equal(t, report.Broken, r.Verdict)
		require.Contains(t, r.Failures[0], "time is up")
		require.Equal(t, "upgrade", r.Missed()[0].Name)
		require.Contains(t, read(t, dir, "report.md"), "time is up")
	})
}

func TestClose(t *testing.T) {
	h := newHost()
	base, summary := t.TempDir(), filepath.Join(t.TempDir(), "summary.md")
	require.NoError(t, os.WriteFile(summary, []byte("before\n"), 0o644))
	s := New(h, Options{Artifacts: base, Summary: summary})
	s.Run(t.Context(), Scenario{Name: "good", Run: func(context.Context, scenarios.T, cluster.Cluster, scenarios.Inputs) {}}, &strings.Builder{})
	s.Run(t.Context(), Scenario{Name: "bad", Run: func(_ context.Context, st scenarios.T, _ cluster.Cluster, _ scenarios.Inputs) { st.Errorf("no leader") }}, &strings.Builder{})
	var out strings.Builder
	require.NoError(t, s.Close(&out))
	require.True(t, h.closed)
	require.Contains(t, out.String(), "FAILED bad\n  no leader\n  evidence: "+filepath.Join(base, "bad")+"\n  run it again: ccbench run bad")
	require.True(t, strings.HasPrefix(read(t, summary), "before\n# 2 scenarios, 1 ok, 1 failed\n"))
	require.Contains(t, read(t, base, "junit.xml"), `tests="2" failures="1"`)
	require.Equal(t, 1, s.Reports().Count(report.Broken))
}

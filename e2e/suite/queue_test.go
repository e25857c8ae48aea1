package suite

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/cluster"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/cluster/clustertest"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/report"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/scenarios"
)

// fleet is a host that makes a cluster for each scenario.
type fleet struct {
	*host
	mu       sync.Mutex
	clusters []*clustertest.Cluster
	evidence func(ctx context.Context, dir string) error
}

func (f *fleet) NewCluster(context.Context) (cluster.Cluster, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := &clustertest.Cluster{Evidence: f.evidence}
	f.clusters = append(f.clusters, c)
	return c, nil
}

// destroyed counts the clusters that are gone.
func (f *fleet) destroyed() (n int) {
	for _, c := range f.clusters {
		if slices.Contains(c.Calls(), "destroy") {
			n++
		}
	}
	return n
}

// span is when a scenario ran, in minutes.
type span struct {
	name       string
	begin, end int
}

// play runs scenarios in a queue, on 16 GB of memory, and returns their reports and what
// was printed.
func play(t *testing.T, f *fleet, o Options, ctx context.Context, all ...Scenario) (reports report.All, printed string, base string) {
	t.Helper()
	base = t.TempDir()
	o.Artifacts = base
	s := New(f, o)
	s.available = func() (int64, bool) { return 16 << 30, true }
	var out strings.Builder
	q := s.Queue(ctx, &out)
	var waits []func() *report.Report
	for _, sc := range all {
		waits = append(waits, q.Add(sc))
	}
	for _, wait := range waits {
		reports = append(reports, wait())
	}
	require.Equal(t, reports, s.Reports(), "in the order in which they were added")
	return reports, out.String(), base
}

// lasting is a scenario that takes so many minutes of its context.
func lasting(name string, minutes int, needs int64) Scenario {
	return Scenario{Name: name, Proves: "It is so.", Needs: Needs{Memory: needs << 30}, Run: func(ctx context.Context, t scenarios.T, _ cluster.Cluster, in scenarios.Inputs) {
		t.Logf("%s begins\nand says so", name)
		_ = in.Report.Time("sleep", 0, func() error {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(time.Duration(minutes) * time.Minute):
				return nil
			}
		})
	}}
}

func TestQueue(t *testing.T) {
	alone := func(sc Scenario) Scenario { sc.Alone = "It needs all of the disk."; return sc }
	takes := func(sc Scenario, d time.Duration) Scenario { sc.Takes = d; return sc }
	for name, test := range map[string]struct {
		parallel int
		all      []Scenario
		want     []span
	}{
		"one at a time": {1,
			[]Scenario{lasting("a", 1, 4), takes(lasting("b", 2, 4), time.Hour), lasting("c", 1, 4)},
			[]span{{"a", 0, 1}, {"b", 1, 3}, {"c", 3, 4}}},
		"two at once": {2,
			[]Scenario{lasting("a", 3, 4), lasting("b", 1, 4), lasting("c", 1, 4), lasting("d", 1, 4)},
			[]span{{"a", 0, 3}, {"b", 0, 1}, {"c", 1, 2}, {"d", 2, 3}}},
		"the longest first": {2,
			[]Scenario{lasting("a", 1, 4), takes(lasting("b", 2, 4), time.Minute), lasting("c", 1, 4), takes(lasting("d", 3, 4), time.Hour)},
			[]span{{"a", 2, 3}, {"b", 0, 2}, {"c", 3, 4}, {"d", 0, 3}}},
		"as memory allows": {3,
			[]Scenario{lasting("a", 2, 6), lasting("b", 1, 12), lasting("c", 1, 6), lasting("d", 1, 6)},
			[]span{{"a", 0, 2}, {"b", 2, 3}, {"c", 0, 1}, {"d", 1, 2}}},
		"alone": {2,
			[]Scenario{alone(lasting("a", 1, 1)), lasting("b", 2, 1), lasting("c", 1, 1), alone(lasting("d", 1, 1))},
			[]span{{"a", 2, 3}, {"b", 0, 2}, {"c", 0, 1}, {"d", 3, 4}}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				f := &fleet{host: newHost()}
				reports, printed, base := play(t, f, Options{Parallel: test.parallel}, t.Context(), test.all...)
				var got []span
				for _, r := range reports {
					require.Equal(t, report.OK, r.Verdict, printed)
					begin := int(r.Started.Sub(start) / time.Minute)
					got = append(got, span{r.Scenario, begin, begin + int(r.Took/time.Minute)})
					require.Contains(t, read(t, base, r.Scenario, "report.json"), `"name": "sleep"`)
				}
				require.Equal(t, test.want, got, "who waits has no clock that runs")
				require.Equal(t, len(test.all), f.destroyed())
				require.Contains(t, read(t, base, "junit.xml"), fmt.Sprintf(`tests="%d" failures="0"`, len(test.all)))
			})
		})
	}
}

// A scenario whose needs are never met says so, and holds up nobody.
func TestQueueWithoutMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reports, _, _ := play(t, &fleet{host: newHost()}, Options{Parallel: 2}, t.Context(), lasting("big", 1, 20), lasting("small", 1, 1))
		require.Equal(t, report.Skipped, reports[0].Verdict)
		require.Contains(t, reports[0].Reason, "memory")
		require.Equal(t, report.OK, reports[1].Verdict)
	})
}

// What a scenario needs is not yet taken when the next one asks; what others take is.
func TestAdmission(t *testing.T) {
	entries := func(needs ...int64) (all []*entry) {
		for _, n := range needs {
			all = append(all, &entry{Scenario: Scenario{Needs: Needs{Memory: n}}})
		}
		return all
	}
	memory, known := int64(10), true
	a := &admission{limit: 3, available: func() (int64, bool) { return memory, known }}
	require.Equal(t, -1, a.next(nil))
	require.Equal(t, 0, a.next(entries(20)), "it says itself what is missing")
	a.running = entries(6)
	require.Equal(t, -1, a.next(entries(5)), "4 are left for it")
	require.Equal(t, 1, a.next(entries(5, 4)))
	memory = 3
	require.Equal(t, -1, a.next(entries(4)), "somebody else has taken it")
	memory, known = 10, false
	require.Equal(t, -1, a.next(entries(1)), "nobody knows")
	known = true
	a.running = entries(1, 1, 1)
	require.Equal(t, -1, a.next(entries(1)), "three run")
	a.running = entries(1)
	require.Equal(t, 0, a.next(entries(1)))
	a.running[0].Alone = "It fills the pool."
	require.Equal(t, -1, a.next(entries(1)), "one runs that must be alone")
}

// Each line of what several scenarios print names the scenario.
func TestOutputOfSeveral(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, printed, _ := play(t, &fleet{host: newHost()}, Options{Parallel: 2}, t.Context(), lasting("auto", 1, 1), lasting("storage-loss", 1, 1))
		for line := range strings.Lines(printed) {
			require.Regexp(t, `^(\d\d:\d\d:\d\d| {8}) (auto          |storage-loss  |auto\n|storage-loss\n)`, line)
		}
		require.Regexp(t, `(?m)^\d\d:\d\d:\d\d auto {14}auto begins\n {9}auto {16}and says so$`, linesOf(printed, "auto"))
		require.Contains(t, printed, "         auto          sleep")

		_, printed, _ = play(t, &fleet{host: newHost()}, Options{Parallel: 2}, t.Context(), lasting("auto", 1, 1))
		require.Regexp(t, `(?m)^\d\d:\d\d:\d\d     auto begins\n {15}and says so$`, printed, "one alone needs no name")
	})
}

// linesOf returns the lines of one scenario.
func linesOf(printed, name string) string {
	own := regexp.MustCompile(`^(\d\d:\d\d:\d\d| {8}) ` + name + `\s`)
	var b strings.Builder
	for line := range strings.Lines(printed) {
		if own.MatchString(line) {
			b.WriteString(line)
		}
	}
	return b.String()
}

// When time is up, all that run end, with evidence; others do not begin.
func TestTimeIsUpForSeveral(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		released := make(chan struct{})
		defer close(released)
		var mu sync.Mutex
		var after []time.Duration // of the evidence
		f := &fleet{host: newHost(), evidence: func(ctx context.Context, dir string) error {
			mu.Lock()
			after = append(after, time.Since(start))
			mu.Unlock()
			<-ctx.Done() // It takes all of its time.
			return ctx.Err()
		}}
		hanging := func(name string) Scenario {
			return Scenario{Name: name, Run: func(context.Context, scenarios.T, cluster.Cluster, scenarios.Inputs) { <-released }}
		}
		reports, _, base := play(t, f, Options{Parallel: 2, Deadline: start.Add(time.Hour), Timeout: time.Hour}, t.Context(),
			hanging("a"), hanging("b"), lasting("c", 1, 1))
		require.Equal(t, []time.Duration{55*time.Minute + 30*time.Second, 55*time.Minute + 30*time.Second}, after)
		require.Less(t, time.Since(start), 59*time.Minute+30*time.Second)
		require.Equal(t, 2, f.destroyed())
		for _, r := range reports[:2] {
			require.Contains(t, r.Failures[0], "time is up")
		}
		require.Equal(t, []string{"it did not begin: the suite's time is up: 5m0s are kept for evidence"}, reports[2].Failures)
		require.NoDirExists(t, filepath.Join(base, "c"), "it would take the place of a former run's evidence")
	})
}

func TestInterruptOfSeveral(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		ctx, interrupt := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Minute, func() { interrupt(errors.New("interrupt signal received")) })
		f := &fleet{host: newHost()}
		reports, printed, base := play(t, f, Options{Parallel: 2}, ctx, lasting("a", 9, 1), lasting("b", 9, 1), lasting("c", 9, 1))
		require.Equal(t, time.Minute, time.Since(start))
		require.Len(t, f.clusters, 2)
		require.Equal(t, 2, f.destroyed())
		for _, r := range reports[:2] {
			require.Equal(t, report.Broken, r.Verdict)
			require.Contains(t, strings.Join(r.Failures, "\n"), "interrupted: interrupt signal received")
			require.FileExists(t, filepath.Join(base, r.Scenario, "record.json"), "evidence is taken")
		}
		require.Equal(t, []string{"it did not begin: interrupt signal received"}, reports[2].Failures)
		require.Contains(t, printed, "FAILED: it did not begin: interrupt signal received")
	})
}

// A secret of one scenario is nowhere in what it leaves, whoever runs beside it.
func TestSecretsOfSeveral(t *testing.T) {
	secretive := func(name, secret string) Scenario {
		sc := lasting(name, 1, 1)
		sc.Run = func(_ context.Context, t scenarios.T, _ cluster.Cluster, in scenarios.Inputs) {
			in.Record.Secret("token", secret)
			t.Errorf("logged in with %s", secret)
		}
		return sc
	}
	_, printed, base := play(t, &fleet{host: newHost()}, Options{Parallel: 2}, t.Context(), secretive("a", "battery staple"), secretive("b", "correct mule"))
	junit, err := os.ReadFile(filepath.Join(base, "junit.xml"))
	require.NoError(t, err)
	for _, text := range []string{printed, string(junit), read(t, base, "a", "report.json"), read(t, base, "b", "report.json")} {
		require.NotContains(t, text, "battery staple")
		require.NotContains(t, text, "correct mule")
		require.Contains(t, text, "[redacted: token]")
	}
}

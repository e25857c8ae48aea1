package supervisor_test

import (
	"net/http"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/concourse"
	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/supervisor"
)

// BenchmarkAtRest measures the processor's time of a second of rest, with the looks and
// checks of production. It asks no systemd: that is one process a minute and service.
func BenchmarkAtRest(b *testing.B) {
	m := newMirror(b)
	web := newWebServer(b, map[string]string{"ci-0": "running"})
	c := newCharm(b)
	spec := web.serving(m, b.TempDir(), "ci/0")
	spec.Worker = &concourse.Worker{Name: "ci-0"}
	require.NoError(b, c.files.PutSpec(spec))
	c.run(b, workerAt(service(b, func(http.ResponseWriter, *http.Request) {})), func(s *supervisor.Supervisor) {
		s.Interval, s.Progress = 20*time.Millisecond, time.Second // a look of 20 ms stands for one of a second
		s.Workers, s.Watch, s.Database = 200*time.Millisecond, 100*time.Millisecond, 200*time.Millisecond
	})
	eventually(b, "both answer", c.saw(func(f supervisor.Status) bool {
		return f.Web.Version != "" && f.Worker.Version != "" && f.Workers == "ci-0"
	}))
	time.Sleep(time.Second)
	used := func() time.Duration {
		var u syscall.Rusage
		require.NoError(b, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	before, rounds := used(), 0
	for b.Loop() {
		time.Sleep(20 * time.Millisecond) // one look
		rounds++
	}
	b.ReportMetric(float64((used()-before).Microseconds())/float64(rounds), "cpu-µs/look")
}

package supervisor_test

import (
	"context"
	"net/http"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/concourse"
	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/supervisor"
	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator"
)

// asked counts the looks at a volume, and those that ask for the rights of another user.
type asked struct {
	supervisor.Volume
	looks, rights *atomic.Int32
	denied        *atomic.Bool
}

func (v asked) Check(ctx context.Context) error {
	v.looks.Add(1)
	return v.Volume.Check(ctx)
}

func (v asked) Executable(context.Context, string, int, int) error {
	v.rights.Add(1)
	if v.denied.Load() {
		return coordinator.ErrNoAccess
	}
	return nil
}

// The rights of another user cost a thread: at rest few looks ask for them. Who is shut out
// is heard of within ten looks none the less, and each look asks whether that goes on.
func TestRightsAreAskedForNowAndThen(t *testing.T) {
	m := newMirror(t)
	var looks, rights atomic.Int32
	var denied atomic.Bool
	c := start(t, func(s *supervisor.Supervisor) {
		open := s.Open
		s.Open = func(ctx context.Context, root string, o coordinator.Options) (supervisor.Volume, error) {
			v, err := open(ctx, root, o)
			return asked{v, &looks, &rights, &denied}, err
		}
	})
	require.NoError(t, c.files.PutSpec(m.serving(t.TempDir(), 1, "7.14.3")))
	eventually(t, "both run", func() bool { return len(c.system.Up()) == 2 })
	during := func(n int32) (asking int32) {
		from, before := looks.Load(), rights.Load()
		eventually(t, "more looks", func() bool { return looks.Load() >= from+n })
		return rights.Load() - before
	}
	few := during(40)
	require.Positive(t, few)
	require.Less(t, few, int32(20))
	denied.Store(true)
	require.Positive(t, during(10))
	eventually(t, "the fault", c.saw(func(f supervisor.Status) bool { return f.Fault == supervisor.NoAccess }))
	require.Greater(t, during(40), int32(30))
	denied.Store(false)
	eventually(t, "no fault", c.saw(func(f supervisor.Status) bool { return f.Fault == supervisor.Healthy }))
}

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

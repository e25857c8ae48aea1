package supervisor_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/concourse"
	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/concourse/concoursetest"
	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/supervisor"
	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator"
)

// slowly has what matches wait for the gate; it does not hold the machine's lock.
type slowly struct {
	*concoursetest.System
	mu   sync.Mutex
	gate map[string]chan struct{}
	held int
}

// waiting tells whether something waits at a gate.
func (s *slowly) waiting() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.held > 0
}

func (s *slowly) block(what string) (open func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := make(chan struct{})
	s.gate[what] = c
	return sync.OnceFunc(func() { s.mu.Lock(); delete(s.gate, what); s.mu.Unlock(); close(c) })
}

func (s *slowly) pass(ctx context.Context, what string) error {
	s.mu.Lock()
	c := s.gate[what]
	s.mu.Unlock()
	if c == nil {
		return nil
	}
	count := func(n int) {
		s.mu.Lock()
		s.held += n
		s.mu.Unlock()
	}
	count(1)
	defer count(-1)
	select {
	case <-c:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *slowly) Restart(ctx context.Context, unit string) error {
	if err := s.pass(ctx, "start "+unit); err != nil {
		return err
	}
	return s.System.Restart(ctx, unit)
}

func (s *slowly) Remove(ctx context.Context, unit string) error {
	if err := s.pass(ctx, "remove "+unit); err != nil {
		return err
	}
	return s.System.Remove(ctx, unit)
}

func (s *slowly) Execute(ctx context.Context, name string, args ...string) error {
	if err := s.pass(ctx, filepath.Base(name)); err != nil {
		return err
	}
	return s.System.Execute(ctx, name, args...)
}

func slow(c *charm) (*slowly, func(*supervisor.Supervisor)) {
	s := &slowly{System: c.system, gate: map[string]chan struct{}{}}
	return s, func(v *supervisor.Supervisor) { v.System = s }
}

// A mount that is slow for a moment costs no build, also when the supervisor has just been
// started; one that hangs is said.
func TestSlowLooks(t *testing.T) {
	m := newMirror(t)
	var slow atomic.Int32
	hang := func(s *supervisor.Supervisor) {
		open := s.Open
		s.Open = func(ctx context.Context, root string, o coordinator.Options) (supervisor.Volume, error) {
			if slow.Add(-1) >= 0 {
				return nil, fmt.Errorf("%w: %w", coordinator.ErrHung, context.DeadlineExceeded)
			}
			return open(ctx, root, o)
		}
	}
	c := newCharm(t)
	end := c.run(t, hang)
	spec := m.serving(t.TempDir(), 1, "7.14.3")
	require.NoError(t, c.files.PutSpec(spec))
	eventually(t, "both run", c.saw(func(f supervisor.Status) bool { return f.Web.Is != "" && f.Worker.Is != "" }))
	end()
	c.system.Done()
	slow.Store(2)
	end = c.run(t, hang)
	eventually(t, "the looks", func() bool { return slow.Load() < 0 })
	end()
	require.Empty(t, c.system.Done())
	slow.Store(1000)
	c.run(t, hang)
	eventually(t, "the fault", c.saw(func(f supervisor.Status) bool { return f.Fault == supervisor.Hung }))
	eventually(t, "the worker to stop", func() bool { return slices.Equal(c.system.Up(), []string{concourse.ServerUnit}) })
}

// checking is a volume whose Check a test answers.
type checking struct {
	supervisor.Volume
	check func(context.Context) error
}

func (v checking) Check(ctx context.Context) error { return v.check(ctx) }

// A supervisor that is replaced stops nothing and says nothing for having been interrupted.
func TestEndsInTheMiddleOfALook(t *testing.T) {
	m, c := newMirror(t), newCharm(t)
	var hold atomic.Bool
	held := make(chan struct{}, 1)
	end := c.run(t, func(s *supervisor.Supervisor) {
		open := s.Open
		s.Open = func(ctx context.Context, root string, o coordinator.Options) (supervisor.Volume, error) {
			v, err := open(ctx, root, o)
			return checking{v, func(ctx context.Context) error {
				if hold.Load() {
					held <- struct{}{}
					<-ctx.Done()
				}
				return ctx.Err()
			}}, err
		}
	})
	require.NoError(t, c.files.PutSpec(m.serving(t.TempDir(), 1, "7.14.3")))
	eventually(t, "both run", c.saw(func(f supervisor.Status) bool { return f.Installed != "" && f.Web.Is != "" && f.Worker.Is != "" }))
	c.system.Done()
	hold.Store(true)
	<-held
	before, err := c.files.Status()
	require.NoError(t, err)
	end()
	after, err := c.files.Status()
	require.NoError(t, err)
	require.Equal(t, before, after)
	require.Empty(t, c.system.Done())
}

// hooked is a volume of which a test sees, and changes, some calls.
type hooked struct {
	supervisor.Volume
	activate func() error
	pin      func()
}

func (h hooked) Activate(ctx context.Context, v string) (coordinator.Activation, error) {
	if h.activate != nil {
		if err := h.activate(); err != nil {
			return coordinator.Activation{}, err
		}
	}
	return h.Volume.Activate(ctx, v)
}

func (h hooked) Pin(ctx context.Context, v string) (coordinator.Release, error) {
	if h.pin != nil {
		h.pin()
	}
	return h.Volume.Pin(ctx, v)
}

func hooking(activate func() error, pin func()) func(*supervisor.Supervisor) {
	return func(s *supervisor.Supervisor) {
		open := s.Open
		s.Open = func(ctx context.Context, root string, o coordinator.Options) (supervisor.Volume, error) {
			v, err := open(ctx, root, o)
			return hooked{v, activate, pin}, err
		}
	}
}

// What runs is pinned, though another application has said what is current.
func TestOvertakenIsPinnedNoneTheLess(t *testing.T) {
	m, root := newMirror(t), t.TempDir()
	other := start(t)
	so := m.serving(root, 1, "7.14.2")
	so.Unit, so.Worker = "other/0", nil
	require.NoError(t, other.files.PutSpec(so))
	eventually(t, "other", func() bool { return len(other.system.Up()) == 1 })
	c := start(t, hooking(func() error { return fmt.Errorf("%w: other/0", coordinator.ErrOvertaken) }, nil))
	spec := m.serving(root, 1, "7.14.3")
	spec.Worker = nil
	require.NoError(t, c.files.PutSpec(spec))
	eventually(t, "web", func() bool { return len(c.system.Up()) == 1 })
	require.FileExists(t, filepath.Join(root, "pins", "ci-0"))
}

// What a retirement under way was begun for may have changed when it ends.
func TestRetireInFlight(t *testing.T) {
	keys := concourse.Keys{HostKey: workerKey()}
	m := newMirror(t)
	port := service(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"version":"7.14.3"}`) })
	for _, test := range []struct {
		name   string
		change func(*supervisor.Spec)
		then   []string
	}{
		{"the unit is back", func(s *supervisor.Spec) { s.Members = []string{"ci/0", "ci/1"} }, []string{"concourse retire-worker --name=ci-2"}},
		{"the web server is elsewhere", func(s *supervisor.Spec) { s.Web = nil }, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := newCharm(t)
			s, with := slow(c)
			c.run(t, with)
			open := s.block("concourse")
			spec := m.serving(t.TempDir(), port, "7.14.3")
			spec.Web, spec.Worker, spec.Members = &concourse.Web{Port: port, Keys: keys}, nil, []string{"ci/0", "ci/1", "ci/2"}
			require.NoError(t, c.files.PutSpec(spec))
			eventually(t, "the web server", c.saw(func(f supervisor.Status) bool { return f.Web.Version != "" }))
			spec.Members = []string{"ci/0"}
			require.NoError(t, c.files.PutSpec(spec))
			eventually(t, "its begin", s.waiting)
			test.change(&spec)
			require.NoError(t, c.files.PutSpec(spec))
			if spec.Web == nil {
				eventually(t, "the change", func() bool { return len(c.system.Up()) == 0 })
			} else {
				time.Sleep(200 * time.Millisecond)
			}
			c.system.Done()
			open()
			want := append([]string{"concourse retire-worker --name=ci-1"}, test.then...)
			var did []string
			eventually(t, "all of it", func() bool { did = append(did, c.system.Done()...); return len(did) >= len(want) })
			require.Equal(t, want, did)
		})
	}
}

// A worker that has not ended yet answers for the version that it was started from.
func TestWorkerOfTheVersionBefore(t *testing.T) {
	m := newMirror(t)
	port := service(t, func(http.ResponseWriter, *http.Request) {})
	c := newCharm(t)
	s, with := slow(c)
	c.run(t, with, workerAt(port))
	spec := m.serving(t.TempDir(), port, "7.14.2")
	spec.Web = nil
	require.NoError(t, c.files.PutSpec(spec))
	eventually(t, "old", c.saw(func(f supervisor.Status) bool { return f.Worker.Version == "7.14.2" }))
	open := s.block("start " + concourse.WorkerUnit)
	defer open()
	spec.Run, spec.Fetch = "7.14.3", "7.14.3"
	require.NoError(t, c.files.PutSpec(spec))
	eventually(t, "run", c.saw(func(f supervisor.Status) bool { return f.Run == "7.14.3" }))
	time.Sleep(300 * time.Millisecond)
	got, err := c.files.Status()
	require.NoError(t, err)
	require.NotEqual(t, "7.14.3", got.Worker.Version, "the process is still that of 7.14.2: %+v", got)
}

// A web server that was silent before an upgrade does not fail it.
func TestDeadlineIsThatOfAVersion(t *testing.T) {
	m := newMirror(t)
	port := service(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) })
	c := newCharm(t)
	s, with := slow(c)
	c.run(t, with, func(v *supervisor.Supervisor) { v.Deadline = 3 * time.Second })
	spec := m.serving(t.TempDir(), port, "7.14.2")
	spec.Worker = nil
	require.NoError(t, c.files.PutSpec(spec))
	eventually(t, "old is silent", c.saw(func(f supervisor.Status) bool { return f.Overdue == "7.14.2" }))
	open := s.block("start " + concourse.ServerUnit) // its former process takes a second to stop
	defer open()
	spec.Run, spec.Fetch = "7.14.3", "7.14.3"
	require.NoError(t, c.files.PutSpec(spec))
	eventually(t, "run", c.saw(func(f supervisor.Status) bool { return f.Run == "7.14.3" }))
	for began := time.Now(); time.Since(began) < time.Second; time.Sleep(5 * time.Millisecond) {
		got, err := c.files.Status()
		require.NoError(t, err)
		require.NotEqual(t, "7.14.3", got.Overdue, "it was not even started")
	}
}

// What is under way when a unit leaves ends before it has left.
func TestLeavesWhilePinning(t *testing.T) {
	m, root := newMirror(t), t.TempDir()
	gate := make(chan struct{})
	pinning := make(chan struct{}, 10)
	c := start(t, hooking(nil, func() { pinning <- struct{}{}; <-gate }))
	spec := m.serving(root, 1, "7.14.3")
	spec.Web = nil
	require.NoError(t, c.files.PutSpec(spec))
	<-pinning
	spec.Leaving = true
	require.NoError(t, c.files.PutSpec(spec))
	time.Sleep(time.Second)
	close(gate)
	eventually(t, "left", c.saw(func(f supervisor.Status) bool { return f.Left }))
	time.Sleep(500 * time.Millisecond)
	require.NoFileExists(t, filepath.Join(root, "pins", "ci-0"))
}

func TestLeavesWhileStarting(t *testing.T) {
	m, root := newMirror(t), t.TempDir()
	c := newCharm(t)
	s, with := slow(c)
	open := s.block("start " + concourse.WorkerUnit)
	c.run(t, with)
	spec := m.serving(root, 1, "7.14.3")
	spec.Web = nil
	require.NoError(t, c.files.PutSpec(spec))
	eventually(t, "starting", func() bool { d, _ := c.system.Definition(concourse.WorkerUnit); return d != "" })
	spec.Leaving = true
	require.NoError(t, c.files.PutSpec(spec))
	time.Sleep(500 * time.Millisecond)
	status, err := c.files.Status()
	require.NoError(t, err)
	require.False(t, status.Left, "a start is still under way")
	open()
	eventually(t, "that it has left", c.saw(func(f supervisor.Status) bool { return f.Left }))
	require.Empty(t, c.system.Up())
}

// A machine that was only stopped pins, and has its directory, as before.
func TestStartAfterStop(t *testing.T) {
	m, root := newMirror(t), t.TempDir()
	c := start(t)
	spec := m.serving(root, 1, "7.14.3")
	spec.Web = nil
	require.NoError(t, c.files.PutSpec(spec))
	eventually(t, "the worker", func() bool { return len(c.system.Up()) == 1 })
	spec.Leaving = true
	require.NoError(t, c.files.PutSpec(spec))
	eventually(t, "left", c.saw(func(f supervisor.Status) bool { return f.Left }))
	spec.Leaving = false
	require.NoError(t, c.files.PutSpec(spec))
	eventually(t, "the worker", func() bool { return len(c.system.Up()) == 1 })
	_, e1 := os.Stat(filepath.Join(root, "pins", "ci-0"))
	_, e2 := os.Stat(filepath.Join(root, "worker", "ci-0"))
	require.NoError(t, errors.Join(e1, e2))
}

// A hook may have read what was news for a moment only.
func TestNewsThatCameAndWentDuringAWake(t *testing.T) {
	var version atomic.Value
	version.Store("7.14.3")
	m := newMirror(t)
	port := service(t, func(w http.ResponseWriter, _ *http.Request) {
		if version.Load() == "" {
			w.WriteHeader(503)
			return
		}
		fmt.Fprintf(w, `{"version":%q}`, version.Load())
	})
	c := newCharm(t)
	var mu sync.Mutex
	var seen supervisor.Status
	var hold atomic.Bool
	in, read, end := make(chan struct{}, 100), make(chan struct{}), make(chan struct{})
	c.run(t, func(s *supervisor.Supervisor) {
		s.Wake = func(ctx context.Context) error {
			held := hold.CompareAndSwap(true, false)
			if held {
				in <- struct{}{}
				<-read // the agent is busy
			}
			_, _ = c.files.Journal().Take()
			st, err := c.files.Status()
			mu.Lock()
			seen = st
			mu.Unlock()
			if held {
				in <- struct{}{}
				<-end // juju-exec has not returned yet
			}
			return err
		}
	})
	spec := m.serving(t.TempDir(), port, "7.14.3")
	spec.Worker = nil
	require.NoError(t, c.files.PutSpec(spec))
	see := func() supervisor.Status { mu.Lock(); defer mu.Unlock(); return seen }
	eventually(t, "well", func() bool { return see().Web.Version == "7.14.3" && see().Installed != "" })
	time.Sleep(300 * time.Millisecond)
	st := func(v string) func() bool {
		return func() bool { s, _ := c.files.Status(); return s.Web.Version == v }
	}
	hold.Store(true)
	_, err := c.files.Journal().Write([]byte(`{"level":"INFO","msg":"x"}` + "\n")) // a wake with the status as it is
	require.NoError(t, err)
	<-in
	version.Store("")
	eventually(t, "down", st(""))
	close(read)
	<-in
	version.Store("7.14.3")
	eventually(t, "up", st("7.14.3"))
	close(end)
	eventually(t, "what the charm knows is what is", func() bool { return see().Web.Version == "7.14.3" })
}

// What cannot be remembered is not done again and again.
func TestMemoryCannotBeWritten(t *testing.T) {
	m := newMirror(t)
	c := start(t)
	spec := m.serving(t.TempDir(), 1, "7.14.3")
	spec.Worker = nil
	require.NoError(t, c.files.PutSpec(spec))
	eventually(t, "web", func() bool { return len(c.system.Up()) == 1 })
	time.Sleep(200 * time.Millisecond)
	c.system.Done()
	p := filepath.Join(string(c.files), "memory.json")
	require.NoError(t, os.Remove(p))
	require.NoError(t, os.MkdirAll(filepath.Join(p, "x"), 0o700))
	w := *spec.Web
	w.LogLevel = "debug"
	spec.Web = &w
	require.NoError(t, c.files.PutSpec(spec))
	time.Sleep(2 * time.Second)
	did := c.system.Done()
	require.Less(t, len(did), 30)
	status, err := c.files.Status()
	require.NoError(t, err)
	require.NotEmpty(t, status.Stuck)
}

// A worker that is to work again is not retired by its own unit.
func TestOwnWorkerAfterAChangeOfMind(t *testing.T) {
	keys := concourse.Keys{HostKey: workerKey()}
	m := newMirror(t)
	port := service(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"version":"7.14.3"}`) })
	c := newCharm(t)
	s, with := slow(c)
	c.run(t, with, workerAt(port))
	spec := m.serving(t.TempDir(), port, "7.14.3")
	spec.Web.Keys = keys
	worker := spec.Worker
	require.NoError(t, c.files.PutSpec(spec))
	eventually(t, "both", c.saw(func(f supervisor.Status) bool { return f.Web.Version != "" && f.Worker.Version != "" }))
	open := s.block("remove " + concourse.WorkerUnit)
	spec.Worker = nil
	require.NoError(t, c.files.PutSpec(spec))
	time.Sleep(200 * time.Millisecond)
	spec.Worker = worker
	require.NoError(t, c.files.PutSpec(spec))
	time.Sleep(200 * time.Millisecond)
	c.system.Done()
	open()
	time.Sleep(time.Second)
	did := c.system.Done()
	require.False(t, slices.ContainsFunc(did, func(s string) bool { return strings.Contains(s, "retire-worker --name=ci-0") }), "%v", did)
}

// Files that no process has read do not stay for the next start.
func TestFilesOfAStartThatFailed(t *testing.T) {
	m := newMirror(t)
	var strike atomic.Bool
	c := newCharm(t)
	c.system.Fail = func(what string) error {
		if strike.Load() && strings.HasPrefix(what, "start ") {
			return errors.New("strike")
		}
		return nil
	}
	port := service(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"version":"7.14.2"}`) })
	c.run(t)
	spec := m.serving(t.TempDir(), port, "7.14.2")
	spec.Worker = nil
	require.NoError(t, c.files.PutSpec(spec))
	eventually(t, "web", c.saw(func(f supervisor.Status) bool { return f.Web.Version != "" }))
	strike.Store(true)
	bad := spec
	w := *spec.Web
	w.LogLevel = "debug"
	bad.Web = &w
	require.NoError(t, c.files.PutSpec(bad))
	eventually(t, "stuck", c.saw(func(f supervisor.Status) bool { return f.Stuck != "" }))
	require.NoError(t, c.files.PutSpec(spec))
	strike.Store(false)
	eventually(t, "the files of what is wanted", func() bool {
		env, err := os.ReadFile(filepath.Join(string(c.files), "concourse-server.env"))
		return err == nil && !strings.Contains(string(env), `CONCOURSE_LOG_LEVEL="debug"`)
	})
}

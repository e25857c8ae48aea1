package supervisor_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/concourse"
	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/concourse/concoursetest"
	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/supervisor"
	"github.com/concourse-ci-machine/concourse-ci-machine/charm/product"
	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator"
	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/probe"
)

// archive is a release that is small, but has the layout of a genuine one.
func archive(t testing.TB) []byte {
	t.Helper()
	var out bytes.Buffer
	zipped := gzip.NewWriter(&out)
	files := tar.NewWriter(zipped)
	for _, name := range []string{"concourse/bin/concourse", "concourse/fly-assets/fly-linux-amd64.tgz"} {
		require.NoError(t, files.WriteHeader(&tar.Header{Name: name, Mode: 0o755, Size: int64(len(name)), Typeflag: tar.TypeReg}))
		_, err := files.Write([]byte(name))
		require.NoError(t, err)
	}
	require.NoError(t, errors.Join(files.Close(), zipped.Close()))
	return out.Bytes()
}

// mirror serves versions 7.14.2 and 7.14.3, and counts downloads.
type mirror struct {
	*httptest.Server
	downloads atomic.Int32
	down      atomic.Bool
}

func newMirror(t testing.TB) *mirror {
	data := archive(t)
	m := &mirror{}
	m.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name := "/o/r/releases/download/v7.14.3/concourse-7.14.3-linux-amd64.tgz"
		for _, older := range []string{"7.6.0", "7.14.2"} {
			if strings.Contains(r.URL.Path, older) {
				name = strings.ReplaceAll(name, "7.14.3", older)
			}
		}
		switch {
		case m.down.Load():
			http.Error(w, "down for maintenance", http.StatusServiceUnavailable)
		case r.URL.Path == name+".sha256":
			fmt.Fprintf(w, "%x  %s\n", sha256.Sum256(data), filepath.Base(name))
		case r.URL.Path == name:
			if r.Method == http.MethodGet {
				m.downloads.Add(1)
			}
			http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
		case r.URL.Path == "/api/v3/repos/o/r/releases/latest":
			fmt.Fprint(w, `{"tag_name":"v7.14.3"}`)
		default:
			http.NotFound(w, r)
		}
	}))
	t.Cleanup(m.Close)
	return m
}

// charm stands for Juju: it is woken, and remembers what it found then.
type charm struct {
	system *concoursetest.System
	files  supervisor.Files

	mu    sync.Mutex
	busy  bool
	wakes int
	found supervisor.Status
	log   []string
}

func (c *charm) wake(context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.busy {
		return errors.New("agent is not up")
	}
	c.wakes++
	// A hook writes the spec, though it be the same.
	now := time.Now()
	if err := os.Chtimes(filepath.Join(string(c.files), "spec.json"), now, now); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	records, err := c.files.Journal().Take()
	for _, r := range records {
		c.log = append(c.log, r.Message)
	}
	if err == nil {
		c.found, err = c.files.Status()
	}
	return err
}

func (c *charm) saw(ready func(supervisor.Status) bool) func() bool {
	return func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return ready(c.found)
	}
}

func (c *charm) setBusy(busy bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.busy = busy
}

// unprobed is a volume that nobody probes. A probe that is cancelled returns, but
// on a busy machine still writes for a moment (see probe.Mount), and would do so
// where the test already removes its directories.
type unprobed struct{ *coordinator.Coordinator }

func (unprobed) Probe(context.Context) (probe.Result, error) { return probe.Result{}, nil }

// workerKey is one for all tests: to make one takes a while.
var workerKey = sync.OnceValue(func() string {
	keys, err := concourse.NewKeys()
	if err != nil {
		panic(err)
	}
	return keys.HostKey
})

func newCharm(t testing.TB) *charm {
	t.Helper()
	state := t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(state, "worker"), 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(state, "worker", "worker_key"), []byte(workerKey()), 0o600))
	return &charm{files: supervisor.Files(state), system: concoursetest.New()}
}

// start runs a supervisor. A change may be given to it before.
func start(t testing.TB, changes ...func(*supervisor.Supervisor)) *charm {
	t.Helper()
	c := newCharm(t)
	c.run(t, changes...)
	return c
}

// run runs the supervisor of a unit until the function that it returns is called.
func (c *charm) run(t testing.TB, changes ...func(*supervisor.Supervisor)) (end func()) {
	t.Helper()
	w := supervisor.Supervisor{
		Paths:  concourse.Paths{Volume: "/var/lib/concourse", State: string(c.files)},
		System: c.system,
		Open: func(ctx context.Context, root string, o coordinator.Options) (supervisor.Volume, error) {
			c, err := coordinator.Open(ctx, root, o)
			return unprobed{c}, err
		},
		Newest:   product.Newest,
		Wake:     c.wake,
		Client:   http.DefaultClient,
		Log:      slog.New(slog.DiscardHandler),
		Interval: 10 * time.Millisecond,
		Progress: 50 * time.Millisecond,
		Backoff:  100 * time.Millisecond,
		Deadline: 300 * time.Millisecond,
		Workers:  20 * time.Millisecond,
		Absence:  200 * time.Millisecond,
		Hosts:    filepath.Join(string(c.files), "hosts"),
		Stable:   time.Minute,
		Database: 20 * time.Millisecond,
		Schema:   func(context.Context, concourse.Database) (int64, error) { return 0, nil },
	}
	for _, change := range changes {
		change(&w)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	end = sync.OnceFunc(func() {
		cancel()
		require.ErrorIs(t, <-done, context.Canceled)
	})
	t.Cleanup(end)
	return end
}

// eventually has no limit of its own: a disk that is busy with other work may not
// answer for half a minute. What is missing it says just before go test gives up.
func eventually(t testing.TB, what string, ready func() bool) {
	t.Helper()
	var deadline time.Time
	test, limited := t.(*testing.T)
	if limited {
		deadline, limited = test.Deadline()
	}
	for !ready() {
		if limited && time.Until(deadline) < 5*time.Second {
			t.Fatalf("%s did not come", what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func TestInstallsAndWakes(t *testing.T) {
	m, c := newMirror(t), start(t)
	want := supervisor.Spec{Unit: "ci/0", Root: t.TempDir(), Source: m.URL + "/o/r", Newest: true}
	require.NoError(t, c.files.PutSpec(want))
	eventually(t, "the newest version", c.saw(func(f supervisor.Status) bool { return f.Newest == "7.14.3" }))

	want.Newest, want.Fetch = false, "7.14.3"
	require.NoError(t, c.files.PutSpec(want))
	eventually(t, "the release", c.saw(func(f supervisor.Status) bool {
		return f.Installed == "7.14.3" && f.Newest == "" && f.Fault == supervisor.Healthy && f.Trying == ""
	}))
	require.EqualValues(t, 1, m.downloads.Load())
	eventually(t, "one line in the log", func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return strings.Count(strings.Join(c.log, "\n"), "Downloading Concourse binaries v7.14.3") == 1
	})

	// Nothing changes, so the charm is left alone.
	c.mu.Lock()
	wakes := c.wakes
	c.mu.Unlock()
	time.Sleep(200 * time.Millisecond)
	c.mu.Lock()
	require.LessOrEqual(t, c.wakes, wakes+1)
	c.mu.Unlock()
}

func TestAnotherUnitReuses(t *testing.T) {
	m, root := newMirror(t), t.TempDir()
	for _, unit := range []string{"ci/0", "ci/1"} {
		c := start(t)
		require.NoError(t, c.files.PutSpec(supervisor.Spec{Unit: unit, Root: root, Source: m.URL + "/o/r", Fetch: "7.14.3"}))
		eventually(t, unit, c.saw(func(f supervisor.Status) bool { return f.Installed == "7.14.3" }))
	}
	require.EqualValues(t, 1, m.downloads.Load())
}

func TestFailureIsToldAndRecovers(t *testing.T) {
	m, c := newMirror(t), start(t)
	want := supervisor.Spec{Unit: "ci/0", Root: t.TempDir(), Source: m.URL + "/o/r", Fetch: "7.14.9"}
	require.NoError(t, c.files.PutSpec(want))
	eventually(t, "the failure", c.saw(func(f supervisor.Status) bool { return f.Failure != "" && f.Trying == "7.14.9" }))

	want.Fetch = "7.14.3"
	require.NoError(t, c.files.PutSpec(want))
	eventually(t, "the other version", c.saw(func(f supervisor.Status) bool { return f.Installed == "7.14.3" && f.Failure == "" }))
}

func TestVolumeThatIsNotMounted(t *testing.T) {
	m, c := newMirror(t), start(t)
	root := t.TempDir()
	require.NoError(t, c.files.PutSpec(supervisor.Spec{Unit: "ci/0", Root: root, Shared: true, Source: m.URL + "/o/r", Fetch: "7.14.3"}))
	eventually(t, "why it is not mounted", c.saw(func(f supervisor.Status) bool {
		return f.Fault == supervisor.NotMounted && strings.Contains(f.Detail, root)
	}))
	found, err := c.files.Status()
	require.NoError(t, err)
	require.Equal(t, supervisor.Status{WorkerKey: found.WorkerKey, Fault: found.Fault, Detail: found.Detail}, found)
	require.NoError(t, os.RemoveAll(root))
	eventually(t, "another fault of it", c.saw(func(f supervisor.Status) bool { return f.Detail != "" && f.Detail != found.Detail }))
	require.NoError(t, os.Mkdir(root, 0o755))
	left, err := filepath.Glob(filepath.Join(root, "*"))
	require.NoError(t, err)
	require.Empty(t, left, "nothing is written below an unmounted volume")
}

// What another unit has changed in a release is found before it is run.
func TestChangedReleaseIsNotRun(t *testing.T) {
	m, root, c := newMirror(t), t.TempDir(), start(t)
	spec := supervisor.Spec{Unit: "ci/0", Root: root, Source: m.URL + "/o/r", Fetch: "7.14.3"}
	require.NoError(t, c.files.PutSpec(spec))
	eventually(t, "the release", c.saw(func(f supervisor.Status) bool { return f.Installed == "7.14.3" && f.Contents != "" }))
	found, err := c.files.Status()
	require.NoError(t, err)

	program := filepath.Join(root, "releases", "7.14.3", "bin", "concourse")
	content, err := os.ReadFile(program)
	require.NoError(t, err)
	content[0] ^= 1
	require.NoError(t, os.Chmod(program, 0o755))
	require.NoError(t, os.WriteFile(program, content, 0o755))
	require.NoError(t, os.Chmod(program, 0o555))
	spec = m.serving(root, 1, "7.14.3")
	spec.Contents = map[string]string{"7.14.3": found.Contents}
	require.NoError(t, c.files.PutSpec(spec))
	eventually(t, "the damage", c.saw(func(f supervisor.Status) bool { return strings.Contains(f.Stuck, "bin/concourse has other contents") }))
	require.Empty(t, c.system.Done())

	spec.Contents["7.14.3"] = "sha256:another"
	require.NoError(t, c.files.PutSpec(spec))
	eventually(t, "that it is another", c.saw(func(f supervisor.Status) bool { return f.Changed == "7.14.3" && f.Run == "" }))
}

// serving is the spec of a unit that runs a web server and a worker.
func (m *mirror) serving(root string, webPort int, version string) supervisor.Spec {
	return supervisor.Spec{
		Unit: "ci/0", Root: root, Source: m.URL + "/o/r", Fetch: version, Run: version, Activate: true,
		Web: &concourse.Web{Port: webPort}, Worker: &concourse.Worker{Name: "ci-0"}, Members: []string{"ci/0"},
	}
}

func workerAt(port int) func(*supervisor.Supervisor) {
	return func(s *supervisor.Supervisor) { s.WorkerPort = port }
}

func TestServices(t *testing.T) {
	var version atomic.Value
	version.Store("7.14.2")
	m := newMirror(t)
	port := service(t, func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, `{"version":%q}`, version.Load())
	})

	c := start(t, workerAt(port))
	spec := m.serving(t.TempDir(), port, "7.14.2")
	require.NoError(t, c.files.PutSpec(spec))
	both := func(f supervisor.Status) bool {
		return f.Web == supervisor.Answer{Version: "7.14.2", Is: spec.Web.Identity()} &&
			f.Worker == supervisor.Answer{Version: "7.14.2", Is: spec.Worker.Identity()} && f.Overdue == ""
	}
	eventually(t, "both answer", c.saw(both))
	require.ElementsMatch(t, []string{"start " + concourse.ServerUnit, "start " + concourse.WorkerUnit}, c.system.Done())
	definition, atBoot := c.system.Definition(concourse.ServerUnit)
	require.Contains(t, definition, "ExecStart=/var/lib/concourse/releases/7.14.2/bin/concourse web\n")
	require.False(t, atBoot, "a unit that was off may have missed an upgrade")

	spec.Fetch, spec.Run, spec.Worker = "7.14.3", "7.14.3", nil
	require.NoError(t, c.files.PutSpec(spec))
	eventually(t, "an overdue version", c.saw(func(f supervisor.Status) bool {
		return f.Overdue == "7.14.3" && f.Worker == supervisor.Answer{}
	}))
	require.ElementsMatch(t, []string{"start " + concourse.ServerUnit, "remove " + concourse.WorkerUnit}, c.system.Done())
	version.Store("7.14.3")
	eventually(t, "its late answer", c.saw(func(f supervisor.Status) bool { return f.Web.Version == "7.14.3" && f.Overdue == "" }))
}

// A file that a process reads anew is no reason to start it anew.
func TestServiceIsReloaded(t *testing.T) {
	m, c := newMirror(t), start(t)
	spec := m.serving(t.TempDir(), 1, "7.14.3")
	spec.Worker = nil
	require.NoError(t, c.files.PutSpec(spec))
	did := func(what string) {
		t.Helper()
		eventually(t, what, func() bool { return slices.Contains(c.system.Done(), what) })
	}
	did("start " + concourse.ServerUnit)
	web := *spec.Web
	web.AuthorizedKeys = "ssh-rsa ONE\n"
	spec.Web = &web
	require.NoError(t, c.files.PutSpec(spec))
	did("reload " + concourse.ServerUnit)
	keys, err := os.ReadFile(filepath.Join(string(c.files), "web", "authorized_worker_keys"))
	require.NoError(t, err)
	require.Equal(t, "ssh-rsa ONE\n", string(keys))

	web.Keys.HostKey = "replaced"
	require.NoError(t, c.files.PutSpec(spec))
	did("start " + concourse.ServerUnit)
	for _, name := range []string{"concourse-server.env", "web/tsa_host_key", "web/session_signing_key", "worker/worker_key"} {
		info, err := os.Stat(filepath.Join(string(c.files), name))
		require.NoError(t, err)
		require.Equal(t, os.FileMode(0o600), info.Mode(), name)
	}
}

// A service that has ended is started, and what the supervisor did before it was started
// anew is not done again.
func TestSupervisorStartedAnew(t *testing.T) {
	m := newMirror(t)
	c := newCharm(t)
	answer := service(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"version":"7.14.3"}`) })
	end := c.run(t, workerAt(answer))
	require.NoError(t, c.files.PutSpec(m.serving(t.TempDir(), answer, "7.14.3")))
	both := func(f supervisor.Status) bool { return f.Web.Version != "" && f.Worker.Version != "" }
	eventually(t, "both answer", c.saw(both))
	require.Len(t, c.system.Done(), 2)
	end()
	require.NoError(t, c.files.PutStatus(supervisor.Status{}))
	c.system.Stop(concourse.WorkerUnit) // the machine was off, too, say
	c.run(t, workerAt(answer))
	eventually(t, "both answer", func() bool {
		status, err := c.files.Status()
		return err == nil && both(status) && status.Installed != ""
	})
	require.Equal(t, []string{"start " + concourse.WorkerUnit}, c.system.Done())
}

// What cannot be done is said, and done when it can be.
func TestStuck(t *testing.T) {
	m := newMirror(t)
	var strike atomic.Bool
	strike.Store(true)
	c := newCharm(t)
	c.system.Fail = func(what string) error {
		if strike.Load() && what == "start "+concourse.ServerUnit {
			return errors.New("systemd is on strike")
		}
		return nil
	}
	c.run(t)
	require.NoError(t, c.files.PutSpec(m.serving(t.TempDir(), 1, "7.14.3")))
	eventually(t, "what is wrong", c.saw(func(f supervisor.Status) bool { return f.Stuck == "systemd is on strike" }))
	require.Equal(t, []string{"start " + concourse.WorkerUnit}, c.system.Done(), "the other service starts none the less")
	strike.Store(false)
	eventually(t, "that it is well", c.saw(func(f supervisor.Status) bool { return f.Stuck == "" }))
	require.Equal(t, []string{"start " + concourse.ServerUnit}, c.system.Done())
}

// A worker whose volume is lost would fill the directory underneath.
func TestLostVolume(t *testing.T) {
	m, root := newMirror(t), t.TempDir()
	var lost atomic.Bool
	c := start(t, losing(&lost))
	require.NoError(t, c.files.PutSpec(m.serving(root, 1, "7.14.3")))
	eventually(t, "both run", func() bool { return len(c.system.Up()) == 2 })
	lost.Store(true)
	eventually(t, "the fault", c.saw(func(f supervisor.Status) bool { return f.Fault == supervisor.NotMounted }))
	eventually(t, "the worker to stop", func() bool { return slices.Equal(c.system.Up(), []string{concourse.ServerUnit}) })
	lost.Store(false)
	eventually(t, "both run", func() bool { return len(c.system.Up()) == 2 })
}

// Each fault is told apart. One with which the volume cannot be used stops the worker, and
// no other one does.
func TestFaultsOfAVolume(t *testing.T) {
	for _, test := range []struct {
		err   error
		fault supervisor.Fault
		stops bool
	}{
		{coordinator.ErrNotMounted, supervisor.NotMounted, true},
		{coordinator.ErrUnmarked, supervisor.Unmarked, true},
		{coordinator.ErrForeignVolume, supervisor.Foreign, true},
		{coordinator.ErrOtherOwner, supervisor.OtherModel, true},
		{coordinator.ErrNewerLayout, supervisor.Newer, true},
		{fmt.Errorf("%w: %w", coordinator.ErrForeignVolume, coordinator.ErrDamaged), supervisor.Broken, true},
		{coordinator.ErrReadOnly, supervisor.ReadOnly, true},
		{coordinator.ErrNoExec, supervisor.NoExec, true},
		{coordinator.ErrHung, supervisor.Hung, true},
		{errors.New("input/output error"), supervisor.Broken, true},
		{coordinator.ErrNoSpace, supervisor.Full, false},
		{coordinator.ErrNoAccess, supervisor.NoAccess, false},
	} {
		t.Run(fmt.Sprint(test.err), func(t *testing.T) {
			m := newMirror(t)
			var spoiled atomic.Bool
			c := start(t, func(s *supervisor.Supervisor) {
				open := s.Open
				s.Open = func(ctx context.Context, root string, o coordinator.Options) (supervisor.Volume, error) {
					v, err := open(ctx, root, o)
					return spoilt{v, test.err, &spoiled}, err
				}
			})
			require.NoError(t, c.files.PutSpec(m.serving(t.TempDir(), 1, "7.14.3")))
			both := func() bool { return len(c.system.Up()) == 2 }
			eventually(t, "both run", both)
			c.system.Done()
			spoiled.Store(true)
			eventually(t, "the fault", c.saw(func(f supervisor.Status) bool { return f.Fault == test.fault && f.Detail != "" }))
			if test.stops {
				eventually(t, "the worker to stop", func() bool { return slices.Equal(c.system.Up(), []string{concourse.ServerUnit}) })
			} else {
				c.system.Stop(concourse.WorkerUnit)
				eventually(t, "a worker that ended to be started", both)
			}
			spoiled.Store(false)
			eventually(t, "no fault", c.saw(func(f supervisor.Status) bool { return f.Fault == supervisor.Healthy && f.Detail == "" }))
			eventually(t, "both run", both)
			require.NotContains(t, c.system.Done(), "start "+concourse.ServerUnit)
		})
	}
}

// On a volume that is full not even its id may have room.
func TestFullVolumeCannotBeOpened(t *testing.T) {
	var full atomic.Bool
	full.Store(true)
	m := newMirror(t)
	c := start(t, func(s *supervisor.Supervisor) {
		open := s.Open
		s.Open = func(ctx context.Context, root string, o coordinator.Options) (supervisor.Volume, error) {
			if full.Load() {
				return nil, coordinator.ErrNoSpace
			}
			return open(ctx, root, o)
		}
	})
	require.NoError(t, c.files.PutSpec(m.serving(t.TempDir(), 1, "7.14.3")))
	eventually(t, "the fault", c.saw(func(f supervisor.Status) bool { return f.Fault == supervisor.Full }))
	require.Empty(t, c.system.Up())
	full.Store(false)
	eventually(t, "both run", func() bool { return len(c.system.Up()) == 2 })
}

// spoilt is a volume that has a fault, of a user if it is that.
type spoilt struct {
	supervisor.Volume
	err     error
	spoiled *atomic.Bool
}

func (v spoilt) Check(ctx context.Context) error {
	if v.spoiled.Load() && !errors.Is(v.err, coordinator.ErrNoAccess) {
		return v.err
	}
	return v.Volume.Check(ctx)
}

func (v spoilt) Executable(ctx context.Context, version string, uid, gid int) error {
	if v.spoiled.Load() && errors.Is(v.err, coordinator.ErrNoAccess) {
		return v.err
	}
	return v.Volume.Executable(ctx, version, uid, gid)
}

func losing(lost *atomic.Bool) func(*supervisor.Supervisor) {
	return func(s *supervisor.Supervisor) {
		open := s.Open
		s.Open = func(ctx context.Context, root string, o coordinator.Options) (supervisor.Volume, error) {
			v, err := open(ctx, root, o)
			return losable{v, lost}, err
		}
	}
}

// losable is a volume that can be lost.
type losable struct {
	supervisor.Volume
	lost *atomic.Bool
}

func (v losable) Check(ctx context.Context) error {
	if v.lost.Load() {
		return coordinator.ErrNotMounted
	}
	return v.Volume.Check(ctx)
}

// The last of two leaders to change its version has said what is current; the other one
// goes on with what it runs, and does not say it anew without end.
func TestTwoApplicationsOnOneVolume(t *testing.T) {
	m, root := newMirror(t), t.TempDir()
	runs := func(unit, version, over string) {
		c := start(t)
		spec := m.serving(root, 1, version)
		spec.Unit, spec.Worker, spec.Over = unit, nil, over
		require.NoError(t, c.files.PutSpec(spec))
		eventually(t, unit, func() bool { return slices.Equal(c.system.Done(), []string{"start " + concourse.ServerUnit}) })
	}
	runs("ci/0", "7.14.2", "")
	runs("other/0", "7.14.3", "7.14.2")
	volume, err := coordinator.Open(t.Context(), root, coordinator.Options{Unit: "ci/9", Product: product.Concourse})
	require.NoError(t, err)
	for range 10 {
		time.Sleep(20 * time.Millisecond)
		current, err := volume.Current(t.Context())
		require.NoError(t, err)
		require.Equal(t, coordinator.Activation{Generation: 2, Version: "7.14.3", Unit: "other/0"}, current)
	}
}

func TestLeaves(t *testing.T) {
	m, root := newMirror(t), t.TempDir()
	var lost atomic.Bool
	c := start(t, losing(&lost))
	spec := m.serving(root, 1, "7.14.3")
	spec.Web, spec.Worker = nil, &concourse.Worker{Name: "ci-0", TSAHost: "10.0.0.9:2222"}
	require.NoError(t, c.files.PutSpec(spec))
	eventually(t, "the worker", func() bool { return slices.Equal(c.system.Done(), []string{"start " + concourse.WorkerUnit}) })
	require.DirExists(t, filepath.Join(root, "worker", "ci-0"))
	spec.Leaving = true
	require.NoError(t, c.files.PutSpec(spec))
	eventually(t, "that it has left", c.saw(func(f supervisor.Status) bool { return f.Left }))
	require.Equal(t, []string{"concourse retire-worker --name=ci-0", "remove " + concourse.WorkerUnit}, c.system.Done())
	lost.Store(true)
	eventually(t, "the fault", c.saw(func(f supervisor.Status) bool { return f.Fault == supervisor.NotMounted }))
	lost.Store(false)
	eventually(t, "its end", c.saw(func(f supervisor.Status) bool { return f.Fault == supervisor.Healthy }))
	for _, left := range []string{"worker/ci-0", "pins/ci-0", "probes/ci-0"} {
		require.NoFileExists(t, filepath.Join(root, left))
		require.NoDirExists(t, filepath.Join(root, left))
	}

	spec.Leaving = false // the machine was only stopped
	require.NoError(t, c.files.PutSpec(spec))
	eventually(t, "the worker", func() bool { return slices.Equal(c.system.Done(), []string{"start " + concourse.WorkerUnit}) })
}

// The web server shows a worker that is gone as running, or stalled, until it is retired.
func TestRetiresWhoIsGone(t *testing.T) {
	keys, err := concourse.NewKeys()
	require.NoError(t, err)
	m := newMirror(t)
	port := service(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"version":"7.14.3"}`) })
	c := start(t)
	spec := m.serving(t.TempDir(), port, "7.14.3")
	spec.Web, spec.Worker, spec.Members = &concourse.Web{Port: port, Keys: keys}, nil, []string{"ci/0", "ci/1", "ci/2"}
	require.NoError(t, c.files.PutSpec(spec))
	eventually(t, "the web server", c.saw(func(f supervisor.Status) bool { return f.Web.Version != "" }))
	c.system.Done()
	spec.Members = []string{"ci/0"}
	require.NoError(t, c.files.PutSpec(spec))
	var did []string
	eventually(t, "both retired", func() bool { did = append(did, c.system.Done()...); return len(did) == 2 })
	require.Equal(t, []string{"concourse retire-worker --name=ci-1", "concourse retire-worker --name=ci-2"}, did)
}

// service is a local server for the port of the wish.
func service(t testing.TB, answer http.HandlerFunc) int {
	t.Helper()
	server := httptest.NewServer(answer)
	t.Cleanup(server.Close)
	address, err := url.Parse(server.URL)
	require.NoError(t, err)
	port, err := strconv.Atoi(address.Port())
	require.NoError(t, err)
	return port
}

// checks is a web server that notes what the supervisor had found at each check.
type checks struct {
	down  func() bool
	files supervisor.Files
	mu    sync.Mutex
	saw   []supervisor.Status // since it went down
}

func (s *checks) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	if !s.down() {
		fmt.Fprint(w, `{"version":"7.14.2"}`)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if found, err := s.files.Status(); err == nil {
		s.saw = append(s.saw, found)
	}
	w.WriteHeader(http.StatusServiceUnavailable)
}

// first waits for n checks and returns what had been found before each.
func (s *checks) first(t *testing.T, n int) (saw []supervisor.Status) {
	t.Helper()
	eventually(t, "some checks", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		saw = slices.Clone(s.saw)
		return len(saw) >= n
	})
	return saw[:n]
}

func TestOneMissIsNoOutage(t *testing.T) {
	var down atomic.Bool
	s := &checks{down: down.Load}
	port := service(t, s.ServeHTTP)
	c := start(t, workerAt(port))
	s.files = c.files
	require.NoError(t, c.files.PutSpec(newMirror(t).serving(t.TempDir(), port, "7.14.2")))
	both := func(f supervisor.Status) bool { return f.Web.Version == "7.14.2" && f.Worker.Version == "7.14.2" }
	eventually(t, "both answer", c.saw(both))
	down.Store(true)
	for i, found := range s.first(t, 5) { // web and worker take turns
		require.True(t, both(found), "after %d checks", i)
	}
	eventually(t, "the outage", c.saw(func(f supervisor.Status) bool { return f.Web.Version == "" && f.Worker.Version == "" }))
}

func TestServiceStartedAnew(t *testing.T) {
	var silent atomic.Bool
	s := &checks{down: silent.Load}
	port := service(t, s.ServeHTTP)
	c := start(t, workerAt(port))
	s.files = c.files
	spec := newMirror(t).serving(t.TempDir(), port, "7.14.2")
	require.NoError(t, c.files.PutSpec(spec))
	eventually(t, "both answer", c.saw(func(f supervisor.Status) bool { return f.Web.Version != "" && f.Worker.Version != "" }))
	silent.Store(true)
	web, worker := *spec.Web, *spec.Worker
	web.LogLevel, worker.LogLevel = "debug", "debug"
	spec.Web, spec.Worker = &web, &worker
	require.NoError(t, c.files.PutSpec(spec))
	eventually(t, "no answers: these were those of other processes", c.saw(func(f supervisor.Status) bool {
		return f.Web == supervisor.Answer{Is: web.Identity()} && f.Worker == supervisor.Answer{Is: worker.Identity()}
	}))
	eventually(t, "its deadline", c.saw(func(f supervisor.Status) bool { return f.Overdue == "7.14.2" }))
	web.LogLevel = "info"
	require.NoError(t, c.files.PutSpec(spec))
	eventually(t, "a deadline of its own", c.saw(func(f supervisor.Status) bool { return f.Overdue == "" }))
}

func TestWorkerIsCheckedBesideAWebServerThatHangs(t *testing.T) {
	hanging := service(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	c := start(t, workerAt(service(t, func(http.ResponseWriter, *http.Request) {})))
	require.NoError(t, c.files.PutSpec(newMirror(t).serving(t.TempDir(), hanging, "7.14.3")))
	eventually(t, "the worker", c.saw(func(f supervisor.Status) bool { return f.Worker.Version == "7.14.3" }))
}

func TestFirstLookIsNewsEvenOfNothing(t *testing.T) {
	c := newCharm(t)
	require.NoError(t, c.files.PutStatus(supervisor.Status{Web: supervisor.Answer{Version: "7.14.2"}})) // of an earlier life
	require.NoError(t, c.files.PutSpec(supervisor.Spec{Unit: "ci/0", Root: t.TempDir(), Shared: true}))
	c.run(t)
	eventually(t, "a wake", func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.wakes > 0 && c.found == supervisor.Status{WorkerKey: c.found.WorkerKey, Fault: supervisor.NotMounted, Detail: c.found.Detail}
	})
}

// A hook that came before the supervisor had looked has written no spec.
func TestFirstLookIsNewsWithoutASpec(t *testing.T) {
	eventually(t, "a wake", start(t).saw(func(f supervisor.Status) bool { return f.WorkerKey != "" }))
}

func TestWakesAgainWhenTheAgentIsBusy(t *testing.T) {
	c := start(t)
	c.setBusy(true)
	require.NoError(t, c.files.PutSpec(supervisor.Spec{Unit: "ci/0", Root: t.TempDir()}))
	time.Sleep(100 * time.Millisecond)
	c.setBusy(false)
	eventually(t, "the wake that was missed", c.saw(func(f supervisor.Status) bool { return f.WorkerKey != "" }))
}

func TestCollectsOncePerVersion(t *testing.T) {
	m, c := newMirror(t), start(t)
	root := t.TempDir()
	stray := filepath.Join(root, "releases", "7.14.1")
	want := supervisor.Spec{Unit: "ci/0", Root: root, Source: m.URL + "/o/r", Fetch: "7.14.3"}
	require.NoError(t, c.files.PutSpec(want))
	eventually(t, "the release", c.saw(func(f supervisor.Status) bool { return f.Installed == "7.14.3" }))
	volume, err := coordinator.Open(t.Context(), root, coordinator.Options{Unit: "ci/0", Product: product.Concourse})
	require.NoError(t, err)
	_, err = volume.Activate(context.Background(), "7.14.3")
	require.NoError(t, err)
	require.NoError(t, os.Mkdir(stray, 0o755))

	want.Collect = true
	require.NoError(t, c.files.PutSpec(want))
	eventually(t, "the stray release to go", func() bool {
		_, err := os.Stat(stray)
		return errors.Is(err, fs.ErrNotExist)
	})
	require.FileExists(t, filepath.Join(root, "releases", "7.14.3", "bin", "concourse"))

	// A unit that was off does not know what the others want by now, until a hook says so.
	require.NoError(t, os.Mkdir(stray, 0o755))
	off := newCharm(t)
	off.setBusy(true)
	require.NoError(t, off.files.PutSpec(want))
	off.run(t)
	eventually(t, "a look", func() bool {
		status, err := off.files.Status()
		return err == nil && status.Installed == "7.14.3"
	})
	time.Sleep(100 * time.Millisecond)
	require.DirExists(t, stray)
	off.setBusy(false)
	eventually(t, "the stray release to go after a hook", func() bool { return !exists(stray) })
}

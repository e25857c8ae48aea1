package watcher_test

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

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/watcher"
	"github.com/concourse-ci-machine/concourse-ci-machine/charm/product"
	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator"
	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/probe"
)

// archive is a release that is small, but has the layout of a genuine one.
func archive(t *testing.T) []byte {
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

// mirror serves version 7.14.3 and counts downloads.
type mirror struct {
	*httptest.Server
	downloads atomic.Int32
	down      atomic.Bool
}

func newMirror(t *testing.T) *mirror {
	data := archive(t)
	m := &mirror{}
	m.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		const name = "/o/r/releases/download/v7.14.3/concourse-7.14.3-linux-amd64.tgz"
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
	mu    sync.Mutex
	files watcher.Files
	busy  bool
	wakes int
	found watcher.Found
	log   []string
}

func (c *charm) wake(context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.busy {
		return errors.New("agent is not up")
	}
	c.wakes++
	records, err := c.files.Journal().Take()
	for _, r := range records {
		c.log = append(c.log, r.Message)
	}
	if err == nil {
		c.found, err = c.files.Found()
	}
	return err
}

func (c *charm) saw(ready func(watcher.Found) bool) func() bool {
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

func start(t *testing.T) *charm {
	t.Helper()
	c := &charm{files: watcher.Files(t.TempDir())}
	w := watcher.Watcher{
		Files: c.files,
		Open: func(ctx context.Context, root string, o coordinator.Options) (watcher.Volume, error) {
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
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		require.ErrorIs(t, <-done, context.Canceled)
	})
	return c
}

// eventually has no limit of its own: a disk that is busy with other work may not
// answer for half a minute. What is missing it says just before go test gives up.
func eventually(t *testing.T, what string, ready func() bool) {
	t.Helper()
	deadline, limited := t.Deadline()
	for !ready() {
		if limited && time.Until(deadline) < 5*time.Second {
			t.Fatalf("%s did not come", what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func TestInstallsAndWakes(t *testing.T) {
	m, c := newMirror(t), start(t)
	want := watcher.Want{Unit: "ci/0", Root: t.TempDir(), Source: m.URL + "/o/r", Newest: true}
	require.NoError(t, c.files.PutWant(want))
	eventually(t, "the newest version", c.saw(func(f watcher.Found) bool { return f.Newest == "7.14.3" }))

	want.Newest, want.Version = false, "7.14.3"
	require.NoError(t, c.files.PutWant(want))
	eventually(t, "the release", c.saw(func(f watcher.Found) bool {
		return f.Installed == "7.14.3" && f.Newest == "" && f.Mounted && f.Trying == ""
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
		require.NoError(t, c.files.PutWant(watcher.Want{Unit: unit, Root: root, Source: m.URL + "/o/r", Version: "7.14.3"}))
		eventually(t, unit, c.saw(func(f watcher.Found) bool { return f.Installed == "7.14.3" }))
	}
	require.EqualValues(t, 1, m.downloads.Load())
}

func TestFailureIsToldAndRecovers(t *testing.T) {
	m, c := newMirror(t), start(t)
	want := watcher.Want{Unit: "ci/0", Root: t.TempDir(), Source: m.URL + "/o/r", Version: "7.14.9"}
	require.NoError(t, c.files.PutWant(want))
	eventually(t, "the failure", c.saw(func(f watcher.Found) bool { return f.Failure != "" && f.Trying == "7.14.9" }))

	want.Version = "7.14.3"
	require.NoError(t, c.files.PutWant(want))
	eventually(t, "the other version", c.saw(func(f watcher.Found) bool { return f.Installed == "7.14.3" && f.Failure == "" }))
}

func TestVolumeThatIsNotMounted(t *testing.T) {
	m, c := newMirror(t), start(t)
	root := t.TempDir()
	require.NoError(t, c.files.PutWant(watcher.Want{Unit: "ci/0", Root: root, Shared: true, Source: m.URL + "/o/r", Version: "7.14.3"}))
	eventually(t, "why it is not mounted", c.saw(func(f watcher.Found) bool { return strings.Contains(f.Fault, root) }))
	found, err := c.files.Found()
	require.NoError(t, err)
	require.Equal(t, watcher.Found{Fault: found.Fault}, found)
	require.NoError(t, os.RemoveAll(root))
	eventually(t, "another fault of it", c.saw(func(f watcher.Found) bool { return f.Fault != "" && f.Fault != found.Fault }))
	require.NoError(t, os.Mkdir(root, 0o755))
	left, err := filepath.Glob(filepath.Join(root, "*"))
	require.NoError(t, err)
	require.Empty(t, left, "nothing is written below an unmounted volume")
}

func TestServices(t *testing.T) {
	var version atomic.Value
	version.Store("7.14.2")
	port := service(t, func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, `{"version":%q}`, version.Load())
	})

	c := start(t)
	want := watcher.Want{Unit: "ci/0", Root: t.TempDir(), WebPort: port, WebVersion: "7.14.2", WorkerPort: port, WorkerVersion: "7.14.2"}
	require.NoError(t, c.files.PutWant(want))
	eventually(t, "both answer", c.saw(func(f watcher.Found) bool {
		return f.Web == "7.14.2" && f.Worker == "7.14.2" && f.Overdue == ""
	}))

	want.WebVersion, want.WorkerPort, want.WorkerVersion = "7.14.3", 0, ""
	require.NoError(t, c.files.PutWant(want))
	eventually(t, "an overdue version", c.saw(func(f watcher.Found) bool { return f.Overdue == "7.14.3" && f.Worker == "" }))
	version.Store("7.14.3")
	eventually(t, "its late answer", c.saw(func(f watcher.Found) bool { return f.Web == "7.14.3" && f.Overdue == "" }))
}

// service is a local server for the port of the wish.
func service(t *testing.T, answer http.HandlerFunc) int {
	t.Helper()
	server := httptest.NewServer(answer)
	t.Cleanup(server.Close)
	address, err := url.Parse(server.URL)
	require.NoError(t, err)
	port, err := strconv.Atoi(address.Port())
	require.NoError(t, err)
	return port
}

// checks is a web server that notes what the watcher had found at each check.
type checks struct {
	down  func() bool
	files watcher.Files
	mu    sync.Mutex
	saw   []watcher.Found // since it went down
}

func (s *checks) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	if !s.down() {
		fmt.Fprint(w, `{"version":"7.14.2"}`)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if found, err := s.files.Found(); err == nil {
		s.saw = append(s.saw, found)
	}
	w.WriteHeader(http.StatusServiceUnavailable)
}

// first waits for n checks and returns what had been found before each.
func (s *checks) first(t *testing.T, n int) (saw []watcher.Found) {
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
	c := start(t)
	var down atomic.Bool
	s := &checks{down: down.Load, files: c.files}
	port := service(t, s.ServeHTTP)
	want := watcher.Want{Unit: "ci/0", Root: t.TempDir(), WebPort: port, WebVersion: "7.14.2", WorkerPort: port, WorkerVersion: "7.14.2"}
	require.NoError(t, c.files.PutWant(want))
	both := func(f watcher.Found) bool { return f.Web == "7.14.2" && f.Worker == "7.14.2" }
	eventually(t, "both answer", c.saw(both))
	down.Store(true)
	for i, found := range s.first(t, 5) { // web and worker take turns
		require.True(t, both(found), "after %d checks", i)
	}
	eventually(t, "the outage", c.saw(func(f watcher.Found) bool { return f.Web == "" && f.Worker == "" }))
}

func TestServiceStartedAnew(t *testing.T) {
	c := start(t)
	s := &checks{files: c.files, down: func() bool {
		want, err := c.files.Want()
		return err == nil && want.WebService != "first"
	}}
	port := service(t, s.ServeHTTP)
	want := watcher.Want{Unit: "ci/0", Root: t.TempDir(), WebPort: port, WebVersion: "7.14.2", WebService: "first",
		WorkerPort: port, WorkerVersion: "7.14.2", WorkerService: "first"}
	require.NoError(t, c.files.PutWant(want))
	eventually(t, "both answer", c.saw(func(f watcher.Found) bool { return f.Web == "7.14.2" && f.Worker == "7.14.2" }))
	want.WebService, want.WorkerService = "second", "second"
	require.NoError(t, c.files.PutWant(want))
	// One look may be under way, the next one knows better.
	after := s.first(t, 5)[4]
	require.Empty(t, after.Web+after.Worker, "these answers were those of other processes")

	eventually(t, "its deadline", c.saw(func(f watcher.Found) bool { return f.Overdue == "7.14.2" }))
	want.WebService = "third"
	require.NoError(t, c.files.PutWant(want))
	eventually(t, "a deadline of its own", c.saw(func(f watcher.Found) bool { return f.Overdue == "" }))
}

func TestWorkerIsCheckedBesideAWebServerThatHangs(t *testing.T) {
	c := start(t)
	hanging := service(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	healthy := service(t, func(http.ResponseWriter, *http.Request) {})
	require.NoError(t, c.files.PutWant(watcher.Want{Unit: "ci/0", Root: t.TempDir(),
		WebPort: hanging, WebVersion: "7.14.2", WorkerPort: healthy, WorkerVersion: "7.14.2"}))
	eventually(t, "the worker", c.saw(func(f watcher.Found) bool { return f.Worker == "7.14.2" }))
}

func TestFirstLookIsNewsEvenOfNothing(t *testing.T) {
	c := start(t)
	require.NoError(t, c.files.PutFound(watcher.Found{Mounted: true, Web: "7.14.2"})) // of an earlier life
	require.NoError(t, c.files.PutWant(watcher.Want{Unit: "ci/0", Root: t.TempDir(), Shared: true}))
	eventually(t, "a wake", func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.wakes > 0 && c.found == watcher.Found{Fault: c.found.Fault}
	})
}

func TestWakesAgainWhenTheAgentIsBusy(t *testing.T) {
	c := start(t)
	c.setBusy(true)
	require.NoError(t, c.files.PutWant(watcher.Want{Unit: "ci/0", Root: t.TempDir()}))
	time.Sleep(100 * time.Millisecond)
	c.setBusy(false)
	eventually(t, "the wake that was missed", c.saw(func(f watcher.Found) bool { return f.Mounted }))
}

func TestCollectsOncePerVersion(t *testing.T) {
	m, c := newMirror(t), start(t)
	root := t.TempDir()
	stray := filepath.Join(root, "releases", "7.14.1")
	want := watcher.Want{Unit: "ci/0", Root: root, Source: m.URL + "/o/r", Version: "7.14.3"}
	require.NoError(t, c.files.PutWant(want))
	eventually(t, "the release", c.saw(func(f watcher.Found) bool { return f.Installed == "7.14.3" }))
	volume, err := coordinator.Open(t.Context(), root, coordinator.Options{Unit: "ci/0", Product: product.Concourse})
	require.NoError(t, err)
	_, err = volume.Activate(context.Background(), "7.14.3")
	require.NoError(t, err)
	require.NoError(t, os.Mkdir(stray, 0o755))

	want.Collect = true
	require.NoError(t, c.files.PutWant(want))
	eventually(t, "the stray release to go", func() bool {
		_, err := os.Stat(stray)
		return errors.Is(err, fs.ErrNotExist)
	})
	require.FileExists(t, filepath.Join(root, "releases", "7.14.3", "bin", "concourse"))
}

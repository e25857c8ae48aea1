package supervisor_test

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/concourse"
	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/concourse/concoursetest"
	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/supervisor"
	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator"
	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/probe"
)

// What a supervisor does in the background.
const (
	install = "install"
	pin     = "pin"
	newest  = "newest"
	collect = "collect"
	probing = "probe"
	wake    = "wake"
)

// slowVolume is a volume on a slow mount: a call of one kind goes on after its
// context has ended, until the mount answers. Calls of other kinds succeed.
type slowVolume struct {
	slow   string
	answer chan struct{} // closed: the mount answers

	mu       sync.Mutex
	began    int // calls of the slow kind
	underWay int
	most     int // that were under way at a time
	ending   int // under way, though their context has ended
}

func (v *slowVolume) call(ctx context.Context, kind string) error {
	if kind != v.slow {
		return nil
	}
	v.count(func() { v.began++; v.underWay++; v.most = max(v.most, v.underWay) })
	<-ctx.Done()
	v.count(func() { v.ending++ })
	<-v.answer
	v.count(func() { v.ending--; v.underWay-- })
	return ctx.Err()
}

func (v *slowVolume) count(change func()) {
	v.mu.Lock()
	defer v.mu.Unlock()
	change()
}

func (v *slowVolume) Check(context.Context) error { return nil }

func (v *slowVolume) Executable(context.Context, string, int, int) error { return nil }

func (v *slowVolume) Ensure(ctx context.Context, version string) (coordinator.Release, error) {
	return coordinator.Release{Version: version}, v.call(ctx, install)
}

func (v *slowVolume) Reinstall(context.Context, string) (coordinator.Release, error) {
	return coordinator.Release{}, errors.ErrUnsupported
}

func (v *slowVolume) VolumeID() string { return "" }

func (v *slowVolume) Verify(context.Context, string, func(done, total int64)) error { return nil }

func (v *slowVolume) Installed(_ context.Context, version string) (coordinator.Release, error) {
	if v.slow == install {
		return coordinator.Release{}, coordinator.ErrNotInstalled
	}
	return coordinator.Release{Version: version}, nil
}

func (v *slowVolume) WorkerDir(context.Context) (string, error) { return "/volume/worker/ci-0", nil }

func (v *slowVolume) WorkerDirBelow(context.Context, string, []string) (string, error) {
	return "", errors.ErrUnsupported
}

func (v *slowVolume) RemoveWorkerDir(context.Context) error { return errors.ErrUnsupported }

func (v *slowVolume) Activate(context.Context, string) (coordinator.Activation, error) {
	return coordinator.Activation{}, nil
}

func (v *slowVolume) Pin(ctx context.Context, version string) (coordinator.Release, error) {
	return coordinator.Release{Version: version}, v.call(ctx, pin)
}

func (v *slowVolume) Units(context.Context) ([]string, error) { return nil, nil }

func (v *slowVolume) Forget(context.Context, string) error { return errors.ErrUnsupported }

func (v *slowVolume) Leave(context.Context) error { return errors.ErrUnsupported }

func (v *slowVolume) Recheck(_ context.Context, version string) (coordinator.Release, error) {
	return coordinator.Release{Version: version}, nil
}

func (v *slowVolume) Current(context.Context) (coordinator.Activation, error) {
	return coordinator.Activation{}, coordinator.ErrNotActivated
}

func (v *slowVolume) Collect(ctx context.Context) ([]string, error) {
	return nil, v.call(ctx, collect)
}

func (v *slowVolume) Probe(ctx context.Context) (probe.Result, error) {
	return probe.Result{}, v.call(ctx, probing)
}

// everything is a spec that sets every kind of call going.
var everything = supervisor.Spec{Unit: "ci/0", Root: "/volume", Source: "http://mirror", Fetch: "7.14.3", Run: "7.14.3", Newest: true, Collect: true}

// letLook gives the supervisor time for many looks, on the clock of the bubble.
func letLook() {
	time.Sleep(10 * time.Second)
	synctest.Wait()
}

// startSlow runs a supervisor in a bubble until a call of the kind is under way.
func startSlow(t *testing.T, kind string) (v *slowVolume, files supervisor.Files, end context.CancelFunc, ended <-chan error) {
	t.Helper()
	v = &slowVolume{slow: kind, answer: make(chan struct{})}
	files = newCharm(t).files
	paths := concourse.Paths{Volume: "/volume", State: string(files)}
	w := supervisor.Supervisor{
		Paths: paths, System: concoursetest.New(),
		Open: func(context.Context, string, coordinator.Options) (supervisor.Volume, error) { return v, nil },
		Newest: func(ctx context.Context, _ *http.Client, _ string) (string, error) {
			return "7.14.3", v.call(ctx, newest)
		},
		Wake: func(ctx context.Context) error { return v.call(ctx, wake) },
		Log:  slog.New(slog.DiscardHandler),
	}
	w.Defaults()
	require.NoError(t, files.PutSpec(everything))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	synctest.Wait()
	if kind == collect { // which waits for a hook
		later := time.Now().Add(time.Hour)
		require.NoError(t, os.Chtimes(filepath.Join(string(files), "spec.json"), later, later))
		time.Sleep(2 * w.Interval)
		synctest.Wait()
	}
	require.Equal(t, 1, v.underWay, "calls under way")
	return v, files, cancel, done
}

func TestRunReturnsAfterAllItBegan(t *testing.T) {
	for _, kind := range []string{install, pin, newest, collect, probing, wake} {
		t.Run(kind, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				v, _, end, ended := startSlow(t, kind)
				answer := sync.OnceFunc(func() { close(v.answer) })
				defer answer()
				end()
				synctest.Wait()
				require.Equal(t, 1, v.ending, "cancelled calls under way")
				require.Empty(t, ended, "Run has returned while the call goes on")
				answer()
				require.ErrorIs(t, <-ended, context.Canceled)
				require.Zero(t, v.underWay)
			})
		})
	}
}

func TestChangedSpecWaitsForTheCallItReplaces(t *testing.T) {
	for _, test := range []struct {
		name   string
		kind   string
		change func(*supervisor.Spec)
	}{
		{"version", install, func(w *supervisor.Spec) { w.Fetch = "7.14.4" }},
		{"source", install, func(w *supervisor.Spec) { w.Source = "http://other" }},
		{"digest", install, func(w *supervisor.Spec) { w.Digest = "sha256:00" }},
		{"root", install, func(w *supervisor.Spec) { w.Root = "/other" }},
		{"source", newest, func(w *supervisor.Spec) { w.Source = "http://other" }},
		{"source", probing, func(w *supervisor.Spec) { w.Source = "http://other" }},
		{"root", collect, func(w *supervisor.Spec) { w.Root = "/other" }},
		{"version", collect, func(w *supervisor.Spec) { w.Fetch = "7.14.4" }},
	} {
		t.Run(test.name+" during "+test.kind, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				v, files, end, ended := startSlow(t, test.kind)
				answer := sync.OnceFunc(func() { close(v.answer) })
				defer func() { end(); answer(); <-ended }()
				want := everything
				test.change(&want)
				require.NoError(t, files.PutSpec(want))
				letLook()
				require.Equal(t, 1, v.ending, "the replaced call is cancelled")
				require.Equal(t, 1, v.began, "and no other begins beside it")
				answer()
				letLook()
				require.Equal(t, 2, v.began, "its successor begins")
				require.Equal(t, 1, v.most, "calls at a time")
			})
		})
	}
}

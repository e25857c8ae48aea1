package supervisor_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/concourse"
	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/supervisor"
	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator"
)

// workplace is a unit whose worker can keep its state in several places.
type workplace struct {
	*testing.T
	*charm
	silent atomic.Bool // the worker does not answer
	spec   supervisor.Spec
	disk   string // of the machine
	port   int
	end    func()
}

// newWorkplace has a unit whose worker works on the volume.
func newWorkplace(t *testing.T, changes ...func(*supervisor.Supervisor)) *workplace {
	disk, err := filepath.EvalSymlinks(t.TempDir())
	require.NoError(t, err)
	for dir := disk; dir != "/"; dir = filepath.Dir(dir) { // those of tests are private
		info, err := os.Stat(dir)
		require.NoError(t, err)
		if info.Mode()&0o001 == 0 {
			require.NoError(t, os.Chmod(dir, info.Mode()|0o001))
			t.Cleanup(func() { os.Chmod(dir, info.Mode()) })
		}
	}
	w := &workplace{T: t, charm: newCharm(t), disk: disk}
	w.port = service(t, func(answer http.ResponseWriter, _ *http.Request) {
		if w.silent.Load() {
			answer.WriteHeader(http.StatusServiceUnavailable)
		}
	})
	w.spec = newMirror(t).serving(t.TempDir(), 1, "7.14.3")
	w.spec.Web = nil
	w.live(changes...)
	w.worksIn("")
	w.put(w.onVolume(), "state")
	return w
}

// live starts a supervisor.
func (w *workplace) live(changes ...func(*supervisor.Supervisor)) {
	w.end = w.run(w, append(changes, workerAt(w.port))...)
}

func (w *workplace) onVolume() string { return filepath.Join(w.spec.Root, "worker", "ci-0") }

func (w *workplace) at(local string) string { return filepath.Join(w.disk, local, "ci-0") }

func (w *workplace) put(dir, name string) {
	require.NoError(w, os.WriteFile(filepath.Join(dir, name), nil, 0o600))
}

// wants has the worker keep its state in a directory of the disk; empty is the volume.
func (w *workplace) wants(local string) {
	worker := *w.spec.Worker
	if worker.LocalDir = ""; local != "" {
		worker.LocalDir = filepath.Join(w.disk, local)
	}
	w.spec.Worker = &worker
	require.NoError(w, w.files.PutSpec(w.spec))
}

// worksIn has the worker keep its state there, and waits until it was started so, alone.
func (w *workplace) worksIn(local string) {
	w.Helper()
	w.wants(local)
	dir := w.onVolume()
	if local != "" {
		dir = w.at(local)
	}
	w.startedIn(dir)
}

func (w *workplace) startedIn(dir string) {
	w.Helper()
	eventually(w, "the worker in "+dir, func() bool {
		environment, _ := os.ReadFile(filepath.Join(string(w.files), "concourse-worker.env"))
		return strings.Contains(string(environment), "CONCOURSE_WORK_DIR=\""+dir+"\"\n") &&
			slices.Equal(w.system.Done(), []string{"start " + concourse.WorkerUnit})
	})
	eventually(w, "that this is remembered", func() bool {
		started := w.remembers().Started[concourse.WorkerUnit]
		return started.WorkDir == dir && started.Restart != ""
	})
	info, err := os.Stat(dir)
	require.NoError(w, err)
	require.Equal(w, os.ModeDir|0o711, info.Mode())
}

func (w *workplace) gone(dir string) {
	w.Helper()
	eventually(w, "the end of "+dir, func() bool { return !exists(dir) })
}

// remembers are the directories in the supervisor's memory.
func (w *workplace) remembers() (m supervisor.Memory) {
	data, err := os.ReadFile(filepath.Join(string(w.files), "memory.json"))
	require.NoError(w, err)
	require.NoError(w, json.Unmarshal(data, &m))
	return m
}

// What a worker leaves is removed wherever it is, once the worker runs elsewhere.
func TestWorkerMoves(t *testing.T) {
	w := newWorkplace(t)
	require.Empty(t, w.remembers().WorkDirs, "nothing is new for who sets nothing")
	w.worksIn("fast")
	w.gone(w.onVolume())
	w.put(w.at("fast"), "state")
	w.worksIn("faster")
	w.gone(w.at("fast"))
	w.gone(w.onVolume())
	require.DirExists(t, filepath.Join(w.disk, "fast"), "the charm has its own directory below it")
	w.put(w.at("faster"), "state")
	w.worksIn("")
	w.gone(w.at("faster"))
	eventually(t, "rest", func() bool {
		m := w.remembers()
		left := func(dir string) bool { return dir != w.onVolume() }
		return !slices.ContainsFunc(m.WorkDirs, left) && m.Clearing == ""
	})
	w.put(w.onVolume(), "state")
	w.worksIn("fast")
	w.gone(w.onVolume())
	require.Empty(t, w.system.Done())
}

// An operator who goes back before the worker has worked elsewhere loses nothing.
func TestWorkerMovesBackBeforeItHasWorked(t *testing.T) {
	w := newWorkplace(t)
	w.silent.Store(true)
	w.worksIn("fast")
	w.put(w.at("fast"), "state")
	eventually(t, "that it does not answer", w.saw(func(f supervisor.Status) bool { return f.Worker.Version == "" }))
	require.FileExists(t, filepath.Join(w.onVolume(), "state"))
	w.worksIn("")
	require.FileExists(t, filepath.Join(w.at("fast"), "state"))
	w.silent.Store(false)
	w.gone(w.at("fast"))
	require.FileExists(t, filepath.Join(w.onVolume(), "state"))
}

// A supervisor that dies in between loses nothing: the next one goes on.
func TestWorkerMovesAndTheSupervisorDies(t *testing.T) {
	w := newWorkplace(t)
	w.silent.Store(true)
	w.worksIn("fast")
	w.worksIn("faster")
	w.end()
	w.silent.Store(false)
	require.DirExists(t, w.at("fast"))
	w.live()
	w.gone(w.onVolume())
	w.gone(w.at("fast"))
	require.DirExists(t, w.at("faster"))
	require.Empty(t, w.system.Done())

	// It has removed a part of it, and the operator has changed their mind.
	for below, dir := range map[string]string{"": w.onVolume(), "fast": w.at("fast")} {
		w.end()
		require.NoError(t, os.Mkdir(dir, 0o711))
		w.put(dir, "half")
		m := w.remembers()
		m.WorkDirs, m.Clearing = append(m.WorkDirs, dir), dir
		data, err := json.Marshal(m)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(string(w.files), "memory.json"), data, 0o600))
		w.wants(below)
		w.live()
		w.startedIn(dir)
		require.NoFileExists(t, filepath.Join(dir, "half"), "no worker gets what remains")
		w.worksIn("faster")
		w.gone(dir)
	}
}

// keeping is a volume whose directories cannot be removed for a while.
type keeping struct {
	supervisor.Volume
	keeps *atomic.Bool
}

func (k keeping) RemoveWorkerDir(ctx context.Context) error {
	if k.keeps.Load() {
		return errors.New("cannot remove it: something is mounted there")
	}
	return k.Volume.RemoveWorkerDir(ctx)
}

// What cannot be removed is in nobody's way, until the worker is to have it again.
func TestWorkerLeavesWhatCannotBeRemoved(t *testing.T) {
	var keeps atomic.Bool
	keeps.Store(true)
	w := newWorkplace(t, func(s *supervisor.Supervisor) {
		open := s.Open
		s.Open = func(ctx context.Context, root string, o coordinator.Options) (supervisor.Volume, error) {
			v, err := open(ctx, root, o)
			return keeping{v, &keeps}, err
		}
	})
	w.worksIn("fast")
	eventually(t, "a line in the log", func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return strings.Contains(strings.Join(w.log, "\n"), "stays for now: cannot remove it")
	})
	eventually(t, "its rest", w.saw(func(f supervisor.Status) bool { return f.Worker.Version != "" && f.Stuck == "" }))
	w.wants("")
	eventually(t, "why it does not start", w.saw(func(f supervisor.Status) bool { return f.Stuck == "cannot remove it: something is mounted there" }))
	require.Empty(t, w.system.Done(), "the worker goes on where it is")
	keeps.Store(false)
	w.startedIn(w.onVolume())
	require.NoFileExists(t, filepath.Join(w.onVolume(), "state"))
	w.gone(w.at("fast"))
}

// A directory that cannot be made stops no worker, and is told with its reason.
func TestWorkerCannotMove(t *testing.T) {
	w := newWorkplace(t)
	theirs := filepath.Join(w.disk, "fast")
	w.put(w.disk, "fast")
	w.wants("fast")
	eventually(t, "the reason", w.saw(func(f supervisor.Status) bool {
		return strings.Contains(f.Stuck, "cannot make "+w.at("fast")+": ") && strings.Contains(f.Stuck, "not a directory")
	}))
	require.Empty(t, w.system.Done(), "the worker goes on where it is")
	require.FileExists(t, filepath.Join(w.onVolume(), "state"))
	require.NoError(t, os.Remove(theirs))
	w.startedIn(w.at("fast"))
	eventually(t, "its end", w.saw(func(f supervisor.Status) bool { return f.Stuck == "" }))
	w.gone(w.onVolume())

	// One that the charm has not made is neither used nor removed.
	require.NoError(t, os.MkdirAll(w.at("theirs"), 0o755))
	w.put(w.at("theirs"), "precious")
	w.wants("theirs")
	eventually(t, "whose it is", w.saw(func(f supervisor.Status) bool {
		return strings.Contains(f.Stuck, w.at("theirs")) && strings.Contains(f.Stuck, "this unit has not made what is there")
	}))
	w.worksIn("other")
	w.gone(w.at("fast"))
	require.FileExists(t, filepath.Join(w.at("theirs"), "precious"))
}

// The worker's program is on the volume.
func TestWorkerElsewhereStopsWithTheVolume(t *testing.T) {
	var lost atomic.Bool
	w := newWorkplace(t, losing(&lost))
	w.worksIn("fast")
	w.gone(w.onVolume())
	w.put(w.at("fast"), "state")
	lost.Store(true)
	eventually(t, "its stop", func() bool { return slices.Contains(w.system.Done(), "remove "+concourse.WorkerUnit) })
	lost.Store(false)
	w.startedIn(w.at("fast"))
	require.FileExists(t, filepath.Join(w.at("fast"), "state"))
	require.NoDirExists(t, w.onVolume())
}

func TestLeavesWhatIsElsewhere(t *testing.T) {
	w := newWorkplace(t)
	w.silent.Store(true) // or it would have left the volume before
	w.worksIn("fast")
	w.worksIn("faster")
	w.put(w.at("faster"), "state")
	w.spec.Leaving = true
	require.NoError(t, w.files.PutSpec(w.spec))
	eventually(t, "that it has left", w.saw(func(f supervisor.Status) bool { return f.Left }))
	for _, dir := range []string{w.at("fast"), w.at("faster"), w.onVolume()} {
		require.NoDirExists(t, dir)
	}
	require.Equal(t, []string{"concourse retire-worker --name=ci-0", "remove " + concourse.WorkerUnit}, w.system.Done())
	w.spec.Leaving = false // the machine was only stopped
	w.worksIn("faster")
}

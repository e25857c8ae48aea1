package certify

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// leftBy makes the directory of a run that was killed.
func leftBy(t *testing.T, parent, name string, p process) string {
	t.Helper()
	dir := filepath.Join(parent, Prefix+name)
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "some", "thing"), 0o755))
	data, err := json.Marshal(owner{Program: program, Schema: Schema, Machines: 1, process: p})
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, ownerFile), data, 0o644))
	require.NoError(t, os.WriteFile(filepath.Join(dir, beatFile), []byte("old"), 0o644))
	return dir
}

// What a killed run has left is removed; what is not surely ours, or in use, is not.
func TestSweep(t *testing.T) {
	parent := t.TempDir()
	dead, foreign := thisProcess(), thisProcess()
	dead.Started = "1"
	foreign.Boot = "another"
	deadDir := leftBy(t, parent, "dead", dead)
	alive := leftBy(t, parent, "alive", thisProcess())
	silent := leftBy(t, parent, "silent", foreign)
	beating := leftBy(t, parent, "beating", foreign)
	empty := filepath.Join(parent, Prefix+"empty")
	strange := filepath.Join(parent, Prefix+"strange")
	require.NoError(t, os.Mkdir(empty, 0o755))
	require.NoError(t, os.Mkdir(strange, 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(strange, "file"), nil, 0o644))
	link := filepath.Join(parent, Prefix+"link")
	elsewhere := t.TempDir()
	require.NoError(t, os.Symlink(elsewhere, link))

	l, err := occupy(parent, 1, quick)
	require.NoError(t, err)
	start := time.Now()
	resumed := leftBy(t, parent, "resumed", foreign) // it was stopped for a while
	later := l.sweep(t.Context(), t.Logf)
	time.AfterFunc(quick.stale/2, func() { os.WriteFile(filepath.Join(resumed, beatFile), []byte("new"), 0o644) })
	require.NoDirExists(t, deadDir)
	require.DirExists(t, silent)
	require.NoError(t, os.WriteFile(filepath.Join(beating, beatFile), []byte("new"), 0o644))
	require.NoError(t, later(t.Context()))
	require.GreaterOrEqual(t, time.Since(start), quick.stale)
	require.NoDirExists(t, silent)
	require.NoDirExists(t, empty)
	for _, stays := range []string{alive, beating, resumed, strange, elsewhere, link} {
		_, err := os.Lstat(stays)
		require.NoError(t, err)
	}
	require.NoError(t, l.leave())
	require.NoDirExists(t, l.dir)
}

// Nobody waits for a run that shows that it lives.
func TestSweepWaitsForTheSilentOnly(t *testing.T) {
	parent := t.TempDir()
	foreign := thisProcess()
	foreign.Boot = "another"
	beating := leftBy(t, parent, "beating", foreign)
	l, err := occupy(parent, 1, quick)
	require.NoError(t, err)
	later := l.sweep(t.Context(), t.Logf)
	require.NoError(t, os.WriteFile(filepath.Join(beating, beatFile), []byte("new"), 0o644))
	start := time.Now()
	require.NoError(t, later(t.Context()))
	require.Less(t, time.Since(start), quick.stale/2)
	require.NoError(t, l.leave())
}

// A run that works is left alone by another one on the same path.
func TestTwoRunsApart(t *testing.T) {
	dir := t.TempDir()
	first, second := options(t, dir, ""), options(t, dir, "")
	type result struct {
		r   Report
		err error
	}
	results := make(chan result, 2)
	for _, o := range []Options{first, second} {
		go func() {
			r, err := Run(t.Context(), o)
			results <- result{r, err}
		}()
	}
	for range 2 {
		got := <-results
		require.NoError(t, got.err)
		require.Equal(t, "fit", got.r.Verdict)
	}
	requireEmpty(t, dir)
}

// A process whose run was killed does not go on.
func TestOrphan(t *testing.T) {
	dir := t.TempDir()
	s, err := serve("seed")
	require.NoError(t, err)
	defer s.close()
	s.hold()
	r := &run{Options: options(t, dir, "")}
	a, err := r.start(t.Context())
	require.NoError(t, err)
	_, err = a.begin(install{Root: dir + "/volume", Unit: unit(0), Source: s.URL()})
	require.NoError(t, err)
	require.NoError(t, s.held(t.Context()))
	require.NoError(t, a.in.Close())
	ended := make(chan error, 1)
	go func() { ended <- a.cmd.Wait() }()
	select {
	case err := <-ended:
		require.NoError(t, err)
	case <-time.After(20 * time.Second):
		require.Fail(t, "it goes on")
	}
}

// One that a busy machine holds up does not count; a cache holds up most.
func TestMedian(t *testing.T) {
	require.Equal(t, 2*time.Second, median([]time.Duration{9 * time.Second, time.Second, 2 * time.Second}))
	require.Equal(t, 8*time.Second, median([]time.Duration{8 * time.Second, time.Second, 9 * time.Second}))
}

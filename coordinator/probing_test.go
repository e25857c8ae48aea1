package coordinator

import (
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/probe"
)

func TestProbe(t *testing.T) {
	ctx := t.Context()
	root := t.TempDir()
	c := open(t, root, "concourse-ci/0", "")
	seen := func() map[string]probe.Result {
		report, err := open(t, root, "concourse-ci/1", "").Inspect(ctx)
		require.NoError(t, err)
		return report.Probes
	}
	require.Empty(t, seen())
	r, err := c.Probe(ctx)
	require.NoError(t, err)
	require.Equal(t, probe.Exclusive, r.Locks)
	require.Equal(t, map[string]probe.Result{"concourse-ci-0": r}, seen())

	// What two machines have seen of each other is more than one can find out.
	v := inside(t, c)
	v.noteLocks(false)
	require.Equal(t, probe.NodeLocal, seen()["concourse-ci-0"].Locks)
	require.Equal(t, probe.Works, seen()["concourse-ci-0"].Link, "the rest was forgotten")
	r, err = c.Probe(ctx)
	require.NoError(t, err)
	require.Equal(t, probe.NodeLocal, r.Locks)
	v.noteLocks(true)
	require.Equal(t, probe.Shared, seen()["concourse-ci-0"].Locks)
	inside(t, open(t, root, "concourse-ci/2", "")).noteLocks(true)
	require.Equal(t, probe.Unknown, seen()["concourse-ci-2"].Link)

	// The result decides what is tried: without a lock none is made.
	require.NoError(t, v.note(probe.Result{Locks: probe.Hanging}))
	require.True(t, v.claims(t.Context(), "7.14.3").Lockless)
	require.NoError(t, v.note(probe.Result{Locks: probe.Exclusive}))
	require.False(t, v.claims(t.Context(), "7.14.3").Lockless)

	// Another kernel has another mount.
	require.NoError(t, os.WriteFile(filepath.Join(root, probesDir, fileName(c.options.Unit)), []byte(`{"locks":"hanging","boot":"another"}`), 0o644))
	require.False(t, v.claims(t.Context(), "7.14.3").Lockless)
	require.NoError(t, c.Leave(t.Context()))
	require.NotContains(t, seen(), "concourse-ci-0")

	_, err = Probe(ctx, filepath.Join(root, "none"))
	require.ErrorIs(t, err, ErrNoVolume)
	empty := t.TempDir()
	r, err = Probe(ctx, empty)
	require.NoError(t, err, "a mount that is no volume yet")
	require.Equal(t, probe.Works, r.Link)
	require.Empty(t, listing(t, empty))
	r, err = Probe(ctx, root)
	require.NoError(t, err)
	require.Equal(t, probe.Exclusive, r.Locks, "noted by nobody, known to nobody")
}

// What a unit has left that died before a file got its name goes, but no pin: who finds
// his own gone takes it for named.
func TestRemainsOfFilesWithoutNames(t *testing.T) {
	root := t.TempDir()
	collector := open(t, root, "concourse-ci/0", "")
	now := time.Now()
	collector.memory.now = func() time.Time { return now }
	require.NoError(t, os.Mkdir(filepath.Join(root, probesDir), 0o755))
	gone := []string{"activations/.7.X", "failures/.7.14.3.abcd.X", "probes/.concourse-ci-1.X"}
	kept := []string{"pins/.concourse-ci-1.X", "failures/7.14.3.abcd"}
	for _, name := range slices.Concat(gone, kept) {
		require.NoError(t, os.WriteFile(filepath.Join(root, name), nil, 0o644))
	}
	for range 2 {
		for _, name := range slices.Concat(gone, kept) {
			require.FileExists(t, filepath.Join(root, name), "somebody may be about to name it")
		}
		_, err := collector.Collect(t.Context())
		require.NoError(t, err)
	}
	now = now.Add(probeLimit)
	_, err := collector.Collect(t.Context())
	require.NoError(t, err)
	for _, name := range gone {
		require.NoFileExists(t, filepath.Join(root, name))
	}
	for _, name := range kept {
		require.FileExists(t, filepath.Join(root, name))
	}
}

// What a probe has left goes, but not what one is at work in.
func TestRemainsOfProbes(t *testing.T) {
	root := t.TempDir()
	s := &stage{u: inside(t, open(t, root, "concourse-ci/0", ""))}
	collector := open(t, root, "concourse-ci/1", "")
	now := time.Now()
	collector.memory.now = func() time.Time { return now }
	collect := func() {
		_, err := collector.Collect(t.Context())
		assert.NoError(t, err)
	}
	left := []string{".probe-X", "staging/.probe-X", "store/.probe-X", "releases/.probe-X"}
	for _, name := range left {
		require.NoError(t, os.Mkdir(filepath.Join(root, name), 0o755))
	}
	done := make(chan struct{})
	var all sync.WaitGroup
	all.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
				collect()
			}
		}
	})
	for range 50 {
		assert.NoError(t, s.preflight(t.Context()))
	}
	close(done)
	all.Wait()
	for _, name := range left {
		require.DirExists(t, filepath.Join(root, name))
	}
	now = now.Add(probeLimit)
	collect()
	for _, name := range left {
		require.NoDirExists(t, filepath.Join(root, name))
	}
}

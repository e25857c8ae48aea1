package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func newRoot(t *testing.T) *os.Root {
	root, err := os.OpenRoot(t.TempDir())
	require.NoError(t, err)
	t.Cleanup(func() { root.Close() })
	return root
}

func TestCreateOnce(t *testing.T) {
	root := newRoot(t)
	var made atomic.Int32
	var all sync.WaitGroup
	for i := range 16 {
		all.Go(func() {
			err := Create(root, "x", fmt.Append(nil, i))
			if err == nil {
				made.Add(1)
			} else if !errors.Is(err, fs.ErrExist) {
				t.Error(err)
			}
		})
	}
	all.Wait()
	require.EqualValues(t, 1, made.Load())
	names, err := Names(root, ".")
	require.NoError(t, err)
	require.Equal(t, []string{"x"}, names, "private files are left")
}

// Refusals that are true are told at once, and change nothing.
func TestRenameRefused(t *testing.T) {
	root := newRoot(t)
	require.NoError(t, root.Mkdir("from", 0o755))
	require.NoError(t, root.MkdirAll("to/x", 0o755))
	start := time.Now()
	require.ErrorIs(t, Rename(root, "from", "to"), fs.ErrExist)
	require.ErrorIs(t, Rename(root, "none", "to"), fs.ErrNotExist)
	require.Less(t, time.Since(start), Settle/2)
	for _, dir := range []string{"from", "to/x"} {
		info, err := root.Stat(dir)
		require.NoError(t, err)
		require.True(t, info.IsDir())
	}

	// Nothing appears where it cannot: the caller hears of it when that is sure.
	start = time.Now()
	require.ErrorIs(t, Rename(root, "from", "none/x"), fs.ErrNotExist)
	require.GreaterOrEqual(t, time.Since(start), Settle)
}

func TestSymlinkIsReplaced(t *testing.T) {
	root := newRoot(t)
	for _, target := range []string{"a", "b", "b"} {
		require.NoError(t, Symlink(root, target, "bin"))
		got, err := root.Readlink("bin")
		require.NoError(t, err)
		require.Equal(t, target, got)
	}
	names, err := Names(root, ".")
	require.NoError(t, err)
	require.Equal(t, []string{"bin"}, names)
}

// Both ways to sync find what is there; file by file, what is not is an error.
func TestSync(t *testing.T) {
	root := newRoot(t)
	require.NoError(t, root.MkdirAll("tree/bin", 0o755))
	require.NoError(t, root.WriteFile("tree/bin/concourse", []byte("x"), 0o555))
	require.NoError(t, root.Symlink("nowhere", "tree/bin/link"))
	w, err := Begin(root, func(err error) { t.Error(err) })
	require.NoError(t, err)
	defer w.Close()
	require.NoError(t, w.Sync("tree"))
	require.NoError(t, w.each("tree"))
	require.ErrorIs(t, w.each("nothing"), fs.ErrNotExist)
}

// An error that was told while writing is told again when all must be there.
func TestLostWritesAreNotForgotten(t *testing.T) {
	root := newRoot(t)
	if !Local(root) {
		t.Skip("on this file system each file is synced")
	}
	broken, err := os.Open(os.DevNull)
	require.NoError(t, err)
	require.NoError(t, broken.Close())
	w := &Writes{root: root, volume: broken, whole: true}
	require.ErrorContains(t, w.syncfs(), "cannot sync the volume")
	w.volume, err = root.Open(".")
	require.NoError(t, err)
	defer w.volume.Close()
	require.ErrorContains(t, w.Sync("."), "cannot sync the volume")
}

package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestCreateOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x")
	var made atomic.Int32
	var all sync.WaitGroup
	for i := range 16 {
		all.Go(func() {
			err := Create(path, fmt.Append(nil, i))
			if err == nil {
				made.Add(1)
			} else if !errors.Is(err, fs.ErrExist) {
				t.Error(err)
			}
		})
	}
	all.Wait()
	require.EqualValues(t, 1, made.Load())
	entries, err := os.ReadDir(filepath.Dir(path))
	require.NoError(t, err)
	require.Len(t, entries, 1, "private files are left")
}

// Refusals that are true are told at once, and change nothing.
func TestRenameRefused(t *testing.T) {
	dir := t.TempDir()
	from, to := filepath.Join(dir, "from"), filepath.Join(dir, "to")
	require.NoError(t, os.Mkdir(from, 0o755))
	require.NoError(t, os.MkdirAll(filepath.Join(to, "x"), 0o755))
	start := time.Now()
	require.ErrorIs(t, Rename(from, to), syscall.ENOTEMPTY)
	require.ErrorIs(t, Rename(filepath.Join(dir, "none"), to), fs.ErrNotExist)
	require.Less(t, time.Since(start), Settle/2)
	require.DirExists(t, from)
	require.DirExists(t, filepath.Join(to, "x"))

	// Nothing appears where it cannot: the caller hears of it when that is sure.
	start = time.Now()
	require.ErrorIs(t, Rename(from, filepath.Join(dir, "none", "x")), fs.ErrNotExist)
	require.GreaterOrEqual(t, time.Since(start), Settle)
}

func TestSymlinkIsReplaced(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "bin")
	for _, target := range []string{"a", "b", "b"} {
		require.NoError(t, Symlink(target, path))
		got, err := os.Readlink(path)
		require.NoError(t, err)
		require.Equal(t, target, got)
	}
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, entries, 1)
}

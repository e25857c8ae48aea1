package probe

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestMount(t *testing.T) {
	dir := t.TempDir()
	r, err := Mount(context.Background(), dir)
	require.NoError(t, err)
	t.Log(r, r.Took, r.Notes)
	require.Equal(t, Exclusive, r.Locks)
	require.True(t, r.Sound())
	require.Equal(t, Works, r.SyncDir)
	require.Less(t, r.Took, Limit)
	require.Contains(t, r.String(), "unknown between machines")
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, entries, "something is left")
}

func TestReadOnlyMount(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root to mount a tmpfs")
	}
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", syscall.MS_RDONLY, ""); err != nil {
		t.Skipf("cannot mount a tmpfs here: %v", err)
	}
	t.Cleanup(func() { syscall.Unmount(dir, syscall.MNT_DETACH) })
	_, err := Mount(context.Background(), dir)
	require.ErrorIs(t, err, syscall.EROFS)
}

func TestCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err := Mount(ctx, t.TempDir())
	if err != nil { // all may have answered before anybody looked
		require.ErrorIs(t, err, context.Canceled)
	}
}

func TestNoDirectory(t *testing.T) {
	_, err := Mount(context.Background(), filepath.Join(t.TempDir(), "x"))
	require.ErrorIs(t, err, os.ErrNotExist)
}

func TestWorth(t *testing.T) {
	for err, want := range map[error]Locks{nil: Exclusive, errWorthless: Worthless, syscall.ENOLCK: Absent, syscall.EBADF: Absent} {
		require.Equal(t, want, worth(err))
	}
	require.Equal(t, Worthless, worth(errors.Join(errWorthless)))
}

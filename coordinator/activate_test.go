package coordinator

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// An operator is told to remove an activation that cannot be read. What was current
// before it stays known.
func TestRemovedActivationHidesNothing(t *testing.T) {
	src := newSource(t, "7.14.1", "7.14.2", "7.14.3")
	root := t.TempDir()
	c := open(t, root, "concourse-ci/0", src.URL)
	for _, version := range []string{"7.14.1", "7.14.2", "7.14.3"} {
		_, err := c.Ensure(t.Context(), version)
		require.NoError(t, err)
		_, err = c.Activate(t.Context(), version)
		require.NoError(t, err)
	}
	require.NoError(t, os.Remove(filepath.Join(root, activationsDir, "2")))
	_, err := c.Collect(t.Context())
	require.NoError(t, err)
	require.FileExists(t, filepath.Join(root, releasesDir, "7.14.1", "bin/concourse"))
	a, err := c.Rollback(t.Context())
	require.NoError(t, err)
	require.Equal(t, "7.14.1", a.Version)
}

// Whoever was told that a mount hangs must not find his release current when the
// mount answers again.
func TestActivationThatHungDoesNotComeLate(t *testing.T) {
	src := newSource(t, "7.14.3")
	c := open(t, t.TempDir(), "concourse-ci/0", src.URL)
	_, err := c.Ensure(t.Context(), "7.14.3")
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	hang := make(chan struct{})
	c.memory.at = func(point string, _ int) {
		if point == "activate" {
			cancel()
			<-hang
		}
	}
	_, err = c.Activate(ctx, "7.14.3")
	close(hang)
	require.ErrorIs(t, err, ErrHung)
	_, err = c.Current(t.Context()) // begins when the call has ended
	require.ErrorIs(t, err, ErrNotActivated)
}

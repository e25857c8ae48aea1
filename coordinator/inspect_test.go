package coordinator_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator"
)

// Who looks at a volume is no unit: a directory that is none must stay empty,
// and one that is must stay as it is.
func TestInspectChangesNothing(t *testing.T) {
	dir := t.TempDir()
	_, err := coordinator.Inspect(t.Context(), dir)
	require.ErrorIs(t, err, coordinator.ErrNoVolume)
	require.ErrorIs(t, coordinator.Verify(t.Context(), dir, "7.14.3", nil), coordinator.ErrNoVolume)
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, entries)

	// A unit died right after it gave the volume its id.
	require.NoError(t, os.WriteFile(filepath.Join(dir, "volume.json"), []byte(`{"id":"V1","layout":1}`), 0o444))
	require.NoError(t, os.Chmod(dir, 0o555))
	i, err := coordinator.Inspect(t.Context(), dir)
	require.NoError(t, err)
	require.Equal(t, "V1", i.VolumeID)
	require.Nil(t, i.Current)
	require.Nil(t, i.Previous)
	require.Nil(t, i.Claim)
	require.Empty(t, i.Releases)
	require.Zero(t, i.Use)
	require.NoError(t, os.Chmod(dir, 0o755))

	require.NoError(t, os.WriteFile(filepath.Join(dir, "volume.json"), []byte(`{"id":"V1","layout":7}`), 0o444))
	_, err = coordinator.Inspect(t.Context(), dir)
	require.ErrorIs(t, err, coordinator.ErrForeignVolume)
}

func TestInspectCountsRoom(t *testing.T) {
	dir := t.TempDir()
	_, err := coordinator.Open(dir, coordinator.Options{Unit: "concourse-ci/0"})
	require.NoError(t, err)
	before, err := coordinator.Inspect(t.Context(), dir)
	require.NoError(t, err)

	work := filepath.Join(dir, "worker", "concourse-ci-0")
	require.NoError(t, os.Mkdir(work, 0o711))
	require.NoError(t, os.WriteFile(filepath.Join(work, "full"), make([]byte, 1<<20), 0o600))
	// A file that a worker reserves and has not filled takes no room.
	require.NoError(t, os.WriteFile(filepath.Join(work, "sparse"), nil, 0o600))
	require.NoError(t, os.Truncate(filepath.Join(work, "sparse"), 1<<40))
	after, err := coordinator.Inspect(t.Context(), dir)
	require.NoError(t, err)
	require.InDelta(t, 1<<20, after.Use.Worker-before.Use.Worker, 64<<10)
	require.Equal(t, before.Use.Releases, after.Use.Releases)

	require.NoError(t, os.WriteFile(filepath.Join(dir, coordinator.Marker), nil, fs.FileMode(0o644)))
	marked, err := coordinator.Inspect(t.Context(), dir)
	require.NoError(t, err)
	require.False(t, after.Marked)
	require.True(t, marked.Marked)
}

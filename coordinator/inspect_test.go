package coordinator

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func inspect(t *testing.T, dir string) Inspection {
	t.Helper()
	v, err := Look(t.Context(), dir, concourse)
	require.NoError(t, err)
	i, err := v.Inspect(t.Context())
	require.NoError(t, err)
	return i
}

// Who looks at a volume is no unit: a directory that is none must stay empty,
// and one that is must stay as it is.
func TestInspectChangesNothing(t *testing.T) {
	dir := t.TempDir()
	_, err := Look(t.Context(), dir, concourse)
	require.ErrorIs(t, err, ErrNoVolume)
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, entries)

	// A unit died right after it gave the volume its id.
	require.NoError(t, os.WriteFile(filepath.Join(dir, "volume.json"), []byte(`{"id":"V1","layout":1}`), 0o444))
	require.NoError(t, os.Chmod(dir, 0o555))
	i := inspect(t, dir)
	require.Equal(t, "V1", i.VolumeID)
	require.Nil(t, i.Current)
	require.Nil(t, i.Previous)
	require.Empty(t, i.Claims)
	require.Empty(t, i.Releases)
	require.Zero(t, i.Use)
	require.NoError(t, os.Chmod(dir, 0o755))

	require.NoError(t, os.WriteFile(filepath.Join(dir, "volume.json"), []byte(`{"id":"V1","layout":7}`), 0o444))
	_, err = Look(t.Context(), dir, concourse)
	require.ErrorIs(t, err, ErrForeignVolume)
}

func TestInspectCountsRoom(t *testing.T) {
	dir := t.TempDir()
	_, err := Open(t.Context(), dir, Options{Product: concourse, Unit: "concourse-ci/0"})
	require.NoError(t, err)
	before := inspect(t, dir)

	work := filepath.Join(dir, "worker", "concourse-ci-0")
	require.NoError(t, os.Mkdir(work, 0o711))
	require.NoError(t, os.WriteFile(filepath.Join(work, "full"), make([]byte, 1<<20), 0o600))
	// A file that a worker reserves and has not filled takes no room.
	require.NoError(t, os.WriteFile(filepath.Join(work, "sparse"), nil, 0o600))
	require.NoError(t, os.Truncate(filepath.Join(work, "sparse"), 1<<40))
	after := inspect(t, dir)
	require.InDelta(t, 1<<20, after.Use.Worker-before.Use.Worker, 64<<10)
	require.Equal(t, before.Use.Store, after.Use.Store)
}

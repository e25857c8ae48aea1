package publish

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/unpack"
)

// found returns how many checks it takes until a damage shows.
func found(t *testing.T, turn *Turns, root *os.Root) int {
	t.Helper()
	for n := 1; n <= 2*turns; n++ {
		if _, err := turn.Check(root, release, version); err != nil {
			require.ErrorIs(t, err, ErrCorrupt)
			return n
		}
	}
	t.Fatal("not found at all")
	return 0
}

func TestTurns(t *testing.T) {
	for name, test := range map[string]struct {
		damage func(dir string) error
		within int // checks
	}{
		"file removed": {func(dir string) error { return os.Remove(filepath.Join(dir, "bin/f17")) }, 1},
		"file added":   {func(dir string) error { return os.WriteFile(filepath.Join(dir, "bin/new"), nil, 0o444) }, 1},
		"directory added": {func(dir string) error {
			return errors.Join(os.Mkdir(filepath.Join(dir, "more"), 0o755), os.WriteFile(filepath.Join(dir, "more/x"), nil, 0o444))
		}, 1},
		"link changed": {func(dir string) error {
			return errors.Join(os.Remove(filepath.Join(dir, "bin/link")), os.Symlink("f01", filepath.Join(dir, "bin/link")))
		}, 1},
		"no manifest":      {func(dir string) error { return os.Remove(filepath.Join(dir, ManifestName)) }, 1},
		"another manifest": {func(dir string) error { return os.Truncate(filepath.Join(dir, ManifestName), 10) }, 1},
		"file cut":         {func(dir string) error { return os.Truncate(filepath.Join(dir, "bin/f03"), 5) }, turns},
		"mode changed":     {func(dir string) error { return os.Chmod(filepath.Join(dir, "bin/f19"), 0o555) }, turns},
	} {
		t.Run(name, func(t *testing.T) {
			root, dir, m := published(t, 20)
			var turn Turns
			for range turns + 1 {
				got, err := turn.Check(root, release, version)
				require.NoError(t, err)
				require.Equal(t, m, got)
			}
			require.NoError(t, test.damage(dir))
			require.LessOrEqual(t, found(t, &turn, root), test.within)
		})
	}
}

// A release that was replaced is another one, whatever is remembered of it.
func TestTurnsFollowARepair(t *testing.T) {
	root, dir, _ := published(t, 20)
	var turn Turns
	_, err := turn.Check(root, release, version)
	require.NoError(t, err)
	require.NoError(t, os.Rename(dir, dir+".old"))
	_, err = turn.Check(root, release, version)
	require.ErrorIs(t, err, ErrNotInstalled)
	_, err = turn.Check(root, release+".old", version)
	require.NoError(t, err)
}

func BenchmarkQuickCheck(b *testing.B) {
	root, err := os.OpenRoot(b.TempDir())
	require.NoError(b, err)
	defer root.Close()
	m := Manifest{Version: version}
	for d := range 60 {
		dir := fmt.Sprintf("%s/d%02d", release, d)
		require.NoError(b, root.MkdirAll(dir, 0o755))
		for f := range 1000 {
			name := fmt.Sprintf("d%02d/f%03d", d, f)
			require.NoError(b, root.WriteFile(release+"/"+name, nil, 0o444))
			m.Files = append(m.Files, unpack.File{Path: name, Mode: 0o444})
		}
	}
	require.NoError(b, Complete(root, release, m))
	b.Run("all", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := Check(root, release, version); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("in turns", func(b *testing.B) {
		b.ReportAllocs()
		var turn Turns
		for b.Loop() {
			if _, err := turn.Check(root, release, version); err != nil {
				b.Fatal(err)
			}
		}
	})
}

package publish

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/durable"
	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/unpack"
)

const (
	version = "7.14.3"
	release = "releases/7.14.3"
)

// published makes a release of n files and a link.
func published(t *testing.T, n int) (root *os.Root, dir string, m Manifest) {
	t.Helper()
	base := t.TempDir()
	root, err := os.OpenRoot(base)
	require.NoError(t, err)
	t.Cleanup(func() { root.Close() })
	staging := filepath.Join(base, "staging", "7.14.3")
	dir = filepath.Join(base, "releases", "7.14.3")
	require.NoError(t, os.MkdirAll(filepath.Join(staging, "bin"), 0o755))
	require.NoError(t, os.Mkdir(filepath.Dir(dir), 0o755))
	m = Manifest{Version: "7.14.3"}
	for i := range n {
		name, body := fmt.Sprintf("bin/f%02d", i), fmt.Sprintf("content of %02d", i)
		path := filepath.Join(staging, name)
		require.NoError(t, os.WriteFile(path, []byte(body), 0o444))
		require.NoError(t, os.Chmod(path, 0o444))
		sum := sha256.Sum256([]byte(body))
		m.Files = append(m.Files, unpack.File{Path: name, Size: int64(len(body)), Mode: 0o444, SHA256: sum})
		m.Bytes += int64(len(body))
	}
	require.NoError(t, os.Symlink("f00", filepath.Join(staging, "bin/link")))
	m.Files = append(m.Files, unpack.File{Path: "bin/link", Link: "f00"})
	w, err := durable.Begin(root)
	require.NoError(t, err)
	defer w.Close()
	require.NoError(t, Complete(root, "staging/7.14.3", m))
	require.NoError(t, w.Sync("staging/7.14.3"))
	require.NoError(t, Rename(root, "staging/7.14.3", release))
	return root, dir, m
}

// overwrite changes contents, and neither size nor mode.
func overwrite(t *testing.T, path, body string) {
	t.Helper()
	require.NoError(t, os.Remove(path))
	require.NoError(t, os.WriteFile(path, []byte(body), 0o444))
	require.NoError(t, os.Chmod(path, 0o444))
}

func TestVerifyReadsEverything(t *testing.T) {
	root, _, m := published(t, 20)
	var done, total int64
	got, err := Verify(t.Context(), root, release, version, func(d, n int64) { done, total = max(done, d), n })
	require.NoError(t, err)
	require.Equal(t, m, got)
	require.Equal(t, m.Bytes, done)
	require.Equal(t, m.Bytes, total)
}

func TestVerifyNamesAllThatDiffers(t *testing.T) {
	root, dir, _ := published(t, 20)
	overwrite(t, filepath.Join(dir, "bin/f17"), "content 0f 17")
	overwrite(t, filepath.Join(dir, "bin/f03"), "content 0f 03")
	_, err := Check(root, release, version)
	require.NoError(t, err, "names, sizes and modes are right")

	require.NoError(t, os.Remove(filepath.Join(dir, "bin/f05")))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "bin/new"), nil, 0o444))
	require.NoError(t, os.Remove(filepath.Join(dir, "bin/link")))
	require.NoError(t, os.Symlink("f01", filepath.Join(dir, "bin/link")))
	_, err = Verify(t.Context(), root, release, version, nil)
	require.ErrorIs(t, err, ErrCorrupt)
	var damage *Damage
	require.ErrorAs(t, err, &damage)
	require.Equal(t, []Difference{
		{"bin/f03", "has other contents"},
		{"bin/f05", "is missing"},
		{"bin/f17", "has other contents"},
		{"bin/link", "is no link to f00"},
		{"bin/new", "does not belong to it"},
	}, damage.Files)
	require.Contains(t, err.Error(), "bin/f03 has other contents; bin/f05 is missing; bin/f17 has other contents; and 2 more")
}

func TestVerifyEnds(t *testing.T) {
	root, _, _ := published(t, 20)
	ctx, cancel := context.WithCancel(t.Context())
	_, err := Verify(ctx, root, release, version, func(done, _ int64) { cancel() })
	require.ErrorIs(t, err, context.Canceled)
	_, err = Verify(ctx, root, release, version, nil)
	require.ErrorIs(t, err, context.Canceled, "nothing was read")

	_, err = Verify(t.Context(), root, "releases/7.14.9", "7.14.9", nil)
	require.ErrorIs(t, err, ErrNotInstalled)
}

package pack_test

import (
	"archive/zip"
	"context"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/pack"
)

// writeCharm makes a charm's directory with a main package of its own, so that
// the test compiles nothing but the runtime.
func writeCharm(t *testing.T, source string) pack.Spec {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"metadata.yaml":    "name: tiny\n",
		"config.yaml":      "options: {}\n",
		"icon.svg":         "<svg/>\n",
		"notes.txt":        "stays out\n",
		"dispatch/main.go": source,
	} {
		path := filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	}
	return pack.Spec{Dir: dir, Main: filepath.Join(dir, "dispatch", "main.go"), Out: filepath.Join(t.TempDir(), "tiny.charm")}
}

func TestCharm(t *testing.T) {
	spec := writeCharm(t, "package main\n\nfunc main() {}\n")
	require.NoError(t, pack.Charm(context.Background(), spec))
	first, err := os.ReadFile(spec.Out)
	require.NoError(t, err)

	z, err := zip.OpenReader(spec.Out)
	require.NoError(t, err)
	defer z.Close()
	var names []string
	for _, f := range z.File {
		names = append(names, f.Name)
		want := os.FileMode(0o644)
		if f.Name == "dispatch" {
			want = 0o755
		}
		require.Equal(t, want, f.Mode(), f.Name)
	}
	require.Equal(t, []string{"config.yaml", "dispatch", "icon.svg", "manifest.yaml", "metadata.yaml"}, names)
	f, err := z.Open("metadata.yaml")
	require.NoError(t, err)
	text, err := io.ReadAll(f)
	require.NoError(t, err)
	require.Equal(t, "name: tiny\n", string(text))

	require.NoError(t, pack.Charm(context.Background(), spec), "over the file of the first time")
	second, err := os.ReadFile(spec.Out)
	require.NoError(t, err)
	require.True(t, string(first) == string(second), "the same sources gave other bytes")
}

func TestCharmRefuses(t *testing.T) {
	ctx := context.Background()
	t.Run("no metadata", func(t *testing.T) {
		spec := writeCharm(t, "package main\n\nfunc main() {}\n")
		require.NoError(t, os.Remove(filepath.Join(spec.Dir, "metadata.yaml")))
		err := pack.Charm(ctx, spec)
		require.ErrorIs(t, err, pack.ErrNoMetadata)
		require.ErrorContains(t, err, spec.Dir)
		require.NoFileExists(t, spec.Out)
	})
	t.Run("does not compile", func(t *testing.T) {
		spec := writeCharm(t, "package main\n\nfunc main() { missing() }\n")
		require.ErrorContains(t, pack.Charm(ctx, spec), "undefined: missing")
		require.NoFileExists(t, spec.Out)
	})
}

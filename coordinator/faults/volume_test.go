package faults

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator"
	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/probe"
)

// complete demands that a release is on the volume, byte for byte and immutable.
func complete(t *testing.T, root, version string, noise int) {
	t.Helper()
	dir, err := filepath.EvalSymlinks(filepath.Join(root, "releases", version))
	require.NoError(t, err)
	want := content(version, noise)
	for _, name := range files(t, dir) {
		info, err := os.Stat(filepath.Join(dir, name))
		require.NoError(t, err)
		require.Zero(t, info.Mode()&0o222, "%s can be written", name)
		if name == "manifest.json" {
			continue
		}
		data, err := os.ReadFile(filepath.Join(dir, name))
		require.NoError(t, err)
		require.Contains(t, want, name)
		require.True(t, string(data) == want[name], "%s has %d bytes, and not those of the archive", name, len(data))
		delete(want, name)
	}
	require.Empty(t, want, "missing in %s", dir)
	require.FileExists(t, filepath.Join(dir, "manifest.json"))
}

// files lists what is below dir and is no directory.
func files(t *testing.T, dir string) []string {
	t.Helper()
	names := []string{}
	require.NoError(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			names = append(names, strings.TrimPrefix(path, dir+"/"))
		}
		return err
	}))
	return names
}

// names lists a directory; one that is not there is empty.
func names(t *testing.T, elem ...string) []string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(elem...))
	if !errors.Is(err, fs.ErrNotExist) {
		require.NoError(t, err)
	}
	found := []string{}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), probe.Prefix) { // a collector waits until nobody can be at work in it
			found = append(found, e.Name())
		}
	}
	return found
}

// unprobed is names without those that a look at the mount has made: they stay for a
// while when it is killed.
func unprobed(t *testing.T, elem ...string) []string {
	t.Helper()
	return slices.DeleteFunc(names(t, elem...), func(name string) bool { return strings.HasPrefix(name, probe.Prefix) })
}

// active demands that the volume's derived names all speak of version.
func active(t *testing.T, root, version string) {
	t.Helper()
	line, err := os.ReadFile(filepath.Join(root, ".installed_version"))
	require.NoError(t, err)
	require.Equal(t, version+"\n", string(line))
	target, err := os.Readlink(filepath.Join(root, "bin"))
	require.NoError(t, err)
	require.Equal(t, "releases/"+version+"/bin", target)
	require.Equal(t, version, last(t, root))
}

// last returns the version of the highest activation, "" if there is none.
func last(t *testing.T, root string) string {
	t.Helper()
	version := ""
	for n := 1; ; n++ {
		data, err := os.ReadFile(filepath.Join(root, "activations", fmt.Sprint(n)))
		if errors.Is(err, fs.ErrNotExist) {
			return version
		}
		require.NoError(t, err)
		var a coordinator.Activation
		require.NoError(t, json.Unmarshal(data, &a), "activation %d: %q", n, data)
		version = a.Version
	}
}

func mark(t *testing.T, root string) {
	t.Helper()
	require.NoError(t, os.WriteFile(filepath.Join(root, ".shared"), nil, 0o644))
}

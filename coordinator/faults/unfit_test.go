package faults

import (
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/lyingfs"
	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/needs"
	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/probe"
)

// TestUnfitMount has three units try to install on mounts that cannot carry a release.
// Each call says why, and nobody asks for the archive.
func TestUnfitMount(t *testing.T) {
	t.Parallel()
	needs.Root(t)
	for _, c := range []struct {
		name  string
		mount func(t *testing.T) (root string, spoil func())
		want  error
	}{
		{"no modes", lied(lyingfs.Lies{Modeless: true}), probe.ErrNoModes},
		{"no hard links", lied(lyingfs.Lies{Refused: map[lyingfs.Request]syscall.Errno{lyingfs.Link: syscall.EPERM, lyingfs.Relink: syscall.EPERM}}), probe.ErrNoLinks},
		{"no hard links of symbolic links", lied(lyingfs.Lies{Refused: map[lyingfs.Request]syscall.Errno{lyingfs.Relink: syscall.EPERM}}), probe.ErrNoLinks},
		{"no symbolic links", lied(lyingfs.Lies{Refused: map[lyingfs.Request]syscall.Errno{lyingfs.Symlink: syscall.EPERM}}), probe.ErrNoSymlinks},
		{"noexec", remounted(syscall.MS_NOEXEC), probe.ErrNoExec},
		{"read-only", remounted(syscall.MS_RDONLY), probe.ErrReadOnly},
		{"more than one mount", func(t *testing.T) (string, func()) {
			root, _ := mountTmpfs(t)
			mark(t, root)
			return root, func() { needs.Mount(t, "tmpfs", filepath.Join(root, "store"), "tmpfs", 0, "size=16m") }
		}, probe.ErrCrossDevice},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			root, spoil := c.mount(t)
			src := newSource(t, repairNoise)
			var units []*unit
			for _, name := range []string{"concourse-ci/0", "concourse-ci/1", "concourse-ci/2"} {
				u := start(t, root, name, src.URL)
				u.must("open", "")
				units = append(units, u)
			}
			spoil()
			for range 10 {
				for _, u := range units {
					u.tell("ensure", newer)
				}
				for _, u := range units {
					a := u.hear()
					require.True(t, a.is(probe.ErrUnfit) && a.is(c.want), "not as expected: %s", a.Err)
					sentence(t, a)
				}
			}
			require.Zero(t, src.asked.Load(), "requests for the archive")
		})
	}
}

// lied mounts a file system that tells lies from when it is spoiled on.
func lied(lies lyingfs.Lies) func(t *testing.T) (root string, spoil func()) {
	return func(t *testing.T) (root string, spoil func()) {
		root, backing := t.TempDir(), t.TempDir()
		mark(t, backing)
		m := serve(t, backing, root)
		return root, func() { m.Tell(lies) }
	}
}

// remounted has other flags from when it is spoiled on.
func remounted(flags uintptr) func(t *testing.T) (root string, spoil func()) {
	return func(t *testing.T) (root string, spoil func()) {
		root, _ = mountTmpfs(t)
		mark(t, root)
		return root, func() { require.NoError(t, syscall.Mount("", root, "", syscall.MS_REMOUNT|flags, "")) }
	}
}

package coordinator

import (
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/needs"
)

// changeTime is when a file, or its mode, was.
func changeTime(info os.FileInfo) syscall.Timespec { return info.Sys().(*syscall.Stat_t).Ctim }

func TestWorkerDirBelow(t *testing.T) {
	disk := publicDir(t)
	c := open(t, t.TempDir(), "concourse-ci/0", "")
	below, want := filepath.Join(disk, "fast", "disk"), filepath.Join(disk, "fast", "disk", "concourse-ci-0")
	state := func() os.FileInfo {
		info, err := os.Stat(want)
		require.NoError(t, err)
		require.Equal(t, os.ModeDir|0o711, info.Mode())
		return info
	}
	make := func(below string, made ...string) {
		t.Helper()
		dir, err := c.WorkerDirBelow(t.Context(), below, made)
		require.NoError(t, err)
		require.Equal(t, want, dir)
	}
	make(below)
	first := state()
	make(below) // a call that nobody remembers has made it
	state()
	require.NoError(t, os.WriteFile(filepath.Join(want, "state"), nil, 0o600))
	before := state()
	make(below, want)
	require.Equal(t, changeTime(before), changeTime(state()), "one that is right is not changed")
	require.NoError(t, os.Chmod(want, 0o700))
	make(below, "/other", want)
	require.Equal(t, first.Mode(), state().Mode(), "one with another mode is put right")
	link := filepath.Join(disk, "link")
	require.NoError(t, os.Symlink(below, link))
	make(link, want)
	require.NoDirExists(t, filepath.Join(c.dir, "worker", "concourse-ci-0"), "there is none on the volume")
}

// What cannot be made says why, touches nothing that is there, and can be made later.
func TestWorkerDirBelowWhatCannotBe(t *testing.T) {
	put := func(t *testing.T, name string) {
		require.NoError(t, os.MkdirAll(filepath.Dir(name), 0o755))
		require.NoError(t, os.WriteFile(name, nil, 0o600))
	}
	remount := func(flags uintptr) func(*testing.T, string, string) {
		return func(t *testing.T, _, disk string) {
			needs.Root(t)
			needs.Mount(t, "tmpfs", disk, "tmpfs", flags, "size=1m")
		}
	}
	unmounted := func(t *testing.T, _, disk string) { unmount(t, disk) }
	for name, test := range map[string]struct {
		spoil func(t *testing.T, root, disk string)
		kind  error
		says  string
		mend  func(t *testing.T, root, disk string)
	}{
		"a file has its name": {
			func(t *testing.T, _, disk string) { put(t, filepath.Join(disk, "ci-0")) },
			fs.ErrExist, "this unit has not made what is there: move it away",
			func(t *testing.T, _, disk string) { require.NoError(t, os.Remove(filepath.Join(disk, "ci-0"))) },
		},
		"somebody else's directory has its name": {
			func(t *testing.T, _, disk string) { put(t, filepath.Join(disk, "ci-0", "precious")) },
			fs.ErrExist, "this unit has not made what is there: move it away",
			func(t *testing.T, _, disk string) {
				require.FileExists(t, filepath.Join(disk, "ci-0", "precious"))
				require.NoError(t, os.Rename(filepath.Join(disk, "ci-0"), filepath.Join(disk, "theirs")))
			},
		},
		"a file is above it": {
			func(t *testing.T, _, disk string) { require.NoError(t, os.Remove(disk)); put(t, disk) },
			syscall.ENOTDIR, "not a directory",
			func(t *testing.T, _, disk string) { require.NoError(t, os.Remove(disk)) },
		},
		"the volume is behind a link": {
			func(t *testing.T, root, disk string) {
				require.NoError(t, os.Remove(disk))
				require.NoError(t, os.Symlink(filepath.Join(root, "worker"), disk))
			},
			ErrOptions, "it is on the volume",
			func(t *testing.T, root, disk string) {
				require.Empty(t, listing(t, filepath.Join(root, "worker")))
				require.NoError(t, os.Remove(disk))
			},
		},
		"only its owner may pass": {
			func(t *testing.T, _, disk string) { needs.Root(t); require.NoError(t, os.Chmod(disk, 0o700)) },
			ErrNoAccess, "chmod o+rx",
			func(t *testing.T, _, disk string) { require.NoError(t, os.Chmod(disk, 0o711)) },
		},
		"the disk is read-only":         {remount(syscall.MS_RDONLY), ErrReadOnly, "read-only", unmounted},
		"nothing can be executed on it": {remount(syscall.MS_NOEXEC), ErrNoExec, "mount it without noexec", unmounted},
	} {
		t.Run(name, func(t *testing.T) {
			root, disk := t.TempDir(), filepath.Join(publicDir(t), "disk")
			require.NoError(t, os.Mkdir(disk, 0o755))
			c := open(t, root, "ci/0", "")
			test.spoil(t, root, disk)
			_, err := c.WorkerDirBelow(t.Context(), disk, nil)
			require.ErrorIs(t, err, test.kind)
			require.ErrorContains(t, err, "cannot make "+filepath.Join(disk, "ci-0")+": ")
			require.ErrorContains(t, err, test.says)
			test.mend(t, root, disk)
			_, err = c.WorkerDirBelow(t.Context(), disk, nil)
			require.NoError(t, err)
		})
	}
}

// A disk that was made read-only since is noticed.
func TestWorkerDirBelowOnADiskThatFails(t *testing.T) {
	needs.Root(t)
	disk := publicDir(t)
	needs.Mount(t, "tmpfs", disk, "tmpfs", 0, "size=1m")
	c := open(t, t.TempDir(), "ci/0", "")
	dir, err := c.WorkerDirBelow(t.Context(), disk, nil)
	require.NoError(t, err)
	require.NoError(t, syscall.Mount("", disk, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""))
	for _, made := range [][]string{nil, {dir}} {
		_, err = c.WorkerDirBelow(t.Context(), disk, made)
		require.ErrorIs(t, err, ErrReadOnly)
	}
}

// Both remove what a worker has left, but for what is mounted there by others, which they
// name; then, when it is unmounted, the rest.
func TestRemoveWorkerDir(t *testing.T) {
	needs.Root(t)
	for name, test := range map[string]struct {
		make, remove func(t *testing.T, c *Coordinator, disk string) (string, error)
	}{
		"on the volume": {
			func(t *testing.T, c *Coordinator, _ string) (string, error) { return c.WorkerDir(t.Context()) },
			func(t *testing.T, c *Coordinator, _ string) (string, error) {
				return "", c.RemoveWorkerDir(t.Context())
			},
		},
		"outside of it": {
			func(t *testing.T, c *Coordinator, disk string) (string, error) {
				return c.WorkerDirBelow(t.Context(), disk, nil)
			},
			func(t *testing.T, _ *Coordinator, disk string) (string, error) {
				return "", RemoveWorkerDir(t.Context(), filepath.Join(disk, "ci-0"))
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			src := newSource(t, "7.14.3")
			// Overlays do not write to overlays, on which temporary directories may be.
			root, disk := tmpfs(t, "64m"), publicDir(t)
			needs.Mount(t, "tmpfs", disk, "tmpfs", 0, "size=1m")
			c, other := open(t, root, "ci/0", src.URL), open(t, root, "ci/1", src.URL)
			installed(t, c, "7.14.3")
			require.NoError(t, pin(t, c, "7.14.3"))
			_, err := other.WorkerDir(t.Context())
			require.NoError(t, err)
			_, err = other.WorkerDirBelow(t.Context(), disk, nil)
			require.NoError(t, err)
			work, err := test.make(t, c, disk)
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(filepath.Join(work, "file"), nil, 0o600))
			overlay(t, work)
			bound := filepath.Join(work, "volumes", "bound")
			kept := precious(t, bound)

			_, err = test.remove(t, c, disk)
			require.ErrorIs(t, err, ErrMounted)
			require.ErrorContains(t, err, bound)
			require.ErrorContains(t, err, "cannot remove "+work)
			require.Equal(t, []string{"volumes", "volumes/bound", "volumes/bound/precious"}, listing(t, work))
			unmount(t, bound)
			for range 2 {
				_, err = test.remove(t, c, disk)
				require.NoError(t, err)
				require.NoDirExists(t, work)
			}
			require.FileExists(t, kept)
			require.DirExists(t, filepath.Join(root, "worker", "ci-1"))
			require.DirExists(t, filepath.Join(disk, "ci-1"))
			require.Equal(t, []string{"ci-0"}, listing(t, filepath.Join(root, "pins")), "it runs on")
		})
	}
	require.NoError(t, RemoveWorkerDir(t.Context(), filepath.Join(t.TempDir(), "disk", "ci-0")), "the disk is away")
}

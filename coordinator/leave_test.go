package coordinator

import (
	"bytes"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/needs"
)

func TestWorkerDirAndLeave(t *testing.T) {
	src := newSource(t, "7.14.3")
	root := t.TempDir()
	c, other := open(t, root, "concourse-ci/0", src.URL), open(t, root, "concourse-ci/1", src.URL)
	installed(t, c, "7.14.3")
	for _, u := range []*Coordinator{c, other} {
		dir, err := u.WorkerDir(t.Context())
		require.NoError(t, err)
		require.Equal(t, filepath.Join(root, "worker", fileName(u.options.Unit)), dir)
		info, err := os.Stat(dir)
		require.NoError(t, err)
		require.Equal(t, os.ModeDir|0o711, info.Mode())
		_, err = u.WorkerDir(t.Context())
		require.NoError(t, err)
		again, err := os.Stat(dir)
		require.NoError(t, err)
		require.Equal(t, info.Sys(), again.Sys(), "one that is right is not changed, not even the time of its change")
		require.NoError(t, os.Chmod(dir, 0o700))
		_, err = u.WorkerDir(t.Context())
		require.NoError(t, err)
		again, err = os.Stat(dir)
		require.NoError(t, err)
		require.Equal(t, os.ModeDir|0o711, again.Mode(), "one with another mode is put right")
		require.NoError(t, pin(t, u, "7.14.3"))
	}
	require.NoError(t, c.Leave(t.Context()))
	require.NoError(t, c.Leave(t.Context()), "leaving twice")
	require.Equal(t, []string{"concourse-ci-1"}, listing(t, filepath.Join(root, "worker")))
	require.Equal(t, []string{"concourse-ci-1"}, listing(t, filepath.Join(root, "pins")))
}

// mountAt mounts something below a unit's directory.
func mountAt(t *testing.T, source, at, kind string, flags uintptr, options string) {
	require.NoError(t, os.MkdirAll(at, 0o755))
	needs.Mount(t, source, at, kind, flags, options)
}

// precious is a directory of somebody else with a file, bound to a name on a volume.
func precious(t *testing.T, at string) (file string) {
	dir := t.TempDir()
	file = filepath.Join(dir, "precious")
	require.NoError(t, os.WriteFile(file, []byte("x"), 0o600))
	mountAt(t, dir, at, "", syscall.MS_BIND, "")
	require.FileExists(t, filepath.Join(at, "precious"))
	return file
}

// overlay mounts what a worker makes for a build.
func overlay(t *testing.T, work string) (at string) {
	dir := func(name string) string {
		name = filepath.Join(work, "overlays", name)
		require.NoError(t, os.MkdirAll(name, 0o755))
		return name
	}
	at = filepath.Join(work, "live", "rootfs")
	mountAt(t, "overlay", at, "overlay", 0, "lowerdir="+dir("lower")+",upperdir="+dir("upper")+",workdir="+dir("work"))
	require.NoError(t, os.WriteFile(filepath.Join(at, "of the build"), nil, 0o600))
	return at
}

func unmount(t *testing.T, dir string) {
	require.NoError(t, syscall.Unmount(dir, 0))
}

// Leave removes the worker's directory but for what is mounted there by others, which it
// names; then, when it is unmounted, the rest.
func TestLeaveFollowsNoMount(t *testing.T) {
	needs.Root(t)
	src := newSource(t, "7.14.3")
	// Overlays do not write to overlays, on which temporary directories may be.
	root := tmpfs(t, "64m")
	c := open(t, root, "concourse-ci/0", src.URL)
	installed(t, c, "7.14.3")
	require.NoError(t, pin(t, c, "7.14.3"))
	work, err := c.WorkerDir(t.Context())
	require.NoError(t, err)
	for _, name := range []string{"volumes/dead/file", "other/file", "nested/in/file"} {
		require.NoError(t, os.MkdirAll(filepath.Join(work, filepath.Dir(name)), 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(work, name), nil, 0o600))
	}
	dead := overlay(t, work)
	bound := filepath.Join(work, "volumes", "bound")
	kept := precious(t, bound)
	memory := filepath.Join(work, "nested", "memory")
	mountAt(t, "tmpfs", memory, "tmpfs", 0, "size=1m")
	deeper := filepath.Join(memory, "deeper")
	keptDeeper := precious(t, deeper)
	require.NoError(t, os.Symlink(filepath.Dir(kept), filepath.Join(work, "link")))

	err = c.Leave(t.Context())
	require.ErrorIs(t, err, ErrMounted)
	for _, at := range []string{bound, memory} {
		require.ErrorContains(t, err, at)
	}
	require.NotContains(t, err.Error(), "\n")
	require.NotContains(t, err.Error(), dead)
	for _, file := range []string{kept, keptDeeper, filepath.Join(bound, "precious"), filepath.Join(deeper, "precious")} {
		require.FileExists(t, file)
	}
	require.Equal(t, []string{"nested", "nested/memory", "nested/memory/deeper", "nested/memory/deeper/precious",
		"volumes", "volumes/bound", "volumes/bound/precious"}, listing(t, work))
	require.Empty(t, listing(t, filepath.Join(root, pinsDir)), "the rest of it is done")

	for _, at := range []string{bound, deeper, memory} {
		unmount(t, at)
	}
	require.NoError(t, c.Leave(t.Context()))
	require.NoDirExists(t, work)
	require.FileExists(t, kept)
	require.FileExists(t, keptDeeper)
}

// The directory itself may be a mount.
func TestLeaveAMountedDirectory(t *testing.T) {
	needs.Root(t)
	root := t.TempDir()
	c := open(t, root, "concourse-ci/0", "")
	work, err := c.WorkerDir(t.Context())
	require.NoError(t, err)
	kept := precious(t, work)
	err = c.Leave(t.Context())
	require.ErrorIs(t, err, ErrMounted)
	require.ErrorContains(t, err, work)
	require.FileExists(t, kept)
	unmount(t, work)
	require.NoError(t, c.Leave(t.Context()))
	require.NoDirExists(t, work)
}

// Of another unit, in whose directory something is mounted, nothing is removed.
func TestForgetAUnitThatRunsHere(t *testing.T) {
	needs.Root(t)
	src := newSource(t, "7.14.3")
	root := tmpfs(t, "64m")
	c, other := open(t, root, "concourse-ci/0", src.URL), open(t, root, "concourse-ci/1", src.URL)
	installed(t, c, "7.14.3")
	require.NoError(t, pin(t, other, "7.14.3"))
	work, err := other.WorkerDir(t.Context())
	require.NoError(t, err)
	at := overlay(t, work)
	before := listing(t, root)
	err = c.Forget(t.Context(), "concourse-ci/1")
	require.ErrorIs(t, err, ErrMounted)
	require.ErrorContains(t, err, at)
	require.Equal(t, before, listing(t, root))
	unmount(t, at)
	require.NoError(t, c.Forget(t.Context(), "concourse-ci/1"))
	require.NoDirExists(t, work)
	require.Empty(t, listing(t, filepath.Join(root, pinsDir)))
}

// What a living worker runs in stays, and is named.
func TestLeaveBesideALivingWorker(t *testing.T) {
	needs.Root(t)
	for name, uses := range map[string]func(at string) *exec.Cmd{
		"works there":     func(at string) *exec.Cmd { c := exec.Command("sleep", "600"); c.Dir = at; return c },
		"has a file open": func(at string) *exec.Cmd { return exec.Command("tail", "-f", filepath.Join(at, "of the build")) },
	} {
		t.Run(name, func(t *testing.T) {
			root := tmpfs(t, "64m")
			c := open(t, root, "concourse-ci/0", "")
			work, err := c.WorkerDir(t.Context())
			require.NoError(t, err)
			at := overlay(t, work)
			build := uses(at)
			require.NoError(t, build.Start())
			dead := func() { build.Process.Kill(); build.Wait() }
			t.Cleanup(dead)
			require.Eventually(t, func() bool { // "busy", without a try
				links, _ := filepath.Glob("/proc/" + pidOf(build) + "/fd/*")
				for _, link := range append(links, "/proc/"+pidOf(build)+"/cwd") {
					if to, _ := os.Readlink(link); strings.HasPrefix(to, at) {
						return true
					}
				}
				return false
			}, 20*time.Second, time.Millisecond)
			err = c.Leave(t.Context())
			require.ErrorIs(t, err, ErrMounted)
			require.ErrorContains(t, err, at)
			require.FileExists(t, filepath.Join(at, "of the build"))
			dead()
			require.NoError(t, c.Leave(t.Context()))
			require.NoDirExists(t, work)
		})
	}
}

func pidOf(cmd *exec.Cmd) string { return strconv.Itoa(cmd.Process.Pid) }

// What is mounted in what is collected survives, and who reads the log is told where.
func TestCollectFollowsNoMount(t *testing.T) {
	needs.Root(t)
	src := newSource(t, "7.14.0", "7.14.1", "7.14.2")
	root := t.TempDir()
	var log bytes.Buffer
	c := open(t, root, "concourse-ci/0", src.URL, logTo(&log))
	installed(t, c, "7.14.0", "7.14.1", "7.14.2")
	staged := filepath.Join(root, stagingDir, "7.14.0.9.concourse-ci-9")
	kept := []string{
		precious(t, filepath.Join(root, storeDir, "7.14.0.1/bin/mounted")),
		precious(t, filepath.Join(staged, "tree/bin/mounted")),
	}
	removed, err := c.Collect(t.Context())
	require.NoError(t, err)
	require.Equal(t, []string{"staging/7.14.0.9.concourse-ci-9", "releases/7.14.0", "store/7.14.0.1"}, removed)
	again, err := c.Collect(t.Context())
	require.NoError(t, err)
	require.Empty(t, again, "removed once more")
	for _, file := range kept {
		require.FileExists(t, file)
	}
	var points []string
	require.NoError(t, filepath.WalkDir(filepath.Join(root, stagingDir), func(name string, d fs.DirEntry, err error) error {
		if err == nil && d.Name() == "mounted" {
			points = append(points, name)
			return fs.SkipDir
		}
		return err
	}))
	require.Len(t, points, 2)
	for _, at := range points {
		require.Contains(t, log.String(), at)
		unmount(t, at)
	}
	removed, err = c.Collect(t.Context())
	require.NoError(t, err)
	require.Len(t, removed, 2)
	require.Empty(t, listing(t, filepath.Join(root, stagingDir)))
}

// An entry of the store that is a mount cannot be moved: it stays, and the others go.
func TestCollectOfAMount(t *testing.T) {
	needs.Root(t)
	src := newSource(t, "7.14.0", "7.14.1", "7.14.2", "7.14.3")
	root := t.TempDir()
	c := open(t, root, "concourse-ci/0", src.URL)
	installed(t, c, "7.14.0", "7.14.1", "7.14.2", "7.14.3")
	at := filepath.Join(root, storeDir, "7.14.0.1")
	kept := precious(t, at)
	_, err := c.Collect(t.Context())
	require.ErrorIs(t, err, ErrMounted)
	require.ErrorContains(t, err, at)
	require.FileExists(t, kept)
	require.Equal(t, []string{"7.14.2", "7.14.3"}, list(t, filepath.Join(root, releasesDir)))
	require.NoDirExists(t, filepath.Join(root, storeDir, "7.14.1.1"))
	unmount(t, at)
	_, err = c.Collect(t.Context())
	require.NoError(t, err)
	require.Equal(t, []string{"7.14.2.1", "7.14.3.1"}, list(t, filepath.Join(root, storeDir)))
}

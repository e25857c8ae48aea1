package coordinator

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/needs"
)

// A mount that can be used, and cannot any more, and can again, under a unit that looks.
func TestCheckOfAMountThatChanges(t *testing.T) {
	needs.Root(t)
	src := newSource(t, "7.14.3")
	const writable = 0
	for name, test := range map[string]struct {
		spoil, mend func(t *testing.T, root string)
		kind        error
		text, why   string // what Check says, and what a call that writes does
	}{
		"read-only": {remount(syscall.MS_RDONLY), remount(writable), ErrReadOnly, "mount it read-write", "read-only"},
		"noexec":    {remount(syscall.MS_NOEXEC), remount(writable), ErrNoExec, "mount it without noexec", ""},
		"both":      {remount(syscall.MS_RDONLY | syscall.MS_NOEXEC), remount(writable), ErrReadOnly, "is mounted so", "read-only"},
		"full":      {fillBytes, unfill, ErrNoSpace, "less than 1.0 MB is free", "0.0 MB are free"},
		"no inode":  {fillInodes, unfill, ErrNoSpace, "no inode is free", "no inode is free, though "},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			needs.Mount(t, "tmpfs", root, "tmpfs", 0, "size=16m,nr_inodes=200")
			require.NoError(t, os.WriteFile(filepath.Join(root, marker), nil, 0o644))
			c := open(t, root, "concourse-ci/0", src.URL, shared)
			installed(t, c, "7.14.3")
			require.NoError(t, c.Check(t.Context()))
			test.spoil(t, root)
			before := snapshot(t, root)
			err := c.Check(t.Context())
			require.ErrorIs(t, err, test.kind)
			require.ErrorContains(t, err, test.text)
			require.NoError(t, c.View.Check(t.Context()), "it can be read all the same")
			_, err = c.Installed(t.Context(), "7.14.3")
			require.NoError(t, err)
			require.Equal(t, before, snapshot(t, root), "a look changes nothing")
			if test.kind != ErrNoExec {
				_, err = c.Probe(t.Context())
				require.ErrorIs(t, err, test.kind, "what cannot be written says why")
				require.ErrorContains(t, err, test.why)
			}
			test.mend(t, root)
			require.NoError(t, c.Check(t.Context()))
		})
	}
}

// A volume that is new, and to which nothing can be written, says why.
func TestOpenOfANewVolumeThatCannotBeWritten(t *testing.T) {
	for name, test := range map[string]struct {
		spoil func(t *testing.T, root string)
		kind  error
	}{
		"read-only": {remount(syscall.MS_RDONLY), ErrReadOnly},
		"full":      {fillBytes, ErrNoSpace},
		"no inode":  {fillInodes, ErrNoSpace},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			needs.Mount(t, "tmpfs", root, "tmpfs", 0, "size=1m,nr_inodes=50")
			require.NoError(t, os.WriteFile(filepath.Join(root, marker), nil, 0o644))
			test.spoil(t, root)
			_, err := Open(t.Context(), root, Options{Product: concourse, Unit: "concourse-ci/0", Marker: marker})
			var e *Error
			require.ErrorAs(t, err, &e)
			require.Equal(t, test.kind, e.Kind, err)
		})
	}
}

func remount(flags uintptr) func(*testing.T, string) {
	return func(t *testing.T, root string) {
		require.NoError(t, syscall.Mount("", root, "", syscall.MS_REMOUNT|flags, ""))
	}
}

const filler = "filler"

func fillBytes(t *testing.T, root string) {
	f, err := os.Create(filepath.Join(root, filler))
	require.NoError(t, err)
	defer f.Close()
	block := make([]byte, 4096)
	for err == nil {
		_, err = f.Write(block)
	}
	require.ErrorIs(t, err, syscall.ENOSPC)
}

func fillInodes(t *testing.T, root string) {
	dir := filepath.Join(root, filler)
	err := os.Mkdir(dir, 0o755)
	for name := "x"; err == nil; name += "x" {
		err = os.WriteFile(filepath.Join(dir, name), nil, 0o644)
	}
	require.ErrorIs(t, err, syscall.ENOSPC)
}

func unfill(t *testing.T, root string) {
	require.NoError(t, os.RemoveAll(filepath.Join(root, filler)))
}

// A product without programs needs no mount that can start them.
func TestCheckOfAProductWithoutPrograms(t *testing.T) {
	root := t.TempDir()
	needs.Mount(t, "tmpfs", root, "tmpfs", syscall.MS_NOEXEC, "size=4m")
	c := open(t, root, "concourse-ci/0", "", func(o *Options) { o.Product.Executables = nil })
	require.NoError(t, c.Check(t.Context()))
}

// publicDir is a temporary directory that everybody can reach: those of tests are private.
func publicDir(t *testing.T) string {
	top, err := filepath.EvalSymlinks(t.TempDir())
	require.NoError(t, err)
	for dir := top; dir != "/"; dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		require.NoError(t, err)
		if info.Mode()&0o005 != 0o005 {
			require.NoError(t, os.Chmod(dir, info.Mode()|0o005))
			t.Cleanup(func() { os.Chmod(dir, info.Mode()) })
		}
	}
	return top
}

// Root sees nothing of a mode that shuts out another user.
func TestExecutable(t *testing.T) {
	needs.Root(t)
	const uid, gid, somebody = 54321, 54321, 54322
	groups, err := syscall.Getgroups()
	require.NoError(t, err)
	require.NoError(t, syscall.Setgroups([]int{0}), "as a service of root has it")
	t.Cleanup(func() { syscall.Setgroups(groups) })
	src := newSource(t, "7.14.3")
	top := publicDir(t)
	root := filepath.Join(top, "volume")
	c := open(t, root, "concourse-ci/0", src.URL)
	installed(t, c, "7.14.3")
	require.NoError(t, c.Executable(t.Context(), "7.14.3", uid, gid))
	for _, name := range []string{".", releasesDir, storeDir, "store/7.14.3.1", "store/7.14.3.1/bin", "store/7.14.3.1/bin/concourse"} {
		path := filepath.Join(root, name)
		info, err := os.Stat(path)
		require.NoError(t, err)
		for mode, shut := range map[os.FileMode]bool{0: true, 0o700: true, 0o750: true, 0o770: true, 0o701: false} {
			require.NoError(t, os.Chmod(path, mode))
			err := c.Executable(t.Context(), "7.14.3", uid, gid)
			require.Equal(t, shut, err != nil, "%s with mode %o: %v", name, mode, err)
			if shut {
				require.ErrorIs(t, err, ErrNoAccess)
				require.ErrorContains(t, err, "run `chmod o+rx "+path+"`")
			}
		}
		require.NoError(t, os.Chmod(path, 0o750))
		require.NoError(t, os.Chown(path, somebody, gid))
		require.NoError(t, c.Executable(t.Context(), "7.14.3", uid, gid), "the group passes")
		require.NoError(t, os.Chown(path, uid, somebody))
		require.NoError(t, c.Executable(t.Context(), "7.14.3", uid, gid), "the owner passes")
		require.NoError(t, os.Chown(path, 0, 0))
		require.NoError(t, os.Chmod(path, info.Mode()))
	}
	require.ErrorIs(t, c.Executable(t.Context(), "7.14.4", uid, gid), ErrNotInstalled)
}

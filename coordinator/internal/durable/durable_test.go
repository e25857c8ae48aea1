package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/needs"
)

func newRoot(t *testing.T) *os.Root {
	root, err := os.OpenRoot(t.TempDir())
	require.NoError(t, err)
	t.Cleanup(func() { root.Close() })
	return root
}

func TestCreateOnce(t *testing.T) {
	root := newRoot(t)
	var made atomic.Int32
	var all sync.WaitGroup
	for i := range 16 {
		all.Go(func() {
			err := Create(root, "x", fmt.Append(nil, i))
			if err == nil {
				made.Add(1)
			} else if !errors.Is(err, fs.ErrExist) {
				t.Error(err)
			}
		})
	}
	all.Wait()
	require.EqualValues(t, 1, made.Load())
	names, err := Names(root, ".")
	require.NoError(t, err)
	require.Equal(t, []string{"x"}, names, "private files are left")
}

// Refusals that are true are told at once, and change nothing. Where a name may
// still appear, that it does not is told when it is sure.
func TestRefusals(t *testing.T) {
	long := strings.Repeat("x", 256)
	for name, c := range map[string]struct {
		do   func(root *os.Root) error
		want error
		wait time.Duration
	}{
		"over a directory with files": {func(r *os.Root) error { return Rename(r, "dir", "full") }, fs.ErrExist, 0},
		"from what is not there":      {func(r *os.Root) error { return Rename(r, "none", "x") }, fs.ErrNotExist, 0},
		"to what is not there":        {func(r *os.Root) error { return Rename(r, "dir", "none/x") }, fs.ErrNotExist, Settle},
		"to a name that is too long":  {func(r *os.Root) error { return Rename(r, "dir", long) }, syscall.ENAMETOOLONG, 0},
		"into itself":                 {func(r *os.Root) error { return Rename(r, "full", "full/sub/x") }, syscall.EINVAL, 0},
		"below a file":                {func(r *os.Root) error { return Rename(r, "dir", "file/x") }, syscall.ENOTDIR, 0},
		"a directory over a file":     {func(r *os.Root) error { return Rename(r, "dir", "file") }, syscall.ENOTDIR, 0},
		"a file over a directory":     {func(r *os.Root) error { return Rename(r, "file", "dir") }, fs.ErrExist, 0},
		"through a loop":              {func(r *os.Root) error { return Rename(r, "dir", "loop/x") }, syscall.ELOOP, 0},
		"link to what is not there":   {func(r *os.Root) error { return Link(r, "file", "none/x") }, fs.ErrNotExist, Settle},
		"link to a name too long":     {func(r *os.Root) error { return Link(r, "file", long) }, syscall.ENAMETOOLONG, 0},
		"link below a file":           {func(r *os.Root) error { return Link(r, "loop", "file/x") }, syscall.ENOTDIR, 0},
		"link of a directory":         {func(r *os.Root) error { return Link(r, "dir", "x") }, syscall.EPERM, 0},
		"link over a file":            {func(r *os.Root) error { return Link(r, "loop", "file") }, fs.ErrExist, 0},
		"link from what is not there": {func(r *os.Root) error { return Link(r, "none", "x") }, fs.ErrNotExist, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				root := newRoot(t)
				require.NoError(t, root.Mkdir("dir", 0o755))
				require.NoError(t, root.MkdirAll("full/sub", 0o755))
				require.NoError(t, root.WriteFile("file", nil, 0o644))
				require.NoError(t, root.Symlink("loop", "loop"))
				start := time.Now()
				require.ErrorIs(t, c.do(root), c.want)
				require.Equal(t, c.wait, time.Since(start))
				names, err := Names(root, ".")
				require.NoError(t, err)
				require.ElementsMatch(t, []string{"dir", "full", "file", "loop"}, names)
			})
		})
	}
}

// What a client of a network file system says of a request that it repeated, or
// gave up, may be wrong.
func TestUncertainErrors(t *testing.T) {
	for _, errno := range []syscall.Errno{syscall.EIO, syscall.ESTALE, syscall.ETIMEDOUT, syscall.EEXIST, syscall.ENOENT, syscall.ENOTEMPTY, syscall.EINTR, syscall.EBUSY} {
		require.False(t, final(&os.LinkError{Op: "rename", Err: errno}), errno)
	}
}

func TestSymlinkIsReplaced(t *testing.T) {
	root := newRoot(t)
	for _, target := range []string{"a", "b", "b"} {
		require.NoError(t, Symlink(root, target, "bin"))
		got, err := root.Readlink("bin")
		require.NoError(t, err)
		require.Equal(t, target, got)
	}
	names, err := Names(root, ".")
	require.NoError(t, err)
	require.Equal(t, []string{"bin"}, names)
}

// Both ways to sync find what is there; file by file, what is not is an error.
func TestSync(t *testing.T) {
	root := newRoot(t)
	require.NoError(t, root.MkdirAll("tree/bin", 0o755))
	require.NoError(t, root.WriteFile("tree/bin/concourse", []byte("x"), 0o555))
	require.NoError(t, root.Symlink("nowhere", "tree/bin/link"))
	w, err := Begin(root)
	require.NoError(t, err)
	defer w.Close()
	require.NoError(t, w.Sync("tree"))
	require.NoError(t, w.each("tree"))
	require.ErrorIs(t, w.each("nothing"), fs.ErrNotExist)
}

// What could not be written since Begin is an error of Sync.
func TestLostWritesAreTold(t *testing.T) {
	root := newRoot(t)
	broken, err := os.Open(os.DevNull)
	require.NoError(t, err)
	require.NoError(t, broken.Close())
	w := &Writes{root: root, volume: broken, whole: true}
	require.ErrorContains(t, w.Sync("."), "cannot sync the volume")
	// The kernel tells an error once.
	w.volume, err = root.Open(".")
	require.NoError(t, err)
	defer w.Close()
	require.ErrorContains(t, w.Sync("."), "cannot sync the volume")
}

func TestFileSystems(t *testing.T) {
	neither, both := fileSystem{}, fileSystem{syncfs: true, local: true}
	for name, c := range map[string]struct {
		kind uint32
		want fileSystem
	}{
		"ext4":      {unix.EXT4_SUPER_MAGIC, both},
		"xfs":       {unix.XFS_SUPER_MAGIC, both},
		"btrfs":     {unix.BTRFS_SUPER_MAGIC, both},
		"tmpfs":     {unix.TMPFS_MAGIC, both},
		"zfs":       {0x2fc12fc1, both},
		"f2fs":      {unix.F2FS_SUPER_MAGIC, fileSystem{local: true}},
		"bcachefs":  {unix.BCACHEFS_SUPER_MAGIC, fileSystem{local: true}},
		"overlayfs": {unix.OVERLAYFS_SUPER_MAGIC, neither},
		"gfs2":      {0x01161970, fileSystem{syncfs: true}},
		"ocfs2":     {unix.OCFS2_SUPER_MAGIC, neither},
		"nfs":       {unix.NFS_SUPER_MAGIC, neither},
		"ceph":      {unix.CEPH_SUPER_MAGIC, neither},
		"fuse":      {unix.FUSE_SUPER_MAGIC, neither},
		"9p":        {unix.V9FS_MAGIC, neither},
		"unknown":   {1, neither},
	} {
		require.Equal(t, c.want, fileSystemOf(c.kind), name)
	}
}

// The numbers are those that the kernel tells.
func TestFileSystemIsRecognized(t *testing.T) {
	dir := t.TempDir()
	needs.Mount(t, "tmpfs", dir, "tmpfs", 0, "size=1m")
	root, err := os.OpenRoot(dir)
	require.NoError(t, err)
	defer root.Close()
	require.True(t, Local(root))
	_, dir, _ = lying(t)
	a := elsewhere(t, dir, "local")
	require.Equal(t, "false", a.Data)
}

// What is no small file is not waited for, and not read into memory.
func TestOnlySmallFilesAreRead(t *testing.T) {
	root := newRoot(t)
	in := func(name string) string { return root.Name() + "/" + name }
	require.NoError(t, root.WriteFile("small", make([]byte, maxSmall), 0o644))
	data, err := ReadFile(root, "small")
	require.NoError(t, err)
	require.Len(t, data, maxSmall)
	require.NoError(t, root.WriteFile("large", make([]byte, maxSmall+1), 0o644))
	require.NoError(t, root.WriteFile("sparse", nil, 0o644))
	require.NoError(t, os.Truncate(in("sparse"), 1<<40))
	require.NoError(t, root.Mkdir("dir", 0o755))
	require.NoError(t, syscall.Mkfifo(in("pipe"), 0o644))
	require.NoError(t, root.Symlink("nothing", "dangling"))
	require.NoError(t, root.Symlink("/etc/passwd", "out"))
	require.NoError(t, root.Symlink("loop", "loop"))
	require.NoError(t, root.Symlink("pipe", "to a pipe"))
	for _, name := range []string{"large", "sparse", "dir", "pipe", "dangling", "out", "loop", "to a pipe"} {
		_, err := ReadFile(root, name)
		require.ErrorIs(t, err, ErrUnusable, name)
		require.NotErrorIs(t, err, fs.ErrNotExist, name)
	}
	_, err = Names(root, "pipe")
	require.ErrorIs(t, err, syscall.ENOTDIR)
	require.ErrorIs(t, SyncDir(root, "pipe"), syscall.ENOTDIR)
	_, err = OpenRoot(root, "pipe")
	require.ErrorIs(t, err, syscall.ENOTDIR)
	_, err = ReadFile(root, "none")
	require.ErrorIs(t, err, fs.ErrNotExist)
}

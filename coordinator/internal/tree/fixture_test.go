package tree

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/needs"
)

// TestMain gives the tests mounts of their own, which end with them.
func TestMain(m *testing.M) {
	const private = "TREE_TEST_HAS_ITS_OWN_MOUNTS"
	if os.Getuid() == 0 && os.Getenv(private) == "" {
		runtime.LockOSThread()
		err := unix.Unshare(unix.CLONE_NEWNS)
		if err == nil {
			err = unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
		}
		if err == nil {
			err = syscall.Exec("/proc/self/exe", os.Args, append(os.Environ(), private+"=1"))
		}
		fmt.Fprintln(os.Stderr, "cannot have mounts of its own:", err)
	}
	os.Exit(m.Run())
}

// volume is a directory with a tree in it that is to be removed.
type volume struct {
	dir  string // the volume
	tree string // below it
	root *os.Root
}

func newVolume(t testing.TB, dir string) volume {
	v := volume{dir: dir, tree: filepath.Join(dir, "tree")}
	require.NoError(t, os.MkdirAll(filepath.Join(v.tree, "a/b"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(v.tree, "a/b/file"), nil, 0o644))
	var err error
	v.root, err = os.OpenRoot(dir)
	require.NoError(t, err)
	t.Cleanup(func() { v.root.Close() })
	return v
}

// precious is a directory outside of the tree, on the same file system, with a
// file that nobody may remove.
func (v volume) precious(t *testing.T) (dir string) {
	dir = filepath.Join(v.dir, "precious")
	require.NoError(t, os.MkdirAll(dir, 0o755))
	file := filepath.Join(dir, "file")
	require.NoError(t, os.WriteFile(file, nil, 0o644))
	t.Cleanup(func() {
		if _, err := os.Lstat(file); err != nil {
			t.Errorf("what is outside of the tree was removed: %v", err)
		}
	})
	return dir
}

func (v volume) mkdir(t *testing.T, name string) string {
	dir := filepath.Join(v.tree, name)
	require.NoError(t, os.MkdirAll(dir, 0o755))
	return dir
}

func (v volume) bind(t *testing.T, from, to string) {
	needs.Mount(t, from, to, "", unix.MS_BIND, "")
}

// tmpfs mounts an empty file system with one file in it that nobody may remove.
func (v volume) tmpfs(t *testing.T, to string) {
	needs.Mount(t, "tmpfs", to, "tmpfs", 0, "size=1m")
	file := filepath.Join(to, "precious")
	require.NoError(t, os.WriteFile(file, nil, 0o644))
	f, err := os.Open(file)
	require.NoError(t, err)
	t.Cleanup(func() {
		var st unix.Stat_t
		if err := unix.Fstat(int(f.Fd()), &st); err != nil || st.Nlink == 0 {
			t.Error("what is mounted in the tree was emptied")
		}
		f.Close()
	})
}

// deepen makes directories below each other, each with a file and a directory
// beside, with no path that is too long.
func (v volume) deepen(t *testing.T, levels int) {
	dir, err := unix.Open(v.tree, unix.O_DIRECTORY, 0)
	require.NoError(t, err)
	defer func() { unix.Close(dir) }()
	for range levels {
		for _, name := range []string{"down", "beside"} {
			require.NoError(t, unix.Mkdirat(dir, name, 0o755))
		}
		file, err := unix.Openat(dir, "file", unix.O_CREAT|unix.O_WRONLY, 0o644)
		require.NoError(t, err)
		unix.Close(file)
		down, err := unix.Openat(dir, "down", unix.O_DIRECTORY, 0)
		require.NoError(t, err)
		unix.Close(dir)
		dir = down
	}
}

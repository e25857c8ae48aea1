package probe

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/lyingfs"
	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/needs"
)

var dirs = []string{"staging", "store", "releases"}

// layOut makes the directories that Preflight is called with.
func layOut(t *testing.T, volume string) (paths []string) {
	for _, dir := range dirs {
		paths = append(paths, filepath.Join(volume, dir))
		require.NoError(t, os.MkdirAll(paths[len(paths)-1], 0o777))
		require.NoError(t, os.Chmod(paths[len(paths)-1], 0o777))
	}
	return paths
}

// Each mount is unfit for one reason, and is fit but for that.
func TestPreflight(t *testing.T) {
	tmpfs := func(flags uintptr, options string) func(*testing.T, string) {
		return func(t *testing.T, dir string) { needs.Mount(t, "tmpfs", dir, "tmpfs", flags, options) }
	}
	nobody := trial{User: 65534, Needs: Needs{Execute: true}}
	for name, c := range map[string]struct {
		trial
		mount func(t *testing.T, dir string) // before the directories are made
		spoil func(t *testing.T, dir string) // after that
		is    []string
		says  string
	}{
		"fit":                      {trial: trial{Needs: Needs{Inodes: 1000, Execute: true}}, mount: tmpfs(0, "")},
		"fit for an ordinary user": {trial: nobody, mount: tmpfs(0, "")},
		"read-only": {
			mount: tmpfs(0, ""),
			spoil: func(t *testing.T, dir string) {
				require.NoError(t, syscall.Mount("", dir, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""))
			},
			is: []string{"ErrReadOnly"}, says: "it is mounted so; mount it read-write",
		},
		"noexec": {
			trial: trial{Needs: Needs{Execute: true}},
			mount: tmpfs(syscall.MS_NOEXEC, ""),
			is:    []string{"ErrNoExec"}, says: "it is mounted with noexec; mount it without noexec",
		},
		"noexec where nothing is executed": {mount: tmpfs(syscall.MS_NOEXEC, "")},
		"few inodes": {
			trial: trial{Needs: Needs{Inodes: 1000}},
			mount: tmpfs(0, "nr_inodes=100"),
			is:    []string{"ErrNoInodes"}, says: "of 100 are free, 1000 are needed",
		},
		"no inodes": {
			mount: tmpfs(0, "nr_inodes=4"), // the root and the three directories
			is:    []string{"ErrNoInodes", "ENOSPC"}, says: "none of 4 is free",
		},
		"hardly any inodes": {
			mount: tmpfs(0, "nr_inodes=8"),
			is:    []string{"ErrNoInodes", "ENOSPC"}, says: "none of 8 is free",
		},
		"no blocks": {
			mount: tmpfs(0, "size=4k"),
			spoil: func(t *testing.T, dir string) {
				require.NoError(t, os.WriteFile(filepath.Join(dir, "full"), make([]byte, 4096), 0o644))
			},
			is: []string{"ENOSPC"}, says: "no space left on device",
		},
		"another mount below": {
			spoil: func(t *testing.T, dir string) {
				needs.Mount(t, "tmpfs", filepath.Join(dir, "releases"), "tmpfs", 0, "")
			},
			is: []string{"ErrCrossDevice"}, says: "renaming into releases and back failed",
		},
		"the same file system mounted below": {
			mount: tmpfs(0, ""),
			spoil: func(t *testing.T, dir string) {
				needs.Mount(t, filepath.Join(dir, "store"), filepath.Join(dir, "store"), "", syscall.MS_BIND, "")
			},
			is: []string{"ErrCrossDevice"}, says: "renaming into store and back failed",
		},
		"not writable": {
			trial: nobody,
			mount: tmpfs(0, ""),
			spoil: func(t *testing.T, dir string) { require.NoError(t, os.Chmod(filepath.Join(dir, "staging"), 0o755)) },
			is:    []string{"ErrNoPermission"}, says: "give this user permission to write",
		},
		"not writable later": {
			trial: nobody,
			mount: tmpfs(0, ""),
			spoil: func(t *testing.T, dir string) {
				require.NoError(t, os.Chmod(filepath.Join(dir, "releases"), 0o755))
			},
			is: []string{"ErrNoPermission"}, says: "renaming into releases and back failed",
		},
		"immutable": {
			mount: tmpfs(0, ""),
			spoil: func(t *testing.T, dir string) { immutable(t, filepath.Join(dir, "staging")) },
			is:    []string{"ErrNoPermission"}, says: "nothing is immutable",
		},
		"without a directory": {
			mount: tmpfs(0, ""),
			spoil: func(t *testing.T, dir string) { require.NoError(t, os.Remove(filepath.Join(dir, "store"))) },
			is:    []string{"ENOENT"}, says: "renaming into store and back failed",
		},
	} {
		t.Run(name, func(t *testing.T) {
			needs.Root(t)
			dir := t.TempDir()
			if c.mount != nil {
				c.mount(t, dir)
			}
			layOut(t, dir)
			if c.spoil != nil {
				c.spoil(t, dir)
			}
			requireVerdict(t, preflightOf(t, dir, c.trial), c.is, c.says)
			requireNothingLeft(t, dir)
		})
	}
}

// The same for what no file system does of its own here.
func TestPreflightOfLiars(t *testing.T) {
	refuse := func(r lyingfs.Request, errno syscall.Errno) lyingfs.Lies {
		return lyingfs.Lies{Refused: map[lyingfs.Request]syscall.Errno{r: errno}}
	}
	for name, c := range map[string]struct {
		lies lyingfs.Lies
		is   []string
		says string
	}{
		"truth":                          {},
		"modes are not kept":             {lies: lyingfs.Lies{Modeless: true}, is: []string{"ErrNoModes"}, says: "-rwxrwxrwx after chmod to -r--r--r--"},
		"chmod is not permitted":         {lies: refuse(lyingfs.Setattr, syscall.EPERM), is: []string{"ErrNoModes"}, says: "file system that keeps modes"},
		"files cannot be executed":       {lies: refuse(lyingfs.Access, syscall.EACCES), is: []string{"ErrNoExec"}, says: "executing a file failed: permission denied"},
		"links are not permitted":        {lies: refuse(lyingfs.Link, syscall.EPERM), is: []string{"ErrNoLinks"}, says: "file system that has hard links"},
		"links are not supported":        {lies: refuse(lyingfs.Link, syscall.EOPNOTSUPP), is: []string{"ErrNoLinks"}, says: "operation not supported"},
		"links cross devices":            {lies: refuse(lyingfs.Link, syscall.EXDEV), is: []string{"ErrNoLinks"}, says: "invalid cross-device link"},
		"symbolic links have one name":   {lies: refuse(lyingfs.Relink, syscall.EPERM), is: []string{"ErrNoLinks"}, says: "operation not permitted"},
		"symbolic links are refused":     {lies: refuse(lyingfs.Symlink, syscall.EPERM), is: []string{"ErrNoSymlinks"}, says: "file system that has symbolic links"},
		"renames cross devices":          {lies: refuse(lyingfs.Renaming, syscall.EXDEV), is: []string{"ErrCrossDevice"}, says: "mount one file system for all of it"},
		"writes become read-only":        {lies: refuse(lyingfs.Create, syscall.EROFS), is: []string{"ErrReadOnly"}, says: "mount it read-write"},
		"every path is stale":            {lies: lyingfs.Lies{Stale: 1}, is: []string{"ErrStale"}, says: "wait for the file server"},
		"the quota is used up":           {lies: refuse(lyingfs.Create, syscall.EDQUOT), is: []string{"EDQUOT"}, says: "quota exceeded"},
		"creating is not permitted":      {lies: refuse(lyingfs.Create, syscall.EACCES), is: []string{"ErrNoPermission"}, says: "give this user permission"},
		"the disk is broken":             {lies: refuse(lyingfs.Link, syscall.EIO), says: "input/output error"},
		"link says EIO after success":    {lies: lyingfs.Lies{Link: syscall.EIO}},
		"link says EEXIST after success": {lies: lyingfs.Lies{Link: syscall.EEXIST}},
		"rename says EIO after success":  {lies: lyingfs.Lies{Rename: syscall.EIO}},
	} {
		t.Run(name, func(t *testing.T) {
			dir, backing, m := lyingMount(t)
			layOut(t, backing)
			v := preflightOf(t, dir, trial{Needs: Needs{Execute: true}, ready: func() { m.Tell(c.lies) }})
			requireVerdict(t, v, c.is, c.says)
			requireNothingLeft(t, backing)
		})
	}
}

func requireVerdict(t *testing.T, v verdict, is []string, says string) {
	t.Helper()
	t.Log(v.Err)
	for _, kind := range is {
		if kinds[kind] != nil && kind[:3] == "Err" {
			is = append(is, "ErrUnfit")
			break
		}
	}
	require.ElementsMatch(t, is, v.Is, v.Err)
	if says == "" {
		require.Empty(t, v.Err)
		return
	}
	require.Contains(t, v.Err, says)
	require.Regexp(t, `^cannot use [^\n]+/staging: [^\n]+$`, v.Err)
}

func requireNothingLeft(t *testing.T, volume string) {
	t.Helper()
	for _, dir := range dirs {
		if path := filepath.Join(volume, dir); dirExists(path) {
			requireEmpty(t, path)
		}
	}
}

func dirExists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// immutable keeps a directory from being changed, even by root.
func immutable(t *testing.T, dir string) {
	t.Helper()
	if out, err := exec.Command("chattr", "+i", dir).CombinedOutput(); err != nil {
		needs.Lack(t, "root", "cannot make a directory immutable here: %s", out)
	}
	t.Cleanup(func() { require.NoError(t, exec.Command("chattr", "-i", dir).Run()) })
}

package durable

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/lyingfs"
	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/needs"
)

// TestMain lets the test binary be another process: one that serves a file system
// must not use it.
func TestMain(m *testing.M) {
	if os.Getenv("DURABLE_DIR") == "" {
		os.Exit(m.Run())
	}
	root, err := os.OpenRoot(os.Getenv("DURABLE_DIR"))
	if errors.Is(err, syscall.ESTALE) {
		root, err = os.OpenRoot(os.Getenv("DURABLE_DIR"))
	}
	if err != nil {
		panic(err)
	}
	var a answer
	switch args := os.Args[1:]; args[0] {
	case "link":
		err = Link(root, args[1], args[2])
	case "local":
		a.Data = fmt.Sprint(Local(root))
	case "read":
		for i := 1; i < len(args) && err == nil; i++ {
			var data []byte
			data, err = ReadFile(root, args[i])
			a.Data += string(data)
		}
	}
	if err != nil {
		a.Err, a.Exists = err.Error(), errors.Is(err, fs.ErrExist)
	}
	if err := json.NewEncoder(os.Stdout).Encode(a); err != nil {
		panic(err)
	}
}

type answer struct {
	Data, Err string
	Exists    bool // fs.ErrExist
}

// elsewhere calls a function of this package in another process.
func elsewhere(t *testing.T, dir string, args ...string) (a answer) {
	t.Helper()
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), "DURABLE_DIR="+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(out, &a))
	return a
}

// lying mounts a directory, and returns it and the mount.
func lying(t *testing.T) (backing, dir string, m *lyingfs.Machine) {
	needs.Root(t)
	backing, dir = t.TempDir(), t.TempDir()
	m, err := lyingfs.Serve(backing).Mount(dir, false)
	if err != nil {
		needs.Lack(t, "fuse", "cannot mount with FUSE here: %v", err)
	}
	t.Cleanup(func() {
		if err := m.Unmount(dir); err != nil {
			t.Error("cannot unmount:", err)
		}
	})
	return backing, dir, m
}

// linkables are what a new name is made of.
var linkables = map[string]func(dir string) error{
	"file":     func(dir string) error { return os.WriteFile(filepath.Join(dir, "new"), []byte("new"), 0o644) },
	"symlink":  func(dir string) error { return os.Symlink("target", filepath.Join(dir, "new")) },
	"dangling": func(dir string) error { return os.Symlink("/nowhere/at/all", filepath.Join(dir, "new")) },
}

// A success that is reported as a failure is a success; the first one of others
// stays.
func TestLinkIsBelievedAfterALook(t *testing.T) {
	for what, make := range linkables {
		for _, lie := range []syscall.Errno{0, syscall.EIO, syscall.EEXIST, syscall.ETIMEDOUT} {
			t.Run(what+"/"+lie.Error(), func(t *testing.T) {
				backing, dir, m := lying(t)
				require.NoError(t, make(backing))
				m.Tell(lyingfs.Lies{Link: lie})
				require.Empty(t, elsewhere(t, dir, "link", "new", "there").Err)
				same(t, backing, "new", "there")

				require.NoError(t, os.Symlink("another", filepath.Join(backing, "taken")))
				require.NoError(t, os.Remove(filepath.Join(backing, "there")))
				a := elsewhere(t, dir, "link", "new", "taken")
				require.True(t, a.Exists, "%+v", a)
				target, err := os.Readlink(filepath.Join(backing, "taken"))
				require.NoError(t, err)
				require.Equal(t, "another", target)
			})
		}
	}
}

func TestLink(t *testing.T) {
	volumes := map[string]func(t *testing.T) string{
		"disk": func(t *testing.T) string { return t.TempDir() },
		"tmpfs": func(t *testing.T) string {
			dir := t.TempDir()
			needs.Mount(t, "tmpfs", dir, "tmpfs", 0, "size=1m")
			return dir
		},
	}
	for on, volume := range volumes {
		for what, make := range linkables {
			t.Run(on+"/"+what, func(t *testing.T) {
				dir := volume(t)
				root, err := os.OpenRoot(dir)
				require.NoError(t, err)
				defer root.Close()
				require.NoError(t, os.WriteFile(filepath.Join(dir, "target"), nil, 0o644))
				require.NoError(t, make(dir))
				require.NoError(t, Link(root, "new", "there"))
				same(t, dir, "new", "there")
				// Once more, as a request that is repeated.
				require.NoError(t, Link(root, "new", "there"))

				require.NoError(t, os.Symlink("another", filepath.Join(dir, "taken")))
				require.ErrorIs(t, Link(root, "new", "taken"), fs.ErrExist)
				require.ErrorIs(t, Link(root, "none", "x"), fs.ErrNotExist)
			})
		}
	}
}

// same checks that two names are those of one file, not of what it points to.
func same(t *testing.T, dir, a, b string) {
	t.Helper()
	one, err := os.Lstat(filepath.Join(dir, a))
	require.NoError(t, err)
	two, err := os.Lstat(filepath.Join(dir, b))
	require.NoError(t, err)
	require.True(t, os.SameFile(one, two))
	require.Equal(t, one.Mode().Type(), two.Mode().Type())
}

func TestStaleIsReadByItsName(t *testing.T) {
	backing, dir, m := lying(t)
	// The kernel tries again by itself, more often for names that it knows.
	args := []string{"read"}
	for i := range 20 {
		name := fmt.Sprint(i)
		require.NoError(t, os.WriteFile(filepath.Join(backing, name), []byte("x"), 0o644))
		args = append(args, name)
	}
	m.Tell(lyingfs.Lies{Stale: 5})
	require.Equal(t, answer{Data: strings.Repeat("x", 20)}, elsewhere(t, dir, args...))
	require.Contains(t, elsewhere(t, dir, "read", "none").Err, "no such file")
}

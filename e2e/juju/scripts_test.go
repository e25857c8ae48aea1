package juju

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// The scripts run in machines; here they run on this one, in a directory.

func shell(stdin io.Reader, script string, args ...string) (stdout string, code int, err error) {
	c := exec.Command("sh", append([]string{"-c", script, "sh"}, args...)...)
	c.Stdin = stdin
	out, err := c.Output()
	if failed := (*exec.ExitError)(nil); errors.As(err, &failed) {
		return string(out), failed.ExitCode(), nil
	}
	return string(out), 0, err
}

func readFile(t *testing.T, path string) string {
	content, err := os.ReadFile(path)
	require.NoError(t, err)
	return string(content)
}

func TestReceive(t *testing.T) {
	const content = "#!/bin/sh\necho hello\n"
	sum := sha256.Sum256([]byte(content))
	path := filepath.Join(t.TempDir(), "ccbench", "program")

	_, code, err := shell(strings.NewReader(content[:10]), receiveScript, path, hex.EncodeToString(sum[:]), "0755")
	require.NoError(t, err)
	require.NotZero(t, code, "a stream that broke")
	entries, err := os.ReadDir(filepath.Dir(path))
	require.NoError(t, err)
	require.Empty(t, entries)

	for range 2 {
		_, code, err = shell(strings.NewReader(content), receiveScript, path, hex.EncodeToString(sum[:]), "0755")
		require.NoError(t, err)
		require.Zero(t, code)
	}
	out, err := exec.Command(path).Output()
	require.NoError(t, err)
	require.Equal(t, "hello\n", string(out))
}

func TestChangeKeepsTheFile(t *testing.T) {
	dir := t.TempDir()
	path, from := filepath.Join(dir, "a file"), filepath.Join(dir, "content")
	_, code, err := shell(nil, readScript, path)
	require.NoError(t, err)
	require.Equal(t, noFile, code)

	require.NoError(t, os.WriteFile(path, bytes.Repeat([]byte("x"), 3<<20), 0o640))
	before, err := os.Stat(path)
	require.NoError(t, err)
	for _, content := range []string{strings.Repeat("y", 2<<20), "short", ""} {
		require.NoError(t, os.WriteFile(from, []byte(content), 0o600))
		_, code, err := shell(nil, writeScript, from, path, strconv.Itoa(len(content)))
		require.NoError(t, err)
		require.Zero(t, code)
		require.NoFileExists(t, from)
		out, code, err := shell(nil, readScript, path)
		require.NoError(t, err)
		require.Zero(t, code)
		require.Equal(t, content, out)
	}
	after, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, before.Sys().(*syscall.Stat_t).Ino, after.Sys().(*syscall.Stat_t).Ino)
	require.Equal(t, before.Mode(), after.Mode())
}

func TestFillARealFileSystem(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("ccbench", dir, "tmpfs", 0, "size=64m"); err != nil {
		t.Skipf("cannot mount a file system of a known size: %v", err)
	}
	t.Cleanup(func() { syscall.Unmount(dir, syscall.MNT_DETACH) })
	require.NoError(t, os.WriteFile(filepath.Join(dir, "release"), bytes.Repeat([]byte("x"), 5<<20), 0o600))
	const leaving = 1 << 20
	// What is deleted while the volume is filled comes free when the last file was made.
	stood := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(stood, "fallocate"), []byte(`#!/bin/sh
PATH=${PATH#*:}
fallocate "$@"
made=$?
[ "$2" != `+strconv.Itoa(leaving)+` ] || rm -f `+filepath.Join(dir, "release")+`
exit $made`), 0o700))
	t.Setenv("PATH", stood+":"+os.Getenv("PATH"))
	sizes := fillerSizes(64<<20, leaving)
	fill := func(in string, limit int) (code int, complaint string) {
		complaint, code, err := shell(nil, fillScript+" 2>&1", append([]string{filepath.Join(dir, in), strconv.Itoa(limit)}, sizes...)...)
		require.NoError(t, err)
		return code, complaint
	}
	code, complaint := fill("filler", 64<<20)
	require.Zero(t, code, complaint)
	require.NoFileExists(t, filepath.Join(dir, "release"), "it was deleted meanwhile")
	var free syscall.Statfs_t
	require.NoError(t, syscall.Statfs(dir, &free))
	require.Less(t, free.Bavail*uint64(free.Bsize), uint64(leaving))

	// One that is larger than it is said to be has no size.
	require.NoError(t, os.RemoveAll(filepath.Join(dir, "filler")))
	sizes = fillerSizes(8<<20, leaving)
	code, complaint = fill("filler", 8<<20)
	require.Equal(t, 1, code)
	require.Contains(t, complaint, "does its pool keep to a size?")
}

func TestProgramsAreReadOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "observer")
	require.NoError(t, os.WriteFile(path, []byte("one"), 0o700))
	var p programs
	one, err := p.sum(path)
	require.NoError(t, err)
	again, err := p.sum(path)
	require.NoError(t, err)
	require.Equal(t, one, again)
	require.Len(t, p.sums, 1)

	require.NoError(t, os.WriteFile(path, []byte("another"), 0o700))
	another, err := p.sum(path)
	require.NoError(t, err)
	require.NotEqual(t, pushedPath(path, one), pushedPath(path, another))
	require.True(t, strings.HasPrefix(pushedPath(path, one), "/run/ccbench/observer-"))

	_, err = p.sum(path + "-missing")
	require.ErrorIs(t, err, os.ErrNotExist)
}

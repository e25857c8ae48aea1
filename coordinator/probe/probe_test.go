package probe

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/needs"
)

// TestMain lets the test binary be a helper, or one that hangs.
func TestMain(m *testing.M) {
	switch dir := os.Args[len(os.Args)-1]; os.Getenv("PROBE_TEST_HELPER") {
	case "":
		os.Exit(m.Run())
	case "hangs":
		// It has said that links work.
		fmt.Println(`{"question":0}`)
		if err := os.Mkdir(dir, 0o700); err != nil {
			os.Exit(1)
		}
		time.Sleep(time.Minute)
	case "fails":
		fmt.Fprintln(os.Stderr, "no such thing")
		os.Exit(1)
	default:
		if err := Help(dir, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	os.Exit(0)
}

func helper(t *testing.T, kind string) []string {
	exe, err := os.Executable()
	require.NoError(t, err)
	return []string{"/usr/bin/env", "PROBE_TEST_HELPER=" + kind, exe}
}

func rootOf(t *testing.T, dir string) *os.Root {
	root, err := os.OpenRoot(dir)
	require.NoError(t, err)
	t.Cleanup(func() { root.Close() })
	return root
}

func TestMount(t *testing.T) {
	for name, command := range map[string][]string{"in a process": helper(t, "helps"), "here": nil} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			r, err := Mount(t.Context(), rootOf(t, dir), command...)
			require.NoError(t, err)
			t.Log(r, r.Took, r.Notes)
			require.Equal(t, Exclusive, r.Locks)
			require.True(t, r.Sound())
			require.Equal(t, Works, r.SyncDir)
			require.Less(t, r.Took, Limit)
			require.Contains(t, r.String(), "unknown between machines")
			require.NotContains(t, strings.Join(r.Notes, " "), "/proc/")
			entries, err := os.ReadDir(dir)
			require.NoError(t, err)
			require.Empty(t, entries, "something is left")
		})
	}
}

// What hangs is killed in time; what was answered before counts.
func TestHangingHelper(t *testing.T) {
	dir := t.TempDir()
	r, err := Mount(t.Context(), rootOf(t, dir), helper(t, "hangs")...)
	require.NoError(t, err)
	require.Equal(t, Works, r.Link)
	require.Equal(t, Hangs, r.Rename)
	require.Equal(t, Hanging, r.Locks)
	require.True(t, r.Locks.Useless())
	require.Less(t, r.Took, Limit+time.Second)
	require.Eventually(t, func() bool {
		entries, err := os.ReadDir(dir)
		return err == nil && len(entries) == 0
	}, 5*time.Second, 10*time.Millisecond, "the directory is left")
	out, err := exec.Command("pgrep", "-f", filepath.Join("/proc/self/fd/3", ".probe-")).Output()
	require.Error(t, err, "a helper is left: %s", out)
}

func TestFailingHelper(t *testing.T) {
	_, err := Mount(t.Context(), rootOf(t, t.TempDir()), helper(t, "fails")...)
	require.ErrorContains(t, err, "no such thing")
	_, err = Mount(t.Context(), rootOf(t, t.TempDir()), filepath.Join(t.TempDir(), "none"))
	require.ErrorIs(t, err, os.ErrNotExist)
}

func TestReadOnlyMount(t *testing.T) {
	dir := t.TempDir()
	needs.Mount(t, "tmpfs", dir, "tmpfs", syscall.MS_RDONLY, "")
	_, err := Mount(t.Context(), rootOf(t, dir))
	require.ErrorIs(t, err, syscall.EROFS)
	_, err = Mount(t.Context(), rootOf(t, dir), helper(t, "helps")...)
	require.ErrorContains(t, err, "read-only")
}

func TestCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := Mount(ctx, rootOf(t, t.TempDir()))
	require.ErrorIs(t, err, context.Canceled)
}

// A helper of another version may answer what was not asked.
func TestReplies(t *testing.T) {
	r := Result{}
	q := r.questions()
	for _, line := range []string{
		`{"question":5,"err":"x","worthless":true}`, `{"question":99}`, `{"question":-1}`,
		`{"question":1,"err":"a\nb"}`, `{"question":2,"err":"c","needs":true}`,
	} {
		var got reply
		require.NoError(t, json.Unmarshal([]byte(line), &got))
		r.take(q, got)
	}
	require.Equal(t, Result{Locks: Worthless, Rename: Fails, SyncDir: Unknown, Notes: []string{"flock: x", "rename: a; b", "sync of a directory: c"}}, r)
	r.take(q, reply{Question: 5, Err: "no locks available"})
	require.Equal(t, Absent, r.Locks)
}

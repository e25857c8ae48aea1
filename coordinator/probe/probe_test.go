package probe

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/lyingfs"
	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/needs"
)

// here is what is done with a helper and without.
func here(t *testing.T) map[string][]string {
	return map[string][]string{"in a process": process(t, "helps"), "here": nil}
}

func TestMount(t *testing.T) {
	for name, helper := range here(t) {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			r, err := NewProber(helper...).Mount(t.Context(), rootOf(t, dir))
			require.NoError(t, err)
			t.Log(r, r.Took, r.Notes)
			require.Equal(t, Exclusive, r.Locks)
			require.True(t, r.Sound())
			require.Equal(t, Works, r.SyncDir)
			require.NotEmpty(t, r.FileSystem)
			require.Contains(t, r.String(), "unknown between machines")
			require.NotContains(t, r.String(), "\n")
			require.NotContains(t, strings.Join(r.Notes, " "), "/proc/")
			requireEmpty(t, dir)
		})
	}
}

// What hangs is killed in time; what was answered before counts.
func TestHangingHelper(t *testing.T) {
	dir := t.TempDir()
	r, err := NewProber(process(t, "hangs")...).Mount(t.Context(), rootOf(t, dir))
	require.NoError(t, err)
	require.Equal(t, Works, r.Link)
	require.Equal(t, Hangs, r.Rename)
	require.Equal(t, Hanging, r.Locks)
	require.True(t, r.Locks.Useless())
	requireNothingRuns(t)
	requireEmpty(t, dir)
}

func TestFailingHelper(t *testing.T) {
	_, err := NewProber(process(t, "fails")...).Mount(t.Context(), rootOf(t, t.TempDir()))
	require.ErrorContains(t, err, "no such thing")
	_, err = NewProber(filepath.Join(t.TempDir(), "none")).Mount(t.Context(), rootOf(t, t.TempDir()))
	require.ErrorIs(t, err, os.ErrNotExist)
}

// A helper of a newer version may have more to say than was asked.
func TestTalkativeHelper(t *testing.T) {
	r, err := NewProber(process(t, "talks")...).Mount(t.Context(), rootOf(t, t.TempDir()))
	require.NoError(t, err)
	require.Equal(t, Works, r.Link)
	requireNothingRuns(t)
}

// requireNothingRuns waits until no process of a probe is left: one that is not
// waited for stays for ever.
func requireNothingRuns(t *testing.T) {
	t.Helper()
	require.Eventually(t, func() bool {
		n, err := children()
		return err == nil && n == 0
	}, 10*time.Second, 10*time.Millisecond, "a helper is left")
}

// On each of these mounts a release would be of no use.
func TestUnsoundMount(t *testing.T) {
	for name, helper := range here(t) {
		t.Run("read-only "+name, func(t *testing.T) {
			dir := t.TempDir()
			needs.Mount(t, "tmpfs", dir, "tmpfs", syscall.MS_RDONLY, "")
			r, err := NewProber(helper...).Mount(t.Context(), rootOf(t, dir))
			require.NoError(t, err)
			want := allAnswered(Unknown, Untried)
			want.Volume, want.Took = Volume{"tmpfs", true, r.Inodes}, r.Took
			require.Equal(t, want, r)
			require.False(t, r.Sound())
			require.False(t, r.Locks.Useless(), "nobody has tried")
			require.Contains(t, r.String(), "tmpfs, read-only")
		})
		t.Run("noexec "+name, func(t *testing.T) {
			dir := t.TempDir()
			needs.Mount(t, "tmpfs", dir, "tmpfs", syscall.MS_NOEXEC, "nr_inodes=1000")
			r, err := NewProber(helper...).Mount(t.Context(), rootOf(t, dir))
			require.NoError(t, err)
			require.Equal(t, []Answer{Works, Works, Works, Fails}, []Answer{r.Link, r.Symlink, r.Modes, r.Execute})
			require.False(t, r.Sound())
			require.EqualValues(t, 1000, r.Inodes.Total)
			require.Contains(t, r.String(), "of 1000 inodes free")
		})
	}
	for name, lies := range map[string]lyingfs.Lies{
		"no modes":          {Modeless: true},
		"no symbolic links": {Refused: map[lyingfs.Request]syscall.Errno{lyingfs.Symlink: syscall.EPERM}},
		"no links":          {Refused: map[lyingfs.Request]syscall.Errno{lyingfs.Link: syscall.EPERM}},
	} {
		t.Run(name, func(t *testing.T) {
			dir, _, m := lyingMount(t)
			prober := startProber(t, dir)
			m.Tell(lies)
			r := prober.probe().Result
			require.False(t, r.Sound(), r)
			answers := map[string]Answer{"no modes": r.Modes, "no symbolic links": r.Symlink, "no links": r.Link}
			require.Equal(t, Fails, answers[name])
			require.Equal(t, "fuse", r.FileSystem)
		})
	}
}

// A server may refuse to write where the mount says nothing of it.
func TestReadOnlyServer(t *testing.T) {
	dir, _, m := lyingMount(t)
	prober := startProber(t, dir)
	m.Tell(lyingfs.Lies{Refused: map[lyingfs.Request]syscall.Errno{lyingfs.Mkdir: syscall.EROFS}})
	r := prober.probe().Result
	require.True(t, r.ReadOnly)
	require.Equal(t, "fuse", r.FileSystem)
	require.Equal(t, Untried, r.Locks)
	require.Equal(t, Unknown, r.Link)
	require.Empty(t, r.Notes)
}

func TestCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := NewProber().Mount(ctx, rootOf(t, t.TempDir()))
	require.ErrorIs(t, err, context.Canceled)
}

func TestRecord(t *testing.T) {
	var r Result
	record := func(answer *Answer, err error) {
		i := slices.IndexFunc(r.questions(), func(q question) bool { return q.answer == answer })
		r.record(r.questions()[i], err)
	}
	record(nil, errWorthless)
	record(&r.Rename, errors.New("a\nb"))
	record(&r.SyncDir, unprepared(errors.New("c")))
	record(&r.Modes, nil)
	require.Equal(t, Result{Locks: Worthless, Rename: Fails, SyncDir: Unknown, Modes: Works, Notes: []string{
		"flock: two descriptors have one lock", "replacing a file: a; b", "syncing a directory: cannot prepare: c"}}, r)
	record(nil, errors.New("no locks available"))
	require.Equal(t, Absent, r.Locks)
	record(nil, nil)
	require.Equal(t, Exclusive, r.Locks)
}

// What an older version wrote down can be read, and says nothing of what it did
// not ask; an older version can read what is written now.
func TestResultOfOtherVersions(t *testing.T) {
	var r Result
	require.NoError(t, json.Unmarshal([]byte(`{"locks":"exclusive","link":"works","rename":"works","sync_dir":"works","tmpfile":"works","reflink":"fails","took_ns":5}`), &r))
	require.Equal(t, Result{Locks: Shared, Link: Works, Rename: Works, SyncDir: Works, Took: 5}, r)
	require.False(t, r.Sound())
	data, err := json.Marshal(Result{Volume: Volume{"nfs", true, Inodes{1, 2}}, Modes: Works})
	require.NoError(t, err)
	require.JSONEq(t, `{"locks":"","link":"","rename":"","sync_dir":"","modes":"works","execute":"","symlink":"",
		"file_system":"nfs","read_only":true,"inodes":{"free":1,"total":2},"took_ns":0}`, string(data))
}

func TestFileSystemNames(t *testing.T) {
	root := rootOf(t, "/proc")
	v, _, err := volumeOf(root, ".")
	require.NoError(t, err)
	require.Equal(t, "0x9fa0", v.FileSystem)
	require.Equal(t, "0x9fa0", Volume{FileSystem: "0x9fa0"}.String())
	require.Equal(t, "unknown file system, read-only, 1 of 2 inodes free", Volume{ReadOnly: true, Inodes: Inodes{1, 2}}.String())
}

package faults

import (
	"fmt"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator"
	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/needs"
)

// TestFullVolume lets a volume fill up at every tenth of an installation, and of a
// repair, by making it no larger than what is on it, and enlarges it again.
func TestFullVolume(t *testing.T) {
	t.Parallel()
	needs.Root(t)
	const noise = 16 << 20
	for _, repair := range []bool{false, true} {
		for tenth := range 10 {
			t.Run(fmt.Sprintf("repair %v, at %d0%%", repair, tenth), func(t *testing.T) {
				f := newFilling(t, noise, repair)
				u := start(t, f.root, "concourse-ci/0", f.source.URL)
				u.must("open", "")
				reached, resume := f.source.pause(t, max(1, f.source.size(newer)*int64(tenth)/10))
				if tenth == 0 {
					shrink(t, f.root)
				}
				u.tell("ensure", newer)
				if tenth > 0 {
					select {
					case <-reached:
					case <-time.After(patience):
						t.Fatalf("the download does not get that far:\n%s", u.log)
					}
					shrink(t, f.root)
				}
				resume()
				f.isFull(u.hear())
				f.enlarge(u)
			})
		}
	}
}

// TestFullVolumeAtTheManifest lets a volume fill up when all of the archive is there
// and unpacked. It is not downloaded again.
func TestFullVolumeAtTheManifest(t *testing.T) {
	needs.Root(t)
	for _, repair := range []bool{false, true} {
		t.Run(fmt.Sprint("repair ", repair), func(t *testing.T) {
			f := newFilling(t, 1<<20, repair)
			u, s := startStepped(t, f.root, "concourse-ci/0", f.source.URL)
			u.must("open", "")
			s.when(func(at step) bool { return at.name == "manifest.json" }, func() { shrink(t, f.root) })
			f.isFull(u.ask("ensure", newer))
			all := f.source.size(newer)
			require.GreaterOrEqual(t, f.source.sent.Load(), all)
			f.enlarge(u)
			require.Zero(t, f.source.sent.Load())
		})
	}
}

// filling is a volume that fills up.
type filling struct {
	t        *testing.T
	root     string
	noise    int
	source   *source
	entries  []string  // that the store has before
	observer *observer // of the release that is there, or nil
}

func newFilling(t *testing.T, noise int, repair bool) *filling {
	f := &filling{t: t, root: t.TempDir(), noise: noise, source: newSource(t, noise)}
	needs.Mount(t, "tmpfs", f.root, "tmpfs", 0, "size=64m")
	mark(t, f.root)
	if repair {
		u := start(t, f.root, "concourse-ci/1", f.source.URL)
		u.must("ensure", newer)
		u.must("activate", newer)
		u.stop()
		damage(t, f.root)
		f.entries = names(t, f.root, "store")
		f.source.sent.Store(0)
		f.observer = startObserver(t, filepath.Join(f.root, "releases", newer, "bin/concourse"), time.Millisecond)
	}
	return f
}

// isFull demands that an installation came to nothing for want of space, and that what
// was there is there.
func (f *filling) isFull(a answer) {
	t := f.t
	t.Helper()
	require.True(t, a.is(coordinator.ErrNoSpace), "no ErrNoSpace: %s", a.Err)
	sentence(t, a)
	onlyArchive(t, f.root)
	require.NoFileExists(t, filepath.Join(f.root, ".download_in_progress"))
	require.ElementsMatch(t, f.entries, names(t, f.root, "store"))
	if f.observer == nil {
		require.Empty(t, names(t, f.root, "releases"))
		require.NoFileExists(t, filepath.Join(f.root, ".installed_version"))
		return
	}
	require.Equal(t, f.entries[0], linked(t, f.root))
	active(t, f.root, newer)
	f.observer.saw(0)
}

// enlarge makes room, and demands that then all goes well.
func (f *filling) enlarge(u *unit) {
	t := f.t
	t.Helper()
	kept := int64(0)
	for _, stage := range names(t, f.root, "staging") {
		var info unix.Stat_t
		require.NoError(t, unix.Stat(filepath.Join(f.root, "staging", stage, "archive.partial"), &info))
		kept += info.Blocks * 512
	}
	resize(t, f.root, "64m")
	f.source.sent.Store(0)
	u.must("ensure", newer)
	size, sent := f.source.size(newer), f.source.sent.Load()
	t.Logf("of an archive of %d bytes %d were kept, and %d sent after that", size, kept, sent)
	const connections = 4 // each was in the middle of a chunk
	require.LessOrEqual(t, sent, size-kept+connections*chunk, "downloaded again what was kept")
	u.must("activate", newer)
	complete(t, f.root, newer, f.noise)
	active(t, f.root, newer)
	u.must("collect", "")
	require.Empty(t, unprobed(t, f.root, "staging"))
	require.Len(t, names(t, f.root, "store"), 1)
	if f.observer != nil {
		f.observer.saw(1)
	}
}

// TestSmallVolume has an installation on volumes of every tenth of the size it
// needs, on which other things have not filled up anything.
func TestSmallVolume(t *testing.T) {
	needs.Root(t)
	const noise = 8 << 20
	src := newSource(t, noise)
	for tenth := 1; tenth < 10; tenth++ {
		t.Run(fmt.Sprintf("of %d0%%", tenth), func(t *testing.T) {
			root := t.TempDir()
			needs.Mount(t, "tmpfs", root, "tmpfs", 0, fmt.Sprintf("size=%d", noise*tenth/10))
			mark(t, root)
			u := start(t, root, "concourse-ci/0", src.URL)
			a := u.ask("ensure", newer)
			require.True(t, a.is(coordinator.ErrNoSpace), "no ErrNoSpace: %s", a.Err)
			sentence(t, a)
			require.Empty(t, names(t, root, "releases"))
			require.Empty(t, names(t, root, "store"))
			onlyArchive(t, root)
			resize(t, root, "64m")
			u.must("ensure", newer)
			u.must("activate", newer)
			complete(t, root, newer, noise)
			active(t, root, newer)
		})
	}
}

// onlyArchive demands that of what is staged only the archive is left: somebody will
// make room, and then it need not be fetched again.
func onlyArchive(t *testing.T, root string) {
	t.Helper()
	for _, stage := range names(t, root, "staging") {
		for _, name := range names(t, root, "staging", stage) {
			require.Contains(t, []string{"archive.partial", "archive.journal", "archive.journal.new"}, name)
		}
	}
}

func used(t *testing.T, root string) uint64 {
	t.Helper()
	var s unix.Statfs_t
	require.NoError(t, unix.Statfs(root, &s))
	return (s.Blocks - s.Bfree) * uint64(s.Bsize)
}

// shrink leaves a tmpfs no free space.
func shrink(t *testing.T, root string) {
	t.Helper()
	// The unit may write between the look and the change.
	require.Eventually(t, func() bool {
		size := fmt.Sprintf("size=%d", used(t, root))
		return syscall.Mount("", root, "", syscall.MS_REMOUNT, size) == nil
	}, 5*time.Second, time.Millisecond)
}

func resize(t *testing.T, root, size string) {
	t.Helper()
	require.NoError(t, syscall.Mount("", root, "", syscall.MS_REMOUNT, "size="+size))
}

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

// TestFullVolume lets a volume fill up at every tenth of an installation, by
// making it no larger than what is on it, and enlarges it again.
func TestFullVolume(t *testing.T) {
	needs.Root(t)
	const noise = 16 << 20
	src := newSource(t, noise)
	for tenth := range 10 {
		t.Run(fmt.Sprintf("at %d0%%", tenth), func(t *testing.T) {
			root := t.TempDir()
			needs.Mount(t, "tmpfs", root, "tmpfs", 0, "size=64m")
			mark(t, root)
			u := start(t, root, "concourse-ci/0", src.URL)
			u.must("open", "")
			reached, resume := src.pause(t, max(1, src.size(newer)*int64(tenth)/10))
			if tenth == 0 {
				shrink(t, root)
			}
			u.tell("ensure", newer)
			if tenth > 0 {
				select {
				case <-reached:
				case <-time.After(patience):
					t.Fatalf("the download does not get that far:\n%s", u.log)
				}
				shrink(t, root)
			}
			resume()
			a := u.hear()
			require.True(t, a.is(coordinator.ErrNoSpace), "no ErrNoSpace: %s", a.Err)
			sentence(t, a)
			require.Empty(t, names(t, root, "releases"))
			onlyArchive(t, root)
			require.NoFileExists(t, filepath.Join(root, ".download_in_progress"))
			require.NoFileExists(t, filepath.Join(root, ".installed_version"))

			resize(t, root, "64m")
			u.must("ensure", newer)
			u.must("activate", newer)
			complete(t, root, newer, noise)
			active(t, root, newer)
			require.Empty(t, names(t, root, "staging"))
		})
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
	require.Empty(t, names(t, root, "store"))
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

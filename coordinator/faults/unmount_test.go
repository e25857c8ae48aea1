package faults

import (
	"fmt"
	"io/fs"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator"
	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/needs"
)

// TestUnmountDuringDownload takes the volume away in the middle of a download.
// Nothing may land in the directory underneath, or it would fill the disk of
// the unit.
func TestUnmountDuringDownload(t *testing.T) {
	needs.Root(t)
	const noise = 8 << 20
	src := newSource(t, noise)
	for _, tenth := range []int64{1, 5, 9} {
		t.Run(fmt.Sprintf("at %d0%%", tenth), func(t *testing.T) {
			root := t.TempDir()
			needs.Mount(t, "tmpfs", root, "tmpfs", 0, "size=64m")
			mark(t, root)
			u := start(t, root, "concourse-ci/0", src.URL)
			u.must("open", "")
			reached, resume := src.pause(t, src.size(newer)*tenth/10)
			u.tell("ensure", newer)
			select {
			case <-reached:
			case <-time.After(patience):
				t.Fatalf("the download does not get that far:\n%s", u.log)
			}
			require.NoError(t, syscall.Unmount(root, syscall.MNT_DETACH))
			resume()
			a := u.hear()
			require.True(t, a.is(coordinator.ErrNotMounted), "no ErrNotMounted: %s", a.Err)
			sentence(t, a)
			require.Empty(t, underneath(t, root))
			a = u.ask("activate", newer)
			require.True(t, a.is(coordinator.ErrNotMounted), "no ErrNotMounted: %s", a.Err)
			require.Empty(t, underneath(t, root))

			needs.Mount(t, "tmpfs", root, "tmpfs", 0, "size=64m")
			mark(t, root)
			// The same unit must not take another volume for its own.
			a = u.ask("ensure", newer)
			require.NotEmpty(t, a.Err)
			require.Equal(t, []string{".shared"}, underneath(t, root))
		})
	}
}

// TestUnmountAtEachStep takes the volume away before each step of an installation and
// activation, and of a repair.
func TestUnmountAtEachStep(t *testing.T) {
	needs.Root(t)
	const noise = 64 << 10
	src := newSource(t, noise)
	broken := filepath.Join(t.TempDir(), "broken")
	run := func(t *testing.T, repair bool, at int) (steps int) {
		root := t.TempDir()
		needs.Mount(t, "tmpfs", root, "tmpfs", 0, "size=64m")
		mark(t, root)
		if repair {
			copyTree(t, broken+"/.", root)
		}
		u, s := startStepped(t, root, "concourse-ci/0", src.URL)
		var err error
		s.before(at, func() { err = syscall.Unmount(root, syscall.MNT_DETACH) })
		for _, do := range []string{"open", "ensure", "activate"} {
			a := u.ask(do, newer)
			require.True(t, a.Err == "" || a.is(coordinator.ErrNotMounted), "no ErrNotMounted: %s", a.Err)
		}
		require.NoError(t, err)
		if steps = s.count(); at > 0 && steps >= at {
			require.Empty(t, underneath(t, root))
		}
		u.stop()
		return steps
	}
	all := func(what string, repair bool) {
		total := run(t, repair, 0)
		require.Greater(t, total, 50)
		for at := 1; at <= total; at++ {
			t.Run(fmt.Sprintf("%s, before step %d of %d", what, at, total), func(t *testing.T) { run(t, repair, at) })
		}
	}
	all("installation", false)

	root := t.TempDir()
	needs.Mount(t, "tmpfs", root, "tmpfs", 0, "size=64m")
	mark(t, root)
	u := start(t, root, "concourse-ci/1", src.URL)
	u.must("ensure", newer)
	u.must("activate", newer)
	damage(t, root)
	copyTree(t, root, broken)
	all("repair", true)
}

// copyTree copies a directory as it is.
func copyTree(t *testing.T, from, to string) {
	t.Helper()
	out, err := exec.Command("cp", "-a", from, to).CombinedOutput()
	require.NoError(t, err, string(out))
}

// underneath lists everything below dir.
func underneath(t *testing.T, dir string) []string {
	t.Helper()
	found := []string{}
	require.NoError(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && path != dir {
			found = append(found, path[len(dir)+1:])
		}
		return err
	}))
	return found
}

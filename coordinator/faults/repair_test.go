package faults

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator"
	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/lyingfs"
	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/needs"
)

// repairNoise is what of a release does not compress, in these tests.
const repairNoise = 16 << 10

// TestReleaseIsNeverMissing repairs a release by units that are killed before their
// steps, each time finished by another unit, while an observer opens a file of the
// release by its path without a pause. Not one open may fail.
func TestReleaseIsNeverMissing(t *testing.T) {
	for _, c := range []struct {
		name  string
		mount func(t *testing.T) (root, backing string)
		do    string
		// Killed are the first steps, 0 for all, and all from where publication begins.
		first       int
		publication func(step) bool
		opens       int64 // a repair, at least
		slow        bool  // the mount: nothing is collected but at the end
	}{
		{"FUSE", mountTruth, "ensure", 2, stores, 1_000, true},
		{"tmpfs", mountTmpfs, "ensure", 0, stores, 10_000, false},
		{"tmpfs, reinstall", mountTmpfs, "reinstall", 6, describes, 10_000, false},
		{"ext4", mountImage("ext4"), "ensure", 6, describes, 10_000, false},
		{"btrfs", mountImage("btrfs"), "ensure", 6, describes, 10_000, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			needs.Root(t)
			t.Parallel()
			root, backing := c.mount(t)
			mark(t, backing)
			src := newSource(t, repairNoise)
			r := &repair{t: t, root: root, backing: backing, source: src.URL, do: c.do, opens: c.opens, slow: c.slow}
			r.healer = start(t, root, "concourse-ci/0", src.URL)
			r.healer.must("ensure", newer)
			r.healer.must("activate", newer)
			r.observer = startObserver(t, filepath.Join(root, "releases", newer, "bin/concourse"), 0)
			for n := 1; (c.first == 0 || n <= c.first) && r.killed(func(at step) bool { return at.n == n }); n++ {
			}
			for k := 0; r.killed(after(c.publication, k)); k++ {
			}
			r.healer.must("collect", "")
			require.Len(t, unprobed(t, backing, "store"), 1)
			require.Empty(t, unprobed(t, backing, "staging"))
			seen := r.observer.saw(0)
			t.Logf("killed before %d steps, %d times when the new one was linked; opened %d times, %.0f a second, at least %d times a repair",
				r.kills, r.linked, seen.Opens, float64(seen.Opens)/seen.Took.Seconds(), c.opens)
			require.Positive(t, r.linked)
			require.Less(t, r.linked, r.kills)
		})
	}
}

// repair is a release that is damaged, and repaired, again and again.
type repair struct {
	t             *testing.T
	root, backing string // the volume as units see it, and as the server has it
	source, do    string
	opens         int64
	slow          bool
	healer        *unit
	observer      *observer
	kills, linked int
}

// killed damages the release, has a unit repair it that is killed before the step
// that hits tells, and another one after that. It tells whether there was such a step.
func (r *repair) killed(hits func(step) bool) bool {
	r.t.Helper()
	spoil := damage
	if r.do == "reinstall" {
		spoil = corrupt
	}
	spoil(r.t, r.backing)
	link := filepath.Join(r.backing, "releases", newer)
	before, err := os.Readlink(link)
	require.NoError(r.t, err)

	victim, s := startStepped(r.t, r.root, "concourse-ci/1", r.source)
	victim.must("open", "")
	var at step
	s.when(func(now step) bool { at = now; return hits(now) }, func() { victim.cmd.Process.Kill() })
	_, alive := victim.survives(r.do, newer)
	victim.stop()
	struck := !alive
	if struck {
		r.kills++
		now, err := os.Readlink(link)
		require.NoError(r.t, err)
		if now != before {
			r.linked++
		}
	}
	when := fmt.Sprintf("killed before step %d, call %d %s", at.n, at.call, at.name)

	if a := r.healer.ask("verify", newer); a.Err != "" {
		require.False(r.t, struck && a.is(coordinator.ErrNotInstalled), when)
		r.healer.must(r.do, newer)
	}
	r.healer.must("activate", newer)
	complete(r.t, r.backing, newer, repairNoise)
	active(r.t, r.backing, newer)
	if !r.slow {
		r.healer.must("collect", "")
		require.Len(r.t, unprobed(r.t, r.backing, "store"), 1, when)
		require.Empty(r.t, unprobed(r.t, r.backing, "staging"), when)
	}
	r.observer.saw(r.opens)
	return struck
}

// describes tells the step that makes the manifest.
func describes(at step) bool { return at.name == "manifest.json" }

// stores tells the step that moves a release into the store.
func stores(at step) bool {
	generation, ok := strings.CutPrefix(at.name, newer+".")
	return ok && !strings.Contains(generation, ".") && (at.call == unix.SYS_RENAMEAT || at.call == unix.SYS_RENAMEAT2)
}

// damage makes a release lack a file, as a quick check sees.
func damage(t *testing.T, root string) {
	t.Helper()
	dir, err := filepath.EvalSymlinks(filepath.Join(root, "releases", newer))
	require.NoError(t, err)
	require.NoError(t, os.Remove(filepath.Join(dir, "bin/runc")))
}

// corrupt changes a byte of a file, as only Verify sees.
func corrupt(t *testing.T, root string) {
	t.Helper()
	name := filepath.Join(root, "releases", newer, "bin/runc")
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	require.NoError(t, err)
	defer f.Close()
	_, err = f.WriteAt([]byte("damage"), 1000)
	require.NoError(t, err)
}

func mountTmpfs(t *testing.T) (root, backing string) {
	root = t.TempDir()
	needs.Mount(t, "tmpfs", root, "tmpfs", 0, "size=256m")
	return root, root
}

// mountImage mounts a disk of the kind, which is in memory.
func mountImage(kind string) func(t *testing.T) (root, backing string) {
	return func(t *testing.T) (root, backing string) {
		memory, _ := mountTmpfs(t)
		image := filepath.Join(memory, "image")
		makeImage(t, image, kind)
		v := &powered{t: t, dir: t.TempDir(), kind: kind}
		v.mount(image)
		return v.dir, v.dir
	}
}

// mountTruth mounts a file system in user space that tells no lies.
func mountTruth(t *testing.T) (root, backing string) {
	root, backing = t.TempDir(), t.TempDir()
	serve(t, backing, root)
	return root, backing
}

// serve mounts a directory in user space.
func serve(t *testing.T, backing, root string) *lyingfs.Machine {
	t.Helper()
	m, err := lyingfs.Serve(backing).Mount(root, false)
	if err != nil {
		needs.Lack(t, "fuse", "cannot mount with FUSE here: %v", err)
	}
	t.Cleanup(func() {
		if err := m.Unmount(root); err != nil {
			t.Error("cannot unmount:", err)
		}
	})
	return m
}

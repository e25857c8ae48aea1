package faults

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/needs"
)

// A cut ends the power of the file system on an image, which is mounted, and
// makes another image of what is on the disk then.
type cut func(image, mounted, after string) error

// shutdownCut is a cut by the file system itself. Flags are 2 to lose its
// journal too, 1 to have it written.
func shutdownCut(flags uint32) cut {
	return func(image, mounted, after string) error {
		return errors.Join(shutdown(mounted, flags), copyImage(image, after))
	}
}

// copyCut is for file systems that cannot be shut down.
func copyCut(image, _, after string) error { return copyImage(image, after) }

func copyImage(from, to string) error {
	out, err := exec.Command("cp", "--sparse=always", from, to).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

// before is what is on a volume before its power is cut.
type before int

const (
	nothing before = iota
	anOlder        // release, that is active
	damaged        // the release itself, active, but it lacks a file
)

// linked returns the entry of the store that the newer release is.
func linked(t *testing.T, root string) string {
	t.Helper()
	text, err := os.Readlink(filepath.Join(root, "releases", newer))
	require.NoError(t, err)
	require.Equal(t, "../store", filepath.Dir(text))
	return filepath.Base(text)
}

// reported is what a unit said before its power was cut.
type reported struct {
	ensured, activated bool
}

// TestPowerCut cuts the power before each of many steps of an installation and
// activation, and after the last. What was reported must be there, and whatever
// is there must be the old release or the new one.
func TestPowerCut(t *testing.T) {
	needs.Root(t)
	const noise = 256 << 10
	for _, c := range []struct {
		name, kind string
		cut        cut
		before     before
		exhaustive bool // each step of the end, not samples of all
	}{
		{"ext4, first release", "ext4", shutdownCut(2), nothing, true},
		{"ext4, upgrade", "ext4", shutdownCut(2), anOlder, true},
		{"ext4, upgrade, journal written", "ext4", shutdownCut(1), anOlder, false},
		{"btrfs, first release", "btrfs", copyCut, nothing, false},
		{"btrfs, upgrade", "btrfs", copyCut, anOlder, false},
		{"ext4, repair", "ext4", shutdownCut(2), damaged, true},
		{"ext4, repair, journal written", "ext4", shutdownCut(1), damaged, false},
		{"btrfs, repair", "btrfs", copyCut, damaged, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			src := newSource(t, noise)
			dir := t.TempDir()
			needs.Mount(t, "tmpfs", dir, "tmpfs", 0, "size=512m") // of this machine's disk nothing is asked
			fresh := filepath.Join(dir, "fresh")
			makeImage(t, fresh, c.kind)
			v := &powered{t: t, dir: filepath.Join(dir, "mnt"), kind: c.kind}
			require.NoError(t, os.Mkdir(v.dir, 0o755))
			v.mount(fresh)
			mark(t, v.dir)
			if c.before != nothing {
				version := map[before]string{anOlder: older, damaged: newer}[c.before]
				u := start(t, v.dir, "concourse-ci/0", src.URL)
				u.must("ensure", version)
				u.must("activate", version)
				u.stop()
			}
			old := ""
			if c.before == damaged {
				damage(t, v.dir)
				old = linked(t, v.dir)
			}
			v.unmount()

			// run cuts the power before a step, or, if there are not as many, at
			// the end; it returns the image as it comes back.
			run := func(at int) (after string, said reported, steps int) {
				image := filepath.Join(dir, fmt.Sprint("before-", at))
				after = filepath.Join(dir, fmt.Sprint("after-", at))
				require.NoError(t, copyImage(fresh, image))
				defer os.Remove(image)
				v.mount(image)
				defer v.unmount()
				u, s := startStepped(t, v.dir, "concourse-ci/1", src.URL)
				defer u.stop()
				var cutErr error
				s.before(at, func() {
					cutErr = c.cut(image, v.dir, after)
					u.cmd.Process.Kill()
				})
				a, alive := u.survives("ensure", newer)
				if said.ensured = alive && a.Err == ""; said.ensured {
					a, alive = u.survives("activate", newer)
					said.activated = alive && a.Err == ""
				}
				if steps = s.count(); steps < at {
					cutErr = c.cut(image, v.dir, after)
				}
				require.NoError(t, cutErr)
				return after, said, steps
			}
			_, _, total := run(0) // a rehearsal, without a cut
			require.Greater(t, total, 20)

			cuts := points(1, total, 20)
			if c.exhaustive {
				// Publication and activation take the last third.
				cuts = append(points(1, total*2/3, 8), points(total*2/3+1, total+1, total)...)
			}
			for _, at := range cuts {
				after, said, _ := run(at)
				v.mount(after)
				v.check(fmt.Sprintf("power cut before step %d of %d, after %+v", at, total, said), said, c.before, old, noise)
				u := start(t, v.dir, "concourse-ci/1", src.URL)
				u.must("ensure", newer)
				u.must("activate", newer)
				complete(t, v.dir, newer, noise)
				active(t, v.dir, newer)
				u.must("collect", "")
				require.Empty(t, unprobed(t, v.dir, "staging"), "cut before step %d", at)
				u.stop()
				v.unmount()
				require.NoError(t, os.Remove(after))
			}
			t.Logf("%d steps", total)
		})
	}
}

// makeImage makes a file system in a file.
func makeImage(t *testing.T, name, kind string) {
	t.Helper()
	size := map[string]int64{"ext4": 24 << 20, "btrfs": 128 << 20}[kind]
	require.NoError(t, os.WriteFile(name, nil, 0o600))
	require.NoError(t, os.Truncate(name, size))
	if _, err := exec.LookPath("mkfs." + kind); err != nil {
		needs.Lack(t, "root", "mkfs.%s is not installed", kind)
	}
	out, err := exec.Command("mkfs."+kind, "-q", name).CombinedOutput()
	require.NoError(t, err, string(out))
}

// powered is a volume on an image.
type powered struct {
	t         *testing.T
	dir, kind string
	mounted   bool
}

func (v *powered) mount(image string) {
	v.t.Helper()
	out, err := exec.Command("mount", "-t", v.kind, "-o", "loop", image, v.dir).CombinedOutput()
	if err != nil {
		needs.Lack(v.t, "root", "cannot mount a %s image here: %v: %s", v.kind, err, out)
	}
	if !v.mounted {
		v.t.Cleanup(func() { exec.Command("umount", "-l", v.dir).Run() })
		v.mounted = true
	}
}

func (v *powered) unmount() {
	v.t.Helper()
	out, err := exec.Command("umount", v.dir).CombinedOutput()
	require.NoError(v.t, err, string(out))
}

// check looks at a volume whose power came back.
func (v *powered) check(when string, said reported, was before, old string, noise int) {
	t := v.t
	t.Helper()
	allowed := []string{newer}
	if !said.activated {
		allowed = append(allowed, "")
		switch was {
		case anOlder:
			allowed = []string{older, newer}
		case damaged:
			allowed = []string{newer}
		}
	}
	version := last(t, v.dir)
	require.Contains(t, allowed, version, "current: %s", when)
	// What is visible is whole, current or not, and what was damaged is as whole as it
	// was until another one takes its place.
	visible := unprobed(t, v.dir, "releases")
	for _, name := range visible {
		if was == damaged && linked(t, v.dir) == old {
			require.False(t, said.ensured, when)
			require.ElementsMatch(t, []string{"bin/concourse", "resource-types/mock/resource_metadata.json", "fly-assets/fly-linux-amd64.tgz", "manifest.json"},
				files(t, filepath.Join(v.dir, "store", old)), when)
			continue
		}
		complete(t, v.dir, name, noise)
	}
	if version != "" {
		require.Contains(t, visible, version, when)
	}
	if said.ensured {
		require.Contains(t, visible, newer, when)
	}
	if was == anOlder {
		complete(t, v.dir, older, noise)
	}
	line, err := os.ReadFile(filepath.Join(v.dir, ".installed_version"))
	if err == nil {
		require.NotEmpty(t, string(line), when)
	}
	require.Contains(t, allowed, string(trim(line)), ".installed_version: %s", when)
	target, err := os.Readlink(filepath.Join(v.dir, "bin"))
	if err != nil {
		target = ""
	}
	links := map[string]string{"": "", "releases/" + older + "/bin": older, "releases/" + newer + "/bin": newer}
	require.Contains(t, links, target, when)
	require.Contains(t, allowed, links[target], "bin: %s", when)
	if target != "" {
		require.FileExists(t, filepath.Join(v.dir, target, "concourse"), when)
	}
}

func trim(line []byte) []byte {
	if n := len(line); n > 0 && line[n-1] == '\n' {
		return line[:n-1]
	}
	return line
}

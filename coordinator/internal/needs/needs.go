// Package needs is for tests that cannot run everywhere. They skip, and say what
// they lack, unless COORDINATOR_REQUIRE lists that, separated by commas: then
// they fail. Continuous integration requires "root,fuse".
package needs

import (
	"os"
	"syscall"
	"testing"

	"github.com/concourse-ci-machine/concourse-ci-machine/internal/needs"
)

// Lack ends a test for want of something, "root" or "fuse".
func Lack(t testing.TB, what, format string, args ...any) {
	t.Helper()
	needs.Lack(t, "COORDINATOR_REQUIRE", what, format, args...)
}

// Root is for tests that mount what only root can.
func Root(t testing.TB) {
	t.Helper()
	if os.Getuid() != 0 {
		Lack(t, "root", "needs root, to mount volumes of its own")
	}
}

// Mount mounts a file system for the duration of a test.
func Mount(t testing.TB, device, dir, kind string, flags uintptr, options string) {
	t.Helper()
	Root(t)
	if err := syscall.Mount(device, dir, kind, flags, options); err != nil {
		Lack(t, "root", "cannot mount a %s here: %v", kind, err)
	}
	t.Cleanup(func() { syscall.Unmount(dir, syscall.MNT_DETACH) })
}

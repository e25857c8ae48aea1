package tree

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// opener opens a directory by its name in another one, whose descriptor it gets.
// If something else is mounted there, the error is EXDEV.
type opener func(dir int, name string) (int, error)

// openBelow lets the kernel refuse mounts (RESOLVE_NO_XDEV, Linux 5.6), so that
// what is mounted is not asked for anything.
func openBelow(dir int, name string) (int, error) {
	how := unix.OpenHow{Flags: unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_XDEV}
	for {
		fd, err := unix.Openat2(dir, name, &how)
		switch err {
		case unix.EINTR:
		case unix.ENOSYS, unix.EPERM: // older kernels, and filters of system calls
			return openByMountID(dir, name)
		default:
			return fd, err
		}
	}
}

// openByMountID compares mounts by the numbers that any kernel tells. Those of
// devices do not do: a bind mount may have its parent's, and what has another one
// may be a subvolume of btrfs.
func openByMountID(dir int, name string) (int, error) {
	fd, err := unix.Openat(dir, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	defer unix.Close(fd)
	here, hereErr := mountID(dir)
	there, thereErr := mountID(fd)
	if err := errors.Join(hereErr, thereErr); err != nil {
		return -1, err
	}
	if here != there {
		return -1, unix.EXDEV
	}
	// The same one, whatever has the name by now.
	return unix.Openat(fd, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
}

// mountID returns the number of the mount that a descriptor is on.
func mountID(fd int) (int, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", fd))
	if err != nil {
		return 0, fmt.Errorf("cannot tell mounts apart: %w", err)
	}
	for line := range strings.Lines(string(data)) {
		if id, ok := strings.CutPrefix(line, "mnt_id:"); ok {
			return strconv.Atoi(strings.TrimSpace(id))
		}
	}
	return 0, errors.New("cannot tell mounts apart: the kernel does not tell them")
}

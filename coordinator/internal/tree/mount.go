package tree

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// Unmount unmounts what is mounted on dir and below it and is ours. It begins with
// the latest mounts, and leaves what is in use. It returns all that is mounted
// there in the end, ours or not. A dir that does not exist is no error.
func Unmount(ctx context.Context, dir string, ours func(*mountinfo.Info) bool) (left []*mountinfo.Info, err error) {
	dir, err = resolve(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cannot look for mounts: %w", err)
	}
	// What was in use by another mount, or covered by it, has its turn next.
	for done := true; done; {
		if left, err = mountinfo.GetMounts(mountinfo.PrefixFilter(dir)); err != nil {
			return nil, fmt.Errorf("cannot list mounts: %w", err)
		}
		done = false
		for _, m := range slices.Backward(left) {
			if ctx.Err() != nil {
				return left, fmt.Errorf("cannot unmount %s: %w", m.Mountpoint, context.Cause(ctx))
			}
			if !ours(m) || !onTop(m) {
				continue
			}
			switch unmountErr := unix.Unmount(m.Mountpoint, unix.UMOUNT_NOFOLLOW); unmountErr {
			case nil:
				done = true
			case unix.EBUSY, unix.EINVAL, unix.ENOENT: // in use, or gone by itself
			default:
				err = fmt.Errorf("cannot unmount %s: %w", m.Mountpoint, unmountErr)
			}
		}
	}
	return left, err
}

// OverlayWithin is the rule for what the builds of a dead worker leave: overlays
// that write to directories below dir.
func OverlayWithin(dir string) func(*mountinfo.Info) bool {
	top, err := resolve(dir)
	within := func(name string) bool {
		real, evalErr := filepath.EvalSymlinks(name)
		if errors.Is(evalErr, fs.ErrNotExist) {
			real, evalErr = filepath.Clean(name), nil // removed since
		}
		return err == nil && evalErr == nil && strings.HasPrefix(real, top+"/")
	}
	return func(m *mountinfo.Info) bool {
		return m.FSType == "overlay" && within(option(m, "upperdir")) && within(option(m, "workdir"))
	}
}

// resolve returns the path by which the kernel calls dir. What may be mounted on
// dir is not asked for anything: its server may be dead.
func resolve(dir string) (string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	parent, err := filepath.EvalSymlinks(filepath.Dir(dir))
	return filepath.Join(parent, filepath.Base(dir)), err
}

var octal = regexp.MustCompile(`\\[0-7]{3}`)

// option returns the value of an option of a file system, "" if it has none.
func option(m *mountinfo.Info, name string) string {
	for o := range strings.SplitSeq(m.VFSOptions, ",") {
		if value, ok := strings.CutPrefix(o, name+"="); ok {
			return octal.ReplaceAllStringFunc(value, func(s string) string {
				c, _ := strconv.ParseUint(s[1:], 8, 8)
				return string([]byte{byte(c)})
			})
		}
	}
	return ""
}

// onTop tells whether the path of a mount leads to it, not to another one that
// covers it: unmounting goes by paths.
func onTop(m *mountinfo.Info) bool {
	fd, err := unix.Open(m.Mountpoint, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	id, err := mountID(fd)
	return err == nil && id == m.ID
}

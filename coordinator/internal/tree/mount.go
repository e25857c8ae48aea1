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

// Mount is something that is mounted.
type Mount struct {
	Point, Type, Source string
	// Options are those of the file system. One without a value has an empty one.
	Options map[string]string

	id int
}

// Unmount unmounts what is mounted on dir and below it and is ours. It begins with
// the latest mounts, and leaves what is in use. It returns all that is mounted
// there in the end, ours or not. A dir that does not exist is no error.
func Unmount(ctx context.Context, dir string, ours func(Mount) bool) (left []Mount, err error) {
	dir, err = resolve(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cannot look for mounts: %w", err)
	}
	for {
		mounts, err := below(dir)
		if err != nil {
			return nil, err
		}
		var failed error
		done := false
		for _, m := range slices.Backward(mounts) {
			if ctx.Err() != nil {
				return mounts, fmt.Errorf("cannot unmount %s: %w", m.Point, context.Cause(ctx))
			}
			if !ours(m) || !m.onTop() {
				continue
			}
			switch err := unix.Unmount(m.Point, unix.UMOUNT_NOFOLLOW); err {
			case nil:
				done = true
			case unix.EBUSY, unix.EINVAL, unix.ENOENT: // in use, or gone by itself
			default:
				failed = fmt.Errorf("cannot unmount %s: %w", m.Point, err)
			}
		}
		// What was in use by another mount, or covered by it, has its turn next.
		if !done {
			return mounts, failed
		}
	}
}

// OverlayWithin is the rule for what the builds of a dead worker leave: overlays
// that write to directories below dir.
func OverlayWithin(dir string) func(Mount) bool {
	top, err := resolve(dir)
	within := func(name string) bool {
		real, evalErr := filepath.EvalSymlinks(name)
		if errors.Is(evalErr, fs.ErrNotExist) {
			real, evalErr = filepath.Clean(name), nil // removed since
		}
		return err == nil && evalErr == nil && strings.HasPrefix(real, top+"/")
	}
	return func(m Mount) bool {
		return m.Type == "overlay" && within(m.Options["upperdir"]) && within(m.Options["workdir"])
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

// below lists what is mounted on dir and below it.
func below(dir string) ([]Mount, error) {
	infos, err := mountinfo.GetMounts(mountinfo.PrefixFilter(dir))
	if err != nil {
		return nil, fmt.Errorf("cannot list mounts: %w", err)
	}
	var mounts []Mount
	for _, info := range infos {
		m := Mount{Point: info.Mountpoint, Type: info.FSType, Source: info.Source, Options: map[string]string{}, id: info.ID}
		for option := range strings.SplitSeq(info.VFSOptions, ",") {
			key, value, _ := strings.Cut(option, "=")
			m.Options[key] = octal.ReplaceAllStringFunc(value, func(s string) string {
				c, _ := strconv.ParseUint(s[1:], 8, 8)
				return string([]byte{byte(c)})
			})
		}
		mounts = append(mounts, m)
	}
	return mounts, nil
}

// onTop tells whether the path of a mount leads to it, not to another one that
// covers it: unmounting goes by paths.
func (m Mount) onTop() bool {
	fd, err := unix.Open(m.Point, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	id, err := mountID(fd)
	return err == nil && id == m.id
}

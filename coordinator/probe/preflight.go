package probe

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"syscall"

	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/durable"
)

// ErrUnfit: the volume cannot carry a release, as it is mounted now. It is each of
// the following errors, too.
var ErrUnfit = errors.New("the volume cannot carry a release")

var (
	ErrReadOnly     error = &unfit{"it is read-only", "mount it read-write"}
	ErrNoExec       error = &unfit{"no file can be executed", "mount it without noexec, and so that files can be executable"}
	ErrNoModes      error = &unfit{"files do not keep their modes", "use a file system that keeps modes, or mount it with the options under which it does"}
	ErrNoLinks      error = &unfit{"it has no hard links", "use a file system that has hard links, also of symbolic links"}
	ErrNoSymlinks   error = &unfit{"it has no symbolic links", "use a file system that has symbolic links, or mount it with the options under which it does"}
	ErrCrossDevice  error = &unfit{"it is more than one mount", "mount one file system for all of it, and nothing below"}
	ErrNoInodes     error = &unfit{"it has too few free inodes", "remove files, or use a file system with more inodes"}
	ErrStale        error = &unfit{"its file handle is stale", "wait for the file server, or mount it anew"}
	ErrNoPermission error = &unfit{"this user cannot write there", "give this user permission to write, and see that nothing is immutable"}
)

// unfit is a kind of ErrUnfit, and what an operator can do about it.
type unfit struct{ what, remedy string }

func (u *unfit) Error() string        { return ErrUnfit.Error() + ": " + u.what }
func (u *unfit) Is(target error) bool { return target == ErrUnfit }

// Needs is what a release needs that not every one does.
type Needs struct {
	Inodes  uint64 // that have to be free; where the volume does not count them, it has enough
	Execute bool   // files of it are executed from the volume, by this user
}

// Preflight tells whether the volume at root can carry a release that is staged
// in dir and renamed into the others, all of them directories below root. It takes
// milliseconds, and is for who is about to download. It tries everything in a
// directory that it makes in dir, and removes all that it made. Where the mount
// hangs, it does, too.
//
// The error is ErrUnfit, or that of what was tried if it may pass: it is ENOSPC or
// EDQUOT where there is no space.
func Preflight(root *os.Root, needs Needs, dir string, others ...string) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("cannot use %s: %w", filepath.Join(root.Name(), dir), err)
		}
	}()
	v, _, err := volumeOf(root, dir)
	switch {
	case err != nil:
		return failed("looking at it", err, ErrNoPermission)
	case v.ReadOnly:
		return refusal(ErrReadOnly, "it is mounted so")
	case v.Inodes.short(needs.Inodes):
		return refusal(ErrNoInodes, "%d of %d are free, %d are needed", v.Inodes.Free, v.Inodes.Total, needs.Inodes)
	}
	name := Prefix + rand.Text()
	err = tryAll(root, needs.Execute, name, dir, others)
	if v, _, statErr := volumeOf(root, dir); errors.Is(err, syscall.ENOSPC) && statErr == nil && v.Inodes.short(1) {
		err = refusal(ErrNoInodes, "none of %d is free: %w", v.Inodes.Total, err)
	}
	// What was renamed and did not come back has the same name.
	for _, place := range append([]string{dir}, others...) {
		if removeErr := root.RemoveAll(path.Join(place, name)); err == nil && removeErr != nil {
			err = failed("removing what was made", removeErr, ErrNoPermission)
		}
	}
	return err
}

// tryAll does what installing does, in the directory name that it makes in dir.
func tryAll(root *os.Root, execution bool, name, dir string, others []string) error {
	home := path.Join(dir, name)
	if err := root.MkdirAll(path.Join(home, "full/x"), 0o755); err != nil {
		return failed("making a directory", err, ErrNoPermission)
	}
	private, err := root.OpenRoot(home)
	if err != nil {
		return failed("opening a new directory", err, ErrNoPermission)
	}
	defer private.Close()
	for _, q := range new(Result).questions() {
		if q.unfit == nil || q.unfit == ErrNoExec && !execution {
			continue
		}
		if err := q.ask(private); err != nil {
			return failed(q.name, err, q.unfit)
		}
	}
	for _, other := range others {
		for _, thing := range []string{"mode", "full"} { // a file, and a directory that is not empty
			here, there := path.Join(home, thing), path.Join(other, name)
			err := durable.Rename(root, here, there)
			if err == nil {
				err = durable.Rename(root, there, here)
			}
			if err != nil {
				return failed("renaming into "+other+" and back", err, ErrNoPermission)
			}
		}
	}
	return nil
}

// failed says what kind of failure the error of an attempt is. refused is the
// kind if the file system does not do it, or does not do it right.
func failed(what string, err, refused error) error {
	kind := refused
	var errno syscall.Errno
	if errors.As(err, &errno) {
		switch errno {
		case syscall.EROFS:
			kind = ErrReadOnly
		case syscall.ESTALE:
			kind = ErrStale
		case syscall.EXDEV:
			if refused == ErrNoPermission {
				kind = ErrCrossDevice
			}
		case syscall.EACCES, syscall.EPERM:
			if errors.Is(err, errNeeds) {
				kind = ErrNoPermission
			}
		case syscall.EOPNOTSUPP, syscall.ENOSYS, syscall.EINVAL, syscall.EMLINK:
			if refused == ErrNoPermission {
				kind = ErrUnfit
			}
		default:
			kind = nil // it may pass
		}
		err = errno // without names that are removed again
	}
	if kind == nil {
		return fmt.Errorf("%s failed: %w", what, err)
	}
	return refusal(kind, "%s failed: %w", what, err)
}

// refusal is one sentence: what is wrong, what came of the attempt, what to do.
func refusal(kind error, format string, args ...any) error {
	remedy := "use another file system"
	if u, ok := kind.(*unfit); ok {
		remedy = u.remedy
	}
	return fmt.Errorf("%w: "+format+"; "+remedy, append([]any{kind}, args...)...)
}

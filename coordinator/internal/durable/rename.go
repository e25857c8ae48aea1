package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
	"time"
)

// Settle is how long a client of a network file system may take to see what has
// happened on the server: names that it found missing stay missing for a second
// in its cache.
const Settle = 1500 * time.Millisecond

const settlePoll = 25 * time.Millisecond

// Rename is rename(2), believed only after a look. A network file system may
// repeat a request whose answer was lost, and then report its own success as a
// failure; the inode tells the truth. It syncs nothing.
func Rename(root *os.Root, from, to string) error {
	mine, err := root.Lstat(from)
	if err != nil {
		return err
	}
	before, beforeErr := root.Lstat(to)
	renameErr := root.Rename(from, to)
	if renameErr == nil || final(renameErr) {
		return renameErr
	}
	for start := time.Now(); ; time.Sleep(settlePoll) {
		there, err := root.Lstat(to)
		switch {
		case err == nil && os.SameFile(mine, there):
			return nil
		case err == nil && (beforeErr != nil || !os.SameFile(before, there)):
			return renameErr // another one was faster
		case beforeErr == nil && before.IsDir():
			return renameErr // a directory cannot be replaced, but by itself
		case time.Since(start) >= Settle:
			return renameErr
		}
	}
}

// Link is link(2), believed only after a look, as Rename. The error is fs.ErrExist
// if something else has the name to. Of a symbolic link it makes a second name, too,
// not one of what it points to. from must be a name that only the caller knows, and
// the only one yet of what it names. Link syncs nothing.
func Link(root *os.Root, from, to string) error {
	linkErr := root.Link(from, to)
	if linkErr == nil || final(linkErr) {
		return linkErr
	}
	for start := time.Now(); ; time.Sleep(settlePoll) {
		mine, err := root.Lstat(from)
		if err != nil {
			return err
		}
		there, err := root.Lstat(to)
		if err == nil {
			if os.SameFile(mine, there) {
				return nil
			}
			return fmt.Errorf("%w: %w", fs.ErrExist, linkErr)
		}
		// Nobody else can have made the second name.
		if mine.Sys().(*syscall.Stat_t).Nlink == 2 {
			return nil
		}
		if time.Since(start) >= Settle {
			return linkErr
		}
	}
}

// final tells errors of requests that were refused. Not among them is what a request
// may get that is repeated after its own success (EEXIST, ENOENT, ENOTEMPTY), or that
// was given up with an unknown end (EIO, ESTALE, ETIMEDOUT, EINTR); nor EBUSY, which
// may pass.
func final(err error) bool {
	var errno syscall.Errno
	if !errors.As(err, &errno) {
		return false
	}
	switch errno {
	case syscall.ENOSPC, syscall.EDQUOT, syscall.EROFS, syscall.EMLINK, // no room
		syscall.EACCES, syscall.EPERM, syscall.EXDEV, syscall.ENOTSUP, syscall.ENOSYS, // not allowed
		syscall.ENAMETOOLONG, syscall.EINVAL, syscall.ELOOP, syscall.ENOTDIR, syscall.EISDIR: // nonsense
		return true
	}
	return false
}

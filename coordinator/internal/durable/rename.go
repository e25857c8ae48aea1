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

// Link is link(2), believed only after a look, as Rename.
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
		// Only this process knows the private name: a second link is the one to to.
		if mine.Sys().(*syscall.Stat_t).Nlink == 2 {
			return nil
		}
		if time.Since(start) >= Settle {
			return linkErr
		}
	}
}

// final tells errors that no repetition of a request brings about.
func final(err error) bool {
	for _, e := range []error{syscall.ENOSPC, syscall.EDQUOT, syscall.EROFS, syscall.EACCES, syscall.EPERM, syscall.EXDEV, syscall.ENOTSUP, syscall.EMLINK} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

package claim

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// lockTimeout is how long an attempt to lock may take. A file server that answers
// at all answers in milliseconds; some mounts never do.
const lockTimeout = time.Second

var errWorthless = errors.New("flock excludes nobody")

// lock is an open lock file.
type lock struct {
	file *os.File
	info os.FileInfo
}

// inode returns 0 for no lock.
func (l *lock) inode() uint64 {
	if l == nil {
		return 0
	}
	return l.info.Sys().(*syscall.Stat_t).Ino
}

func (l *lock) close() {
	if l != nil {
		l.file.Close()
	}
}

// tryLock locks the file name below root, or returns ErrHeld if somebody else has
// it, with the open file for the next attempt. Open is what an earlier attempt
// returned, or nil. Any other error means that flock is of no use here.
//
// A call that hangs cannot be interrupted. It is left alone in its goroutine, and
// what it gets in the end is given back. Until then it keeps the turn, so that no
// other attempt hangs, too.
func tryLock(turn chan struct{}, root *os.Root, name string, open *lock) (*lock, error) {
	type result struct {
		lock *lock
		err  error
	}
	hangs := time.NewTimer(lockTimeout)
	defer hangs.Stop()
	if turn == nil {
		turn = make(chan struct{}, 1)
	}
	select {
	case turn <- struct{}{}:
	case <-hangs.C:
		return nil, errors.New("an earlier flock hangs")
	}
	done := make(chan result)
	abandoned := make(chan struct{})
	go func() {
		defer func() { <-turn }()
		l, err := lockNow(root, name, open)
		select {
		case done <- result{l, err}:
		case <-abandoned:
			l.close()
		}
	}()
	select {
	case r := <-done:
		return r.lock, r.err
	case <-hangs.C:
		close(abandoned)
		return nil, fmt.Errorf("flock of %s hangs", name)
	}
}

func lockNow(root *os.Root, name string, open *lock) (*lock, error) {
	for range 2 {
		var err error
		if open == nil {
			if open, err = openLock(root, name); err != nil {
				return nil, err
			}
		}
		err = flock(open.file)
		if errors.Is(err, unix.EWOULDBLOCK) {
			return open, ErrHeld
		}
		if err != nil && !errors.Is(err, unix.ESTALE) {
			open.close()
			return nil, fmt.Errorf("cannot lock %s: %w", name, err)
		}
		if err == nil {
			if named, statErr := root.Stat(name); statErr == nil && os.SameFile(named, open.info) {
				if err := open.selfTest(root, name); err != nil {
					open.close()
					return nil, err
				}
				return open, nil
			}
		}
		// The file was removed: nobody else will see this lock.
		open.close()
		open = nil
	}
	return nil, fmt.Errorf("cannot lock %s: it is removed again and again", name)
}

// openLock opens the file, writable: NFS turns flock into a byte-range lock, which
// excludes others through writable descriptors only.
func openLock(root *os.Root, name string) (*lock, error) {
	f, err := root.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("cannot lock %s: %w", name, err)
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("cannot lock %s: %w", name, err)
	}
	return &lock{f, info}, nil
}

// selfTest demands that the lock keeps out a second descriptor.
func (l *lock) selfTest(root *os.Root, name string) error {
	second, err := openLock(root, name)
	if err == nil {
		defer second.close()
		if err = flock(second.file); errors.Is(err, unix.EWOULDBLOCK) {
			return nil
		}
	}
	return errors.Join(errWorthless, err)
}

func flock(f *os.File) error {
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// boot tells with whom a flock is certainly shared: who has the same kernel and the
// same file system of it. Two mounts of one file server may be two file systems, as
// with FUSE, and the locks of each its own.
func (l Log) boot() string {
	boot := Boot()
	info, err := l.Root.Stat(".")
	if boot == "" || err != nil {
		return ""
	}
	return fmt.Sprintf("%s %x", boot, info.Sys().(*syscall.Stat_t).Dev)
}

// Boot identifies the running kernel, which containers of one machine share;
// empty if that is unknown.
func Boot() string {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(id))
}

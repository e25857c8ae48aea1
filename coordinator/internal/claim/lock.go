package claim

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// lockTimeout is how long an attempt to lock may take. A file server that answers
// at all answers in milliseconds; some mounts never do.
const lockTimeout = time.Second

// lock is an open lock file; nil is none.
type lock struct {
	file *os.File
	info os.FileInfo
}

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

// lockPath, below Root, is never removed: another file would be another lock.
func (l Log) lockPath() string { return path.Join(l.Dir, "lock") }

// tryLock returns the lock that it obtained, or, if somebody else has it, the open file
// for the next attempt. Open is what an earlier attempt returned, or nil. Where flock is
// of no use, for whatever reason, the outcome is untried.
//
// A call that hangs cannot be interrupted. It is left alone in its goroutine, and
// what it gets in the end is given back. Until then it keeps the turn, so that no
// other attempt hangs, too.
func (l Log) tryLock(open *lock) (*lock, lockOutcome) {
	type result struct {
		lock    *lock
		outcome lockOutcome
	}
	limit, cancel := context.WithTimeout(context.Background(), lockTimeout)
	defer cancel()
	select {
	case l.Turn <- struct{}{}:
	case <-limit.Done():
		return nil, untried
	}
	done := make(chan result)
	go func() {
		defer func() { <-l.Turn }()
		got, outcome := l.lockNow(open)
		select {
		case done <- result{got, outcome}:
		case <-limit.Done():
			got.close()
		}
	}()
	select {
	case r := <-done:
		return r.lock, r.outcome
	case <-limit.Done():
		return nil, untried
	}
}

func (l Log) lockNow(open *lock) (*lock, lockOutcome) {
	for range 2 {
		if open == nil {
			open = l.openLock()
		}
		if open == nil {
			return nil, untried
		}
		err := flock(open.file)
		if errors.Is(err, unix.EWOULDBLOCK) {
			return open, refused
		}
		if err == nil && l.excludes(open) {
			return open, obtained
		}
		open.close()
		open = nil
	}
	return nil, untried
}

// openLock opens the file, writable: NFS turns flock into a byte-range lock, which
// excludes others through writable descriptors only.
func (l Log) openLock() *lock {
	f, err := l.Root.OpenFile(l.lockPath(), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return nil
	}
	return &lock{f, info}
}

// excludes tells whether a lock that was obtained keeps out a second descriptor. One of
// a file that was removed meanwhile keeps out nobody.
func (l Log) excludes(first *lock) bool {
	second := l.openLock()
	defer second.close()
	return second != nil && os.SameFile(second.info, first.info) && errors.Is(flock(second.file), unix.EWOULDBLOCK)
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

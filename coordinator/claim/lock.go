package claim

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// lockTimeout is how long a flock may take. A file server that answers at all
// answers in milliseconds; some mounts never do.
const lockTimeout = time.Second

var errWorthless = errors.New("flock excludes nobody")

// lock is a flock that was seen to keep out a second one.
type lock struct {
	*os.File
	inode uint64
}

// tryLock returns ErrHeld if somebody else has the lock, and another error
// where there is none worth having. A call that hangs cannot be interrupted: it
// is left alone in its goroutine, and what it gets in the end is given back.
func tryLock(ctx context.Context, path string) (*lock, error) {
	type result struct {
		lock *lock
		err  error
	}
	done := make(chan result)
	abandoned := make(chan struct{})
	go func() {
		l, err := lockNow(path)
		select {
		case done <- result{l, err}:
		case <-abandoned:
			if l != nil {
				l.Close()
			}
		}
	}()
	ctx, cancel := context.WithTimeoutCause(ctx, lockTimeout, fmt.Errorf("flock of %s hangs", path))
	defer cancel()
	select {
	case r := <-done:
		return r.lock, r.err
	case <-ctx.Done():
		close(abandoned)
		return nil, context.Cause(ctx)
	}
}

func lockNow(path string) (*lock, error) {
	// Writable descriptors, because NFS turns flock into a byte-range lock and
	// those are exclusive on writable descriptors only.
	first, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("cannot open the lock: %w", err)
	}
	l, err := confirm(first, path)
	if err != nil {
		first.Close()
		return nil, err
	}
	return l, nil
}

func confirm(first *os.File, path string) (*lock, error) {
	if err := flock(first); err != nil {
		return nil, err
	}
	second, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("cannot open the lock: %w", err)
	}
	defer second.Close()
	locked, err := first.Stat()
	if err != nil {
		return nil, fmt.Errorf("cannot confirm the lock: %w", err)
	}
	// Somebody has removed the path: nobody else will see this lock.
	if named, err := second.Stat(); err != nil || !os.SameFile(locked, named) {
		return nil, ErrHeld
	}
	if err := flock(second); !errors.Is(err, ErrHeld) {
		return nil, errors.Join(errWorthless, err)
	}
	return &lock{first, locked.Sys().(*syscall.Stat_t).Ino}, nil
}

// flock locks without waiting.
func flock(f *os.File) error {
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EWOULDBLOCK):
			return ErrHeld
		default:
			return fmt.Errorf("cannot lock %s: %w", f.Name(), err)
		}
	}
}

// boot identifies the running kernel, which containers of one machine share.
func boot() string {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(id))
}

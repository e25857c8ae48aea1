package claim

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/gofrs/flock"
)

// lockTimeout is how long a flock may take. A file server that answers at all
// answers in milliseconds; some mounts never do.
const lockTimeout = time.Second

var errWorthless = errors.New("flock excludes nobody")

// lock is a flock that was seen to keep out a second one.
type lock struct {
	*flock.Flock
	inode uint64
}

// tryLock returns ErrHeld if somebody else has the lock, and another error
// where there is none worth having. A call that hangs cannot be interrupted: it
// is left alone in its goroutine, and what it gets in the end is given back.
func tryLock(ctx context.Context, root *os.Root, name string) (*lock, error) {
	type result struct {
		lock *lock
		err  error
	}
	done := make(chan result)
	abandoned := make(chan struct{})
	go func() {
		l, err := lockNow(root, name)
		select {
		case done <- result{l, err}:
		case <-abandoned:
			if l != nil {
				l.Close()
			}
		}
	}()
	ctx, cancel := context.WithTimeoutCause(ctx, lockTimeout, fmt.Errorf("flock of %s hangs", name))
	defer cancel()
	select {
	case r := <-done:
		return r.lock, r.err
	case <-ctx.Done():
		close(abandoned)
		return nil, context.Cause(ctx)
	}
}

func lockNow(root *os.Root, name string) (*lock, error) {
	// Made through the root and locked by its path: should another volume, or
	// none, be mounted there by now, nothing is made on it, and confirm sees it.
	f, err := root.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("cannot lock %s: %w", name, err)
	}
	f.Close()
	// Writable descriptors, because NFS turns flock into a byte-range lock and
	// those are exclusive on writable descriptors only.
	first := flock.New(f.Name(), flock.SetFlag(os.O_RDWR))
	l, err := confirm(first, root, name)
	if err != nil {
		first.Close()
		return nil, err
	}
	return l, nil
}

// confirm locks first, and demands that it is the file named below the root.
func confirm(first *flock.Flock, root *os.Root, name string) (*lock, error) {
	if ok, err := first.TryLock(); err != nil {
		return nil, fmt.Errorf("cannot lock %s: %w", first, err)
	} else if !ok {
		return nil, ErrHeld
	}
	locked, err := first.Stat()
	if err != nil {
		return nil, fmt.Errorf("cannot confirm the lock: %w", err)
	}
	// Somebody has removed the path: nobody else will see this lock.
	if named, err := root.Stat(name); err != nil || !os.SameFile(locked, named) {
		return nil, ErrHeld
	}
	second := flock.New(first.Path(), flock.SetFlag(os.O_RDWR))
	defer second.Close()
	if ok, err := second.TryLock(); ok || err != nil {
		return nil, errors.Join(errWorthless, err)
	}
	return &lock{first, locked.Sys().(*syscall.Stat_t).Ino}, nil
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

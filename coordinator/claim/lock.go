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
	first := flock.New(path, flock.SetFlag(os.O_CREATE|os.O_RDWR), flock.SetPermissions(0o644))
	l, err := confirm(first)
	if err != nil {
		first.Close()
		return nil, err
	}
	return l, nil
}

func confirm(first *flock.Flock) (*lock, error) {
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
	if named, err := os.Stat(first.Path()); err != nil || !os.SameFile(locked, named) {
		return nil, ErrHeld
	}
	second := flock.New(first.Path(), flock.SetFlag(os.O_RDWR))
	defer second.Close()
	if ok, err := second.TryLock(); ok || err != nil {
		return nil, errors.Join(errWorthless, err)
	}
	return &lock{first, locked.Sys().(*syscall.Stat_t).Ino}, nil
}

// boot identifies the running kernel, which containers of one machine share.
func boot() string {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(id))
}

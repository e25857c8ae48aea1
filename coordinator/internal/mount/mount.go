// Package mount keeps calls on a mount that hangs from piling up.
//
// A system call on a network file system whose server is gone may never return,
// and nothing can interrupt it. So a call on a mount first waits until the mount
// has answered a question, and one question at a time is asked for all who wait. A
// call that was under way when the mount stopped to answer is left behind when its
// context ends; it ends by itself when the mount answers again.
package mount

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// ErrHung: the mount did not answer before the context ended.
var ErrHung = errors.New("the mount does not answer")

const (
	// grace is how long a call may take to end by itself when its context has.
	grace = 100 * time.Millisecond
	// answerLimit is how long a mount that works may take to answer a question. With
	// grace it is less than half a second: who has set a deadline waits no longer.
	answerLimit = 300 * time.Millisecond
	// tidyLimit is how long a call may tidy up on a mount that does answer: a tree
	// of 60,000 files was removed in 16 s by a busy disk.
	tidyLimit = time.Minute
)

// Mount is a directory on which calls may hang.
type Mount struct {
	dir      string
	question func(dir string) // returns when the mount has answered

	mu    sync.Mutex
	asked chan struct{} // closed by the answer to the question under way; nil if none is
}

// mounts has to be one for the process: it is the process whose threads hang.
var mounts sync.Map // directory -> *Mount

// At returns what this process knows of the mount at dir.
func At(dir string) *Mount {
	m, _ := mounts.LoadOrStore(dir, &Mount{dir: dir, question: statfs})
	return m.(*Mount)
}

// statfs asks what no client of a network file system answers from its memory:
// the free space, and the names in the directory.
func statfs(dir string) {
	var s unix.Statfs_t
	_ = unix.Statfs(dir, &s) // an error is an answer, too
	if f, err := os.Open(dir); err == nil {
		_, _ = f.Readdirnames(1)
		f.Close()
	}
}

// Answers waits until the mount has answered. If ctx ends before, the error is
// ErrHung and that of ctx.
func (m *Mount) Answers(ctx context.Context) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	select {
	case <-m.ask():
		return nil
	case <-ctx.Done():
		return m.hung(ctx)
	}
}

func (m *Mount) hung(ctx context.Context) error {
	return fmt.Errorf("%w: %s: %w", ErrHung, m.dir, context.Cause(ctx))
}

func (m *Mount) ask() <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.asked == nil {
		asked := make(chan struct{})
		m.asked = asked
		go func() {
			m.question(m.dir)
			m.mu.Lock()
			m.asked = nil
			m.mu.Unlock()
			close(asked)
		}()
	}
	return m.asked
}

// Call makes a call on a mount and returns its result. When ctx ends, the call is
// given the time it needs to tidy up for as long as the mount answers; else it is
// left behind, and the error is ErrHung and that of ctx.
func Call[T any](ctx context.Context, m *Mount, call func(context.Context) (T, error)) (T, error) {
	type result struct {
		value T
		err   error
	}
	var none T
	if err := m.Answers(ctx); err != nil {
		return none, err
	}
	ended := make(chan result, 1)
	go func() {
		value, err := call(ctx)
		ended <- result{value, err}
	}()
	select {
	case r := <-ended:
		return r.value, r.err
	case <-ctx.Done():
	}
	for since := time.Now(); time.Since(since) < tidyLimit; {
		select {
		case r := <-ended:
			return r.value, r.err
		case <-time.After(grace):
		}
		select {
		case r := <-ended:
			return r.value, r.err
		case <-m.ask():
		case <-time.After(answerLimit):
			return none, m.hung(ctx)
		}
	}
	return none, m.hung(ctx)
}

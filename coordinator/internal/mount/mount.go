// Package mount keeps calls on a mount that hangs from piling up.
//
// A system call on a network file system whose server is gone may never return,
// and nothing can interrupt it. So a call on a mount first waits until the mount
// has answered a question, and one question at a time is asked for all who wait.
//
// A mount may answer questions and hang elsewhere. So a call that does not end
// after its context has is left behind, whatever the mount answers. It ends by
// itself when the mount lets it, and until then no other call begins.
package mount

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// ErrHung: the mount did not answer before the context ended.
var ErrHung = errors.New("the mount does not answer")

const (
	// tick and patience are how long a call may go on without a sign of life when its
	// context has ended: 0.3 s, so that who has set a deadline of half a second is back
	// within one. It is counted in ticks, so that a machine that stands still for a
	// moment does not look like a mount that hangs.
	tick     = 20 * time.Millisecond
	patience = 15
	// tidyLimit is how long a call may tidy up while it gives signs of life: a tree
	// of 60,000 files was removed in 16 s by a busy disk.
	tidyLimit = time.Minute
)

// Mount is a directory on which calls may hang.
type Mount struct {
	dir      string
	question func(dir string) // returns when the mount has answered

	mu    sync.Mutex
	asked chan struct{}     // closed by the answer to the question under way; nil if none is
	left  []<-chan struct{} // of calls that were left behind: each is closed when the call ends
}

// mounts has to be one for the process: it is the process whose threads hang.
var mounts sync.Map // directory -> *Mount

// At returns what this process knows of the mount at dir.
func At(dir string) *Mount {
	m, _ := mounts.LoadOrStore(dir, &Mount{dir: dir, question: ask})
	return m.(*Mount)
}

// ask asks what no client of a network file system answers from its memory: the
// free space, the names in the directory, and a name that nobody has asked for.
func ask(dir string) {
	var s unix.Statfs_t
	_ = unix.Statfs(dir, &s) // an error is an answer, too
	if f, err := os.Open(dir); err == nil {
		_, _ = f.Readdirnames(1)
		f.Close()
	}
	_, _ = os.Lstat(filepath.Join(dir, ".ask-"+rand.Text()))
}

// Answers waits until the mount has answered, and the calls that were left behind
// have ended. If ctx ends before, the error is ErrHung and that of ctx.
func (m *Mount) Answers(ctx context.Context) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	m.mu.Lock()
	if m.asked == nil {
		m.asked = make(chan struct{})
		go m.await()
	}
	asked := m.asked
	m.mu.Unlock()
	select {
	case <-asked:
		return nil
	case <-ctx.Done():
		return m.hung(ctx)
	}
}

func (m *Mount) hung(ctx context.Context) error {
	return fmt.Errorf("%w: %s: %w", ErrHung, m.dir, context.Cause(ctx))
}

// await closes asked when the mount has answered.
func (m *Mount) await() {
	for {
		m.question(m.dir)
		m.mu.Lock()
		left := m.left
		m.left = nil
		if len(left) == 0 {
			close(m.asked)
			m.asked = nil
			m.mu.Unlock()
			return
		}
		m.mu.Unlock()
		for _, ended := range left {
			<-ended
		}
	}
}

// Call makes a call on a mount and returns its result. When ctx ends, the call is
// given the time that it needs to tidy up for as long as it gives signs of life, see
// Tidying. One that gives none is left behind, and the error is ErrHung and that of
// ctx. What it does when the mount lets it go on is up to the call, which has to look
// at ctx before each thing that must not come late.
func Call[T any](ctx context.Context, m *Mount, call func(context.Context) (T, error)) (value T, err error) {
	if err := m.Answers(ctx); err != nil {
		return value, err
	}
	type result struct {
		value T
		err   error
	}
	var signs atomic.Int64
	results, ended := make(chan result, 1), make(chan struct{})
	go func() {
		defer close(ended)
		value, err := call(context.WithValue(ctx, signsKey{}, &signs))
		results <- result{value, err}
	}()
	select {
	case r := <-results:
		return r.value, r.err
	case <-ctx.Done():
	}
	start, seen := time.Now(), signs.Load()
	for silent := 0; silent < patience && time.Since(start) < tidyLimit; {
		select {
		case r := <-results:
			return r.value, r.err
		case <-time.After(tick):
		}
		silent++
		if now := signs.Load(); now != seen {
			seen, silent = now, 0
		}
	}
	m.mu.Lock()
	m.left = append(m.left, ended)
	m.mu.Unlock()
	return value, m.hung(ctx)
}

type signsKey struct{}

// Tidying returns a context for what a call has to tidy up, also after its own has
// ended: it ends after limit. Each look at its Err is a sign of life to Call.
func Tidying(ctx context.Context, limit time.Duration) (context.Context, context.CancelFunc) {
	signs, _ := ctx.Value(signsKey{}).(*atomic.Int64)
	limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), limit)
	if signs == nil {
		return limited, cancel
	}
	return tidying{limited, signs}, cancel
}

type tidying struct {
	context.Context
	signs *atomic.Int64
}

func (t tidying) Err() error {
	t.signs.Add(1)
	return t.Context.Err()
}

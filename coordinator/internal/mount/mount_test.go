package mount

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// server is a mount's. While a request of a kind is held, it does not return.
type server struct {
	questions, calls gate
}

// gate counts who is inside, and keeps all there while it is shut.
type gate struct {
	mu     sync.Mutex
	shut   chan struct{} // nil while open
	inside atomic.Int32
}

func (g *gate) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.shut = make(chan struct{})
}

func (g *gate) open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	close(g.shut)
	g.shut = nil
}

func (g *gate) pass() {
	g.mu.Lock()
	shut := g.shut
	g.mu.Unlock()
	g.inside.Add(1)
	defer g.inside.Add(-1)
	if shut != nil {
		<-shut
	}
}

func newMount() (*server, *Mount) {
	s := &server{}
	return s, &Mount{dir: "/volume", question: func(string) { s.questions.pass() }}
}

const deadline = 500 * time.Millisecond

// call is one that is deaf to its context.
func (s *server) call(m *Mount) (took time.Duration, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	start := time.Now()
	_, err = Call(ctx, m, func(context.Context) (int, error) { s.calls.pass(); return 1, nil })
	return time.Since(start), err
}

// Time is virtual: what is measured here is what a machine without load takes.
func hung(t *testing.T, took time.Duration, err error) {
	t.Helper()
	require.ErrorIs(t, err, ErrHung)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.ErrorContains(t, err, "/volume")
	require.Less(t, took, time.Second)
}

// calls100 makes so many calls at a time.
func (s *server) calls100(t *testing.T, m *Mount) {
	t.Helper()
	var took [100]time.Duration
	var errs [100]error
	var all sync.WaitGroup
	for i := range took {
		all.Go(func() { took[i], errs[i] = s.call(m) })
	}
	all.Wait()
	for i := range took {
		hung(t, took[i], errs[i])
	}
}

func TestMountThatAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, m := newMount()
		took, err := s.call(m)
		require.NoError(t, err)
		require.Zero(t, took)
	})
}

// Of any number of calls, one question hangs, and none of the calls begins.
func TestNothingAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, m := newMount()
		s.questions.close()
		for range 10 {
			s.calls100(t, m)
			require.EqualValues(t, 1, s.questions.inside.Load())
			require.Zero(t, s.calls.inside.Load())
		}
		s.questions.open()
		synctest.Wait()
		_, err := s.call(m)
		require.NoError(t, err)
	})
}

// A call may hang where no question does, for ever. It is left behind all the same,
// and no other one follows it.
func TestCallsHangWhereQuestionsDoNot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, m := newMount()
		s.calls.close()
		for range 1000 {
			took, err := s.call(m)
			hung(t, took, err)
			require.EqualValues(t, 1, s.calls.inside.Load(), "calls that hang")
		}
		s.calls.open()
		synctest.Wait()
		require.Zero(t, s.calls.inside.Load())
		_, err := s.call(m)
		require.NoError(t, err)
	})
}

// Those that are under way when the mount begins to hang are left behind, each.
func TestCallsUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, m := newMount()
		s.calls.close()
		s.calls100(t, m)
		for range 100 {
			took, err := s.call(m)
			hung(t, took, err)
		}
		require.EqualValues(t, 100, s.calls.inside.Load())
		s.questions.close() // the server is gone altogether
		s.calls.open()      // or so it seems
		synctest.Wait()
		took, err := s.call(m)
		hung(t, took, err)
		s.questions.open()
		synctest.Wait()
		_, err = s.call(m)
		require.NoError(t, err)
	})
}

// A call that hears its context says itself how it ended.
func TestCallEndsByItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, m := newMount()
		ctx, cancel := context.WithTimeout(t.Context(), deadline)
		defer cancel()
		tidy := errors.New("tidy")
		_, err := Call(ctx, m, func(ctx context.Context) (int, error) {
			<-ctx.Done()
			time.Sleep(100 * time.Millisecond) // it cannot do better
			return 0, fmt.Errorf("%w: %w", tidy, context.Cause(ctx))
		})
		require.ErrorIs(t, err, tidy)
		require.NotErrorIs(t, err, ErrHung)
	})
}

func TestContextThatHasEnded(t *testing.T) {
	_, m := newMount()
	ctx, cancel := context.WithCancelCause(t.Context())
	reason := errors.New("enough")
	cancel(reason)
	_, err := Call(ctx, m, func(context.Context) (int, error) { t.Error("it was called"); return 0, nil })
	require.ErrorIs(t, err, reason)
	require.NotErrorIs(t, err, ErrHung, "nobody knows")
}

// A call that tidies up is waited for while it goes on, whatever that takes in all;
// one that hangs at it is not.
func TestTidying(t *testing.T) {
	for _, c := range []struct {
		name  string
		steps int
		pause time.Duration // of each
		hangs bool          // after the steps
		took  time.Duration // after the deadline
		hung  bool
	}{
		{"much", 30_000, time.Millisecond, false, 30 * time.Second, false},
		{"slowly", 50, 275 * time.Millisecond, false, 50 * 275 * time.Millisecond, false},
		{"too slowly", 50, 500 * time.Millisecond, false, patience * tick, true},
		{"too much", 70_000, time.Millisecond, false, time.Minute, true},
		{"until it hangs", 1000, time.Millisecond, true, time.Second + patience*tick, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, m := newMount()
				ctx, cancel := context.WithTimeout(t.Context(), deadline)
				defer cancel()
				s.calls.close()
				start := time.Now()
				_, err := Call(ctx, m, func(ctx context.Context) (int, error) {
					<-ctx.Done()
					tidying, cancel := Tidying(ctx, 2*time.Minute)
					defer cancel()
					for range c.steps {
						time.Sleep(c.pause)
						if err := tidying.Err(); err != nil {
							t.Error("who tidies up was interrupted:", err)
						}
					}
					if c.hangs {
						s.calls.pass()
					}
					return 0, context.Cause(ctx)
				})
				require.InDelta(t, deadline+c.took, time.Since(start), float64(tick))
				require.ErrorIs(t, err, context.DeadlineExceeded)
				require.Equal(t, c.hung, errors.Is(err, ErrHung), err)
				s.calls.open()
				require.NoError(t, m.Answers(t.Context()), "it has not ended")
			})
		})
	}
}

func TestTidyingHasALimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, m := newMount()
		ctx, cancel := context.WithTimeout(t.Context(), deadline)
		defer cancel()
		_, err := Call(ctx, m, func(ctx context.Context) (int, error) {
			tidying, cancel := Tidying(ctx, time.Second)
			defer cancel()
			start := time.Now()
			for tidying.Err() == nil {
				time.Sleep(time.Second / 100)
			}
			<-tidying.Done()
			if took := time.Since(start); took.Round(time.Second/10) != time.Second {
				t.Error("it took", took)
			}
			return 0, context.Cause(tidying)
		})
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.NotErrorIs(t, err, ErrHung)
		alone, cancel := Tidying(t.Context(), time.Second) // not within a call
		defer cancel()
		require.NoError(t, alone.Err())
	})
}

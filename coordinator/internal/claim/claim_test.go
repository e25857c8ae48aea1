package claim

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/durable"
)

func newLog(t testing.TB) Log {
	root, err := os.OpenRoot(t.TempDir())
	require.NoError(t, err)
	t.Cleanup(func() { root.Close() })
	require.NoError(t, root.Mkdir("claims", 0o755))
	return Log{Root: root, Dir: "claims", Lock: "lock", Lease: time.Second}
}

// lockless makes flock fail.
func lockless(t *testing.T, l Log) { require.NoError(t, l.Root.Mkdir(l.Lock, 0o755)) }

func alone(Holder) error { return nil }

func TestOneHolder(t *testing.T) {
	ctx := context.Background()
	l := newLog(t)
	first, err := l.Try(ctx, Holder{Unit: "concourse-ci/0", Version: "7.14.3"})
	require.NoError(t, err)
	before, err := l.Root.Stat(l.Lock)
	require.NoError(t, err)

	_, err = l.Try(ctx, Holder{Unit: "concourse-ci/1"})
	require.ErrorIs(t, err, ErrHeld)
	named, err := Read(l.Root, l.Lock)
	require.NoError(t, err)
	require.Equal(t, "concourse-ci/0", named.Unit, "a contender changed the holder's name")
	holder, err := l.Holder()
	require.NoError(t, err)
	require.Equal(t, "concourse-ci/0", holder.Unit)

	var told Holder
	enough := errors.New("enough")
	_, err = l.Acquire(ctx, Holder{}, func(h Holder) error { told = h; return enough })
	require.Equal(t, enough, err)
	require.Equal(t, "concourse-ci/0", told.Unit)

	soon, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
	defer cancel()
	_, err = l.Acquire(soon, Holder{}, alone)
	require.ErrorIs(t, err, context.DeadlineExceeded)

	time.AfterFunc(50*time.Millisecond, func() { first.Release() })
	start := time.Now()
	second, err := l.Acquire(ctx, Holder{Unit: "concourse-ci/1"}, alone)
	require.NoError(t, err)
	require.Less(t, time.Since(start), time.Second)
	require.Greater(t, second.Generation(), first.Generation())
	require.ErrorIs(t, first.Check(), ErrFenced)
	require.NoError(t, second.Check())
	after, err := l.Root.Stat(l.Lock)
	require.NoError(t, err)
	require.True(t, os.SameFile(before, after), "another file is another lock")
	require.NoError(t, second.Release())
	named, err = Read(l.Root, l.Lock)
	require.NoError(t, err)
	require.Empty(t, named.Unit)
	holder, err = l.Holder()
	require.NoError(t, err)
	require.Empty(t, holder.Unit)
}

func TestRubbishInTheLockFile(t *testing.T) {
	l := newLog(t)
	require.NoError(t, l.Root.WriteFile(l.Lock, []byte(`{"unit":"conc`), 0o644))
	c, err := l.Try(context.Background(), Holder{Unit: "concourse-ci/0"})
	require.NoError(t, err)
	named, err := Read(l.Root, l.Lock)
	require.NoError(t, err)
	require.Equal(t, "concourse-ci/0", named.Unit)
	require.NoError(t, c.Release())
}

// A holder that lives is never taken for dead, however long it holds.
func TestWithoutFlock(t *testing.T) {
	ctx := context.Background()
	l := newLog(t)
	lockless(t, l)
	l.Lease = 400 * time.Millisecond
	first, err := l.Try(ctx, Holder{Unit: "concourse-ci/0"})
	require.NoError(t, err)
	long, cancel := context.WithTimeout(ctx, 5*l.Lease)
	defer cancel()
	_, err = l.Acquire(long, Holder{Unit: "concourse-ci/1"}, alone)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	start := time.Now()
	_, err = l.Try(ctx, Holder{Unit: "concourse-ci/1"})
	require.ErrorIs(t, err, ErrHeld)
	require.Less(t, time.Since(start), l.Lease+500*time.Millisecond)

	time.AfterFunc(50*time.Millisecond, func() { first.Release() })
	start = time.Now()
	second, err := l.Acquire(ctx, Holder{Unit: "concourse-ci/1"}, alone)
	require.NoError(t, err)
	require.Less(t, time.Since(start), 350*time.Millisecond, "waited for a lease that was given up")
	require.NoError(t, second.Release())
}

// A claim that nobody renews, as of a holder that died.
func TestSilentHolder(t *testing.T) {
	tests := []struct {
		name    string
		record  record
		nowLock bool // flock fails
		locked  bool // somebody has the flock
		quick   bool
	}{
		{name: "this kernel, the same lock", record: record{Boot: Boot(), Flock: 1}, quick: true},
		{name: "this kernel, another lock", record: record{Boot: Boot(), Flock: 2}},
		{name: "another kernel", record: record{Boot: "another", Flock: 1}},
		{name: "without a lock", record: record{Boot: Boot()}},
		{name: "no locks here", record: record{Boot: Boot(), Flock: 1}, nowLock: true},
		{name: "asleep with the lock", record: record{Boot: Boot(), Flock: 1}, locked: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			l := newLog(t)
			if tt.nowLock {
				lockless(t, l)
			} else {
				held, err := tryLock(context.Background(), l.Root, l.Lock)
				require.NoError(t, err)
				if tt.record.Flock == 1 {
					tt.record.Flock = held.inode
				}
				if tt.locked {
					defer held.Close()
				} else {
					held.Close()
				}
			}
			tt.record.Nonce = "x"
			data, err := json.Marshal(tt.record)
			require.NoError(t, err)
			require.NoError(t, l.Root.WriteFile(l.name(7), data, 0o644))
			start := time.Now()
			c, err := l.Acquire(context.Background(), Holder{Unit: "concourse-ci/1"}, alone)
			took := time.Since(start)
			require.NoError(t, err)
			require.Equal(t, 8, c.Generation())
			require.NoError(t, c.Release())
			if tt.quick {
				require.Less(t, took, l.Lease/2)
			} else {
				require.GreaterOrEqual(t, took, l.Lease)
				require.Less(t, took, l.Lease+time.Second)
			}
		})
	}
}

// Two machines, one of which was kept out by the other's lock and gets it.
func TestLockOfAnotherMachine(t *testing.T) {
	l := newLog(t)
	l.Lease = 10 * time.Second
	held, err := tryLock(context.Background(), l.Root, l.Lock)
	require.NoError(t, err)
	data, err := json.Marshal(record{Boot: "another", Flock: held.inode, Nonce: "x"})
	require.NoError(t, err)
	require.NoError(t, l.Root.WriteFile(l.name(7), data, 0o644))
	time.AfterFunc(2*time.Second, func() { held.Close() })
	start := time.Now()
	c, err := l.Acquire(context.Background(), Holder{}, alone)
	require.NoError(t, err)
	require.Less(t, time.Since(start), 3*time.Second)
	require.NoError(t, c.Release())
}

// What two machines find out about their locks while one waits for the other.
func TestWitness(t *testing.T) {
	for _, exclusive := range []bool{true, false} {
		t.Run(strconv.FormatBool(exclusive), func(t *testing.T) {
			t.Parallel()
			l := newLog(t)
			var told []bool
			l.Witness = func(exclusive bool) { told = append(told, exclusive) }
			held, err := tryLock(t.Context(), l.Root, l.Lock)
			require.NoError(t, err)
			if exclusive {
				defer held.Close()
			} else {
				held.Close()
			}
			data, err := json.Marshal(record{Boot: "another", Flock: held.inode, Nonce: "x"})
			require.NoError(t, err)
			require.NoError(t, l.Root.WriteFile(l.name(7), data, 0o644))
			ctx, cancel := context.WithTimeout(t.Context(), l.Lease*8/10)
			defer cancel()
			_, err = l.Acquire(ctx, Holder{}, alone)
			require.ErrorIs(t, err, context.DeadlineExceeded)
			if !exclusive {
				require.Empty(t, told, "the holder may be dead")
				s := contender{log: l}
				_, err := s.try(t.Context())
				require.ErrorIs(t, err, ErrHeld)
				require.NoError(t, l.Root.WriteFile(l.beat(7), []byte("y"), 0o644))
				_, err = s.try(t.Context())
				require.ErrorIs(t, err, ErrHeld)
			}
			require.Equal(t, []bool{exclusive}, told)
		})
	}
}

// Where flock is known to be of no use it is not even tried.
func TestLockless(t *testing.T) {
	l := newLog(t)
	held, err := tryLock(t.Context(), l.Root, l.Lock)
	require.NoError(t, err)
	defer held.Close()
	_, err = l.Try(t.Context(), Holder{Unit: "concourse-ci/0"})
	require.ErrorIs(t, err, ErrHeld)
	l.Lockless = true
	c, err := l.Try(t.Context(), Holder{Unit: "concourse-ci/0"})
	require.NoError(t, err)
	require.NoError(t, c.Release())
}

func TestLostClaim(t *testing.T) {
	l := newLog(t)
	l.Lease = 200 * time.Millisecond
	c, err := l.Try(context.Background(), Holder{Unit: "concourse-ci/0"})
	require.NoError(t, err)
	require.NoError(t, c.Check())
	require.NoError(t, l.Root.WriteFile(l.name(c.Generation()+1), []byte(`{"unit":"concourse-ci/1"}`), 0o644))
	require.ErrorIs(t, c.Check(), ErrFenced)
	require.ErrorContains(t, c.Check(), "concourse-ci/1")
	select {
	case <-c.Lost():
	case <-time.After(5 * time.Second):
		t.Fatal("the holder was not told")
	}
	require.NoError(t, c.Release())
}

// Who slept since it looked may get the number of a claim that was pruned.
func TestLogStaysShortAndItsNumbersUnused(t *testing.T) {
	ctx := context.Background()
	l := newLog(t)
	sleeper := contender{log: l}
	_, err := sleeper.look()
	require.NoError(t, err)
	for range 3 * kept {
		c, err := l.Try(ctx, Holder{})
		require.NoError(t, err)
		require.NoError(t, c.Release())
	}
	names, err := durable.Names(l.Root, l.Dir)
	require.NoError(t, err)
	require.LessOrEqual(t, len(names), 2*kept)

	l.Guard = func(step string) error {
		if step != "claim" {
			return nil
		}
		// Asleep between look and link.
		for _, name := range names {
			require.NoError(t, l.Root.Rename(path.Join(l.Dir, name), path.Join(l.Dir, "5"+name)))
		}
		l.Guard = nil
		return nil
	}
	sleeper = contender{log: l}
	_, err = sleeper.try(ctx)
	require.ErrorIs(t, err, ErrHeld)
	c, err := l.Try(ctx, Holder{})
	require.NoError(t, err)
	require.Greater(t, c.Generation(), 500)
	require.NoError(t, c.Release())
}

func TestManyContenders(t *testing.T) {
	l := newLog(t)
	var inside, claims atomic.Int32
	var all sync.WaitGroup
	for range 32 {
		all.Go(func() {
			c, err := l.Acquire(context.Background(), Holder{}, alone)
			if err != nil {
				t.Error(err)
				return
			}
			if inside.Add(1) > 1 {
				t.Error("two holders")
			}
			claims.Add(1)
			time.Sleep(2 * time.Millisecond)
			inside.Add(-1)
			if err := c.Release(); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	require.EqualValues(t, 32, claims.Load())
}

func BenchmarkClaim(b *testing.B) {
	l := newLog(b)
	var took []time.Duration
	for b.Loop() {
		start := time.Now()
		c, err := l.Try(context.Background(), Holder{Unit: "concourse-ci/0"})
		require.NoError(b, err)
		took = append(took, time.Since(start))
		require.NoError(b, c.Release())
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms/claim")
	b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "p50-ms/claim")
}

// Who was asleep has not seen the holder silent.
func TestSleepIsNotWatching(t *testing.T) {
	l := newLog(t)
	require.NoError(t, l.Root.WriteFile(l.name(7), []byte(`{"nonce":"x"}`), 0o644))
	s := contender{log: l}
	for range 2 {
		_, err := s.look()
		require.NoError(t, err)
		s.looked = s.looked.Add(-time.Hour)
	}
	require.LessOrEqual(t, s.silent, 4*pollMax)
}

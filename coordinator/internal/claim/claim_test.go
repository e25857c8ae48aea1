package claim

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func newLog(t testing.TB) Log {
	root, err := os.OpenRoot(t.TempDir())
	require.NoError(t, err)
	t.Cleanup(func() { root.Close() })
	require.NoError(t, root.Mkdir("claims", 0o755))
	return logIn(root, "claims")
}

// logIn has what each log must have.
func logIn(root *os.Root, dir string) Log {
	return Log{
		Root: root, Dir: dir, Name: ".install.lock", Lease: DefaultLease, Turn: make(chan struct{}, 1),
		ReportLockSemantics: func(bool) {}, Guard: func(string) error { return nil }, Logger: slog.New(slog.DiscardHandler),
	}
}

// withoutFlock makes flock fail.
func withoutFlock(t testing.TB, l Log) { require.NoError(t, l.Root.Mkdir(l.lockPath(), 0o755)) }

func write(t testing.TB, l Log, name, content string) {
	require.NoError(t, l.Root.WriteFile("claims/"+name, []byte(content), 0o644))
}

func text(t testing.TB, r record) string {
	data, err := json.Marshal(r)
	require.NoError(t, err)
	return string(data)
}

func doNotCare(Holder) error { return nil }

// locked locks the file of the log, as a contender or holder in another process.
func locked(t testing.TB, l Log) *lock {
	held, outcome := l.tryLock(nil)
	require.Equal(t, obtained, outcome)
	return held
}

// die ends a holder as a crash does: it says nothing more, and its lock is free.
func (c *Claim) die() {
	c.freeze()
	c.lock.close()
}

// freeze makes a holder fall silent with its lock.
func (c *Claim) freeze() {
	close(c.stop)
	<-c.stopped
}

func TestOneHolder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		l := newLog(t)
		first, err := l.Try(ctx, Holder{Unit: "app/0", Version: "7.14.3"})
		require.NoError(t, err)
		before, err := l.Root.Stat(l.lockPath())
		require.NoError(t, err)

		_, err = l.Try(ctx, Holder{Unit: "app/1"})
		require.ErrorIs(t, err, ErrHeld)
		named, err := Read(l.Root, l.Name)
		require.NoError(t, err)
		require.Equal(t, "app/0", named.Unit, "a contender changed the holder's name")
		holder, err := l.Holder()
		require.NoError(t, err)
		require.Equal(t, "app/0", holder.Unit)

		var seen Holder
		enough := errors.New("enough")
		_, err = l.Acquire(ctx, Holder{}, func(h Holder) error { seen = h; return enough })
		require.Equal(t, enough, err)
		require.Equal(t, "app/0", seen.Unit)

		soon, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
		defer cancel()
		_, err = l.Acquire(soon, Holder{}, doNotCare)
		require.ErrorIs(t, err, context.DeadlineExceeded)

		time.AfterFunc(time.Minute, func() { first.Release() })
		start := time.Now()
		second, err := l.Acquire(ctx, Holder{Unit: "app/1"}, doNotCare)
		require.NoError(t, err)
		require.LessOrEqual(t, time.Since(start)-time.Minute, observeMax+waitMax)
		require.Greater(t, second.Generation(), first.Generation())
		require.ErrorIs(t, first.Check(), ErrFenced)
		require.NoError(t, second.Check())
		after, err := l.Root.Stat(l.lockPath())
		require.NoError(t, err)
		require.True(t, os.SameFile(before, after), "another file is another lock")
		require.NoError(t, second.Release())
		named, err = Read(l.Root, l.Name)
		require.NoError(t, err)
		require.Empty(t, named.Unit)
		holder, err = l.Holder()
		require.NoError(t, err)
		require.Empty(t, holder.Unit)
	})
}

// Whoever waits shorter than the holder's lease, or longer: a holder that lives is
// never taken for dead, and a dead one is when its own lease has passed.
func TestUnequalLeases(t *testing.T) {
	leases := []time.Duration{100 * time.Millisecond, time.Second, DefaultLease, time.Minute, time.Hour}
	for _, holders := range leases {
		for _, contenders := range leases {
			t.Run(holders.String()+" "+contenders.String(), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					l := newLog(t)
					withoutFlock(t, l)
					l.Lease = holders
					held, err := l.Try(t.Context(), Holder{Unit: "app/0"})
					require.NoError(t, err)
					l.Lease = contenders
					_, err = l.Try(t.Context(), Holder{Unit: "app/1"})
					require.ErrorIs(t, err, ErrHeld)
					long, cancel := context.WithTimeout(t.Context(), 5*min(holders, maxLease))
					defer cancel()
					_, err = l.Acquire(long, Holder{Unit: "app/1"}, doNotCare)
					require.ErrorIs(t, err, context.DeadlineExceeded)

					held.freeze()
					start := time.Now()
					next, err := l.Acquire(t.Context(), Holder{Unit: "app/1"}, doNotCare)
					require.NoError(t, err)
					lease := min(holders, maxLease)
					require.GreaterOrEqual(t, time.Since(start), lease)
					require.LessOrEqual(t, time.Since(start), lease+lease/looksPerLease)
					require.NoError(t, next.Release())
				})
			})
		}
	}
}

// A holder whose record cannot be read lives as long as it shows that it does.
func TestUnreadableRecordOfALivingHolder(t *testing.T) {
	for _, lease := range []time.Duration{100 * time.Millisecond, DefaultLease, maxLease} {
		t.Run(lease.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLog(t)
				withoutFlock(t, l)
				l.Lease = lease
				held, err := l.Try(t.Context(), Holder{Unit: "app/0"})
				require.NoError(t, err)
				write(t, l, "1", "")
				long, cancel := context.WithTimeout(t.Context(), 2*max(lease, DefaultLease))
				defer cancel()
				_, err = l.Acquire(long, Holder{Unit: "app/1"}, doNotCare)
				require.ErrorIs(t, err, context.DeadlineExceeded)
				require.NoError(t, held.Release())
			})
		})
	}
}

// A claim that nobody renews, as of a holder that died.
func TestSilentHolder(t *testing.T) {
	const here = "here"
	tests := []struct {
		name    string
		record  record
		noFlock bool // flock fails
		locked  bool // somebody has the flock
		quick   bool
	}{
		{name: "this kernel, the same lock", record: record{Boot: here, Flock: 1}, quick: true},
		{name: "this kernel, another lock", record: record{Boot: here, Flock: 2}},
		{name: "another kernel", record: record{Boot: "another", Flock: 1}},
		{name: "without a lock", record: record{Boot: here}},
		{name: "no locks here", record: record{Boot: here, Flock: 1}, noFlock: true},
		{name: "asleep with the lock", record: record{Boot: here, Flock: 1}, locked: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLog(t)
				if tt.noFlock {
					withoutFlock(t, l)
				} else {
					held := locked(t, l)
					if tt.record.Flock == 1 {
						tt.record.Flock = held.inode()
					}
					if tt.locked {
						defer held.close()
					} else {
						held.close()
					}
				}
				if tt.record.Boot == here {
					tt.record.Boot = l.boot()
				}
				tt.record.Nonce, tt.record.LeaseMS = "x", 30_000
				write(t, l, "7", text(t, tt.record))
				start := time.Now()
				c, err := l.Acquire(t.Context(), Holder{Unit: "app/1"}, doNotCare)
				took := time.Since(start)
				require.NoError(t, err)
				require.Equal(t, 8, c.Generation())
				require.NoError(t, c.Release())
				if tt.quick {
					require.Zero(t, took)
				} else {
					require.GreaterOrEqual(t, took, 30*time.Second)
					require.LessOrEqual(t, took, 30*time.Second+observeMax)
				}
			})
		})
	}
}

// The lock of a holder that dies while others wait is noticed within seconds, if
// the holder is on this machine or its lock was seen to exclude.
func TestDeathWhileOthersWait(t *testing.T) {
	for _, boot := range []string{"here", "another"} {
		t.Run(boot, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLog(t)
				held := locked(t, l)
				if boot == "here" {
					boot = l.boot()
				}
				write(t, l, "7", text(t, record{Boot: boot, Flock: held.inode(), Nonce: "x", LeaseMS: maxLease.Milliseconds()}))
				time.AfterFunc(time.Minute, held.close)
				start := time.Now()
				c, err := l.Acquire(t.Context(), Holder{}, doNotCare)
				require.NoError(t, err)
				require.LessOrEqual(t, time.Since(start)-time.Minute, lockMax+2*waitMax)
				require.NoError(t, c.Release())
			})
		})
	}
}

// What two machines find out about their locks while one waits for the other.
func TestReportLockSemantics(t *testing.T) {
	for _, exclusive := range []bool{true, false} {
		t.Run(strconv.FormatBool(exclusive), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLog(t)
				var reports []bool
				l.ReportLockSemantics = func(exclusive bool) { reports = append(reports, exclusive) }
				held := locked(t, l)
				if exclusive {
					defer held.close()
				} else {
					held.close()
				}
				write(t, l, "7", text(t, record{Boot: "another", Flock: held.inode(), Nonce: "x", LeaseMS: 60_000}))
				if !exclusive {
					time.AfterFunc(30*time.Second, func() {
						require.Empty(t, reports, "the holder may be dead")
						write(t, l, "7.beat", "y")
					})
				}
				ctx, cancel := context.WithTimeout(t.Context(), 50*time.Second)
				defer cancel()
				_, err := l.Acquire(ctx, Holder{}, doNotCare)
				require.ErrorIs(t, err, context.DeadlineExceeded)
				require.Equal(t, []bool{exclusive}, reports)
			})
		})
	}
}

// A lock that is free although its holder may live tells nothing: it is tried again
// only when there is another reason to claim.
func TestFreeLockIsLeftAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLog(t)
		held := locked(t, l)
		held.close()
		write(t, l, "7", text(t, record{Boot: "another", Flock: held.inode(), Nonce: "x", LeaseMS: 60_000}))
		var steps []string
		l.Guard = func(step string) error { steps = append(steps, step); return nil }
		c, err := l.Acquire(t.Context(), Holder{}, doNotCare)
		require.NoError(t, err)
		require.Equal(t, []string{"lock", "lock", "claim"}, steps)
		require.NoError(t, c.Release())
	})
}

// A lock file that was removed is another lock: the next attempt is for the one
// that is there.
func TestLockFileIsRemoved(t *testing.T) {
	l := newLog(t)
	held := locked(t, l)
	waiting, outcome := l.tryLock(nil)
	require.Equal(t, refused, outcome)
	require.NoError(t, l.Root.Remove(l.lockPath()))
	write(t, l, "lock", "")
	held.close()
	waiting, outcome = l.tryLock(waiting)
	require.Equal(t, obtained, outcome)
	defer waiting.close()
	named, err := l.Root.Stat(l.lockPath())
	require.NoError(t, err)
	require.True(t, os.SameFile(named, waiting.info))
	// Nor is it obtained if somebody else has the lock of the one that is there.
	require.NoError(t, l.Root.Remove(l.lockPath()))
	write(t, l, "lock", "")
	other := locked(t, l)
	defer other.close()
	again, outcome := l.tryLock(waiting)
	defer again.close()
	require.Equal(t, refused, outcome)
}

// Where flock is known to be of no use it is not even tried.
func TestLockless(t *testing.T) {
	l := newLog(t)
	held := locked(t, l)
	defer held.close()
	_, err := l.Try(t.Context(), Holder{Unit: "app/0"})
	require.ErrorIs(t, err, ErrHeld)
	l.Lockless = true
	c, err := l.Try(t.Context(), Holder{Unit: "app/0"})
	require.NoError(t, err)
	require.NoError(t, c.Release())
}

func TestLostClaim(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLog(t)
		c, err := l.Try(t.Context(), Holder{Unit: "app/0"})
		require.NoError(t, err)
		require.NoError(t, c.Check())
		write(t, l, "2", `{"unit":"app/1"}`)
		require.ErrorIs(t, c.Check(), ErrFenced)
		require.ErrorContains(t, c.Check(), "app/1")
		start := time.Now()
		<-c.Lost()
		require.LessOrEqual(t, time.Since(start), l.Lease/4)
		require.NoError(t, c.Release())
	})
}

// Changes that are told are looked at at once, however long was waited.
func TestChangesWakeWaiters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLog(t)
		withoutFlock(t, l) // which may tell, too
		held, err := l.Try(t.Context(), Holder{Unit: "app/0"})
		require.NoError(t, err)
		changed := make(chan struct{}, 1)
		l.Changed = changed
		released := make(chan time.Time, 1)
		time.AfterFunc(time.Hour+time.Millisecond, func() {
			held.Release()
			released <- time.Now()
			changed <- struct{}{}
		})
		next, err := l.Acquire(t.Context(), Holder{Unit: "app/1"}, doNotCare)
		require.NoError(t, err)
		require.Zero(t, time.Since(<-released))
		require.NoError(t, next.Release())
	})
}

// Units that wait for different versions share the file that names the holder.
func TestNameOfTheHolder(t *testing.T) {
	me := Holder{Unit: "app/0", Version: "7.14.3"}
	for name, other := range map[string]Holder{
		"another version":    {Unit: "app/0", Version: "7.14.2", Generation: 1},
		"another generation": {Unit: "app/0", Version: "7.14.3", Generation: 2},
		"another unit":       {Unit: "app/1", Version: "7.14.3", Generation: 1},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLog(t)
			c, err := l.Try(t.Context(), me)
			require.NoError(t, err)
			writeName(l.Root, l.Name, other)
			require.NoError(t, c.Release())
			named, err := Read(l.Root, l.Name)
			require.NoError(t, err)
			require.Equal(t, other, named)
		})
	}
}

func TestLogLines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLog(t)
		var lines bytes.Buffer
		l.Logger = slog.New(slog.NewTextHandler(&lines, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.MessageKey {
				return a
			}
			return slog.Attr{}
		}}))
		expect := func(want ...string) {
			t.Helper()
			var got []string
			for line := range strings.Lines(lines.String()) {
				message, err := strconv.Unquote(strings.TrimPrefix(strings.TrimSpace(line), "msg="))
				require.NoError(t, err)
				got = append(got, message)
			}
			require.Equal(t, want, got)
			lines.Reset()
		}
		unit := func(n string) Holder { return Holder{Unit: "app/" + n, Version: "7.14.3"} }
		first, err := l.Try(t.Context(), unit("0"))
		require.NoError(t, err)
		expect("Acquired the download lock for v7.14.3 (generation 1)")

		time.AfterFunc(10*time.Minute, func() { first.Release() })
		second, err := l.Acquire(t.Context(), unit("1"), doNotCare)
		require.NoError(t, err)
		expect("Waiting for the download lock for v7.14.3, held by app/0",
			"Released the download lock for v7.14.3",
			"Acquired the download lock for v7.14.3 (generation 2)")

		second.freeze() // with its lock
		third, err := l.Acquire(t.Context(), unit("2"), doNotCare)
		require.NoError(t, err)
		expect("Waiting for the download lock for v7.14.3, held by app/1",
			"Took over the download lock for v7.14.3 from app/1: it was silent for 20s",
			"Acquired the download lock for v7.14.3 (generation 3)")

		second.lock.close()
		require.NoError(t, third.Release())
		expect("Released the download lock for v7.14.3")
	})
}

func TestLogLinesOfACollector(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLog(t)
		var lines bytes.Buffer
		l.Logger = slog.New(slog.NewTextHandler(&lines, nil))
		c, err := l.Try(t.Context(), Holder{Unit: "app/0"})
		require.NoError(t, err)
		c.die()
		c, err = l.Try(t.Context(), Holder{Unit: "app/1"})
		require.NoError(t, err)
		require.NoError(t, c.Release())
		for _, want := range []string{
			`"Acquired the download lock (generation 1)"`,
			`"Took over the download lock from app/0: its process has died"`,
			`"Released the download lock"`,
		} {
			require.Contains(t, lines.String(), want)
		}
	})
}

func TestManyContenders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLog(t)
		var inside, claims atomic.Int32
		var all sync.WaitGroup
		for range 32 {
			all.Go(func() {
				c, err := l.Acquire(t.Context(), Holder{}, doNotCare)
				if err != nil {
					t.Error(err)
					return
				}
				if inside.Add(1) > 1 {
					t.Error("two holders")
				}
				claims.Add(1)
				time.Sleep(2 * time.Second)
				inside.Add(-1)
				if err := c.Release(); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		require.EqualValues(t, 32, claims.Load())
	})
}

func BenchmarkClaim(b *testing.B) {
	l := newLog(b)
	var took []time.Duration
	for b.Loop() {
		start := time.Now()
		c, err := l.Try(context.Background(), Holder{Unit: "app/0"})
		require.NoError(b, err)
		took = append(took, time.Since(start))
		require.NoError(b, c.Release())
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms/claim")
	b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "p50-ms/claim")
}

package claim

import (
	"fmt"
	"math/rand/v2"
	"path"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/durable"
)

// What is not the name of a generation is no generation, and stays.
func TestNamesThatAreNoGenerations(t *testing.T) {
	for _, name := range []string{
		"99999999999999999999", "9223372036854775807", "9223372036854775806", "1000000000000000",
		"-1", "+5", "007", "0", "0x10", "1e3", "5 ", "٣", ".install", ".5", "lost+found", "5.beats",
	} {
		t.Run(name, func(t *testing.T) {
			l := newLog(t)
			write(t, l, name, `{"unit":"app/9","nonce":"x"}`)
			write(t, l, name+".beat", released)
			for want := range 2 * kept {
				c, err := l.Try(t.Context(), Holder{Unit: "app/0"})
				require.NoError(t, err)
				require.Equal(t, want+1, c.Generation())
				require.NoError(t, c.Check())
				_, err = l.Try(t.Context(), Holder{Unit: "app/1"})
				require.ErrorIs(t, err, ErrHeld)
				require.NoError(t, c.Release())
			}
			holder, err := l.Holder()
			require.NoError(t, err)
			require.Empty(t, holder.Unit)
		})
	}
}

func TestLastGeneration(t *testing.T) {
	l := newLog(t)
	write(t, l, fmt.Sprint(maxGeneration-1), "")
	write(t, l, fmt.Sprint(maxGeneration-1)+".beat", released)
	c, err := l.Try(t.Context(), Holder{Unit: "app/0"})
	require.NoError(t, err)
	require.Equal(t, maxGeneration, c.Generation())
	require.NoError(t, c.Check())
	_, err = l.Try(t.Context(), Holder{Unit: "app/1"})
	require.ErrorIs(t, err, ErrHeld)
	require.NoError(t, c.Release())
	_, err = l.Try(t.Context(), Holder{Unit: "app/1"})
	require.ErrorContains(t, err, "remove")
}

// damage makes one thing in the directory of claims be what it should not be.
func damage(t *testing.T, l Log, r *rand.Rand) string {
	name := []string{"1", "1.beat", ".1.beat", "lock", "2.beat", "3", "../.install.lock"}[r.IntN(7)]
	target := path.Join("claims", name)
	old, err := durable.ReadFile(l.Root, target)
	noise := make([]byte, r.IntN(8192))
	for i := range noise {
		noise[i] = byte(r.Uint32())
	}
	switch kind := r.IntN(5); {
	case kind == 0 && err == nil && len(old) > 0:
		cut := r.IntN(len(old))
		require.NoError(t, l.Root.WriteFile(target, old[:cut], 0o644))
		return fmt.Sprintf("%s is cut at %d", name, cut)
	case kind == 1 && err == nil && len(old) > 0:
		at := r.IntN(len(old))
		old[at] = byte(r.Uint32())
		require.NoError(t, l.Root.WriteFile(target, old, 0o644))
		return fmt.Sprintf("byte %d of %s is %q", at, name, old[at])
	case kind == 2:
		require.NoError(t, l.Root.RemoveAll(target))
		require.NoError(t, l.Root.MkdirAll(path.Join(target, "x"), 0o755))
		return name + " is a directory"
	case kind == 3:
		require.NoError(t, l.Root.RemoveAll(target))
		require.NoError(t, syscall.Mkfifo(filepath.Join(l.Root.Name(), target), 0o644))
		return name + " is a pipe"
	}
	require.NoError(t, l.Root.RemoveAll(target))
	require.NoError(t, l.Root.WriteFile(target, noise, 0o644))
	return name + " is noise"
}

// Whatever is damaged while a unit holds the claim: nobody panics, two units never
// both have the newest generation, and when the holder is gone others go on, at the
// latest when the longest lease has passed.
func TestDamagedLog(t *testing.T) {
	for seed := range uint64(100) {
		r := rand.New(rand.NewPCG(seed, 1))
		synctest.Test(t, func(t *testing.T) {
			l := newLog(t)
			l.Lockless = r.IntN(2) == 0
			first, err := l.Try(t.Context(), Holder{Unit: "app/0", Version: "7.14.3"})
			require.NoError(t, err)
			time.Sleep(l.Lease + time.Second) // there is a beat, and none is being written
			did := []string{damage(t, l, r), damage(t, l, r)}
			gone := r.IntN(2) == 0
			if gone {
				first.die()
			}
			start := time.Now()
			ended := make(chan struct{})
			time.AfterFunc(l.Lease, func() {
				defer close(ended)
				if !gone {
					require.NoError(t, first.Release(), "seed %d: %v", seed, did)
				}
			})
			second, err := l.Acquire(t.Context(), Holder{Unit: "app/1", Version: "7.14.3"}, doNotCare)
			require.NoError(t, err, "seed %d: %v", seed, did)
			if !gone {
				require.GreaterOrEqual(t, time.Since(start), l.Lease, "seed %d: %v: a holder that lived was robbed", seed, did)
			}
			require.LessOrEqual(t, time.Since(start), 2*maxLease, "seed %d: %v", seed, did)
			require.Greater(t, second.Generation(), first.Generation(), "seed %d: %v", seed, did)
			require.ErrorIs(t, first.Check(), ErrFenced, "seed %d: %v", seed, did)
			require.NoError(t, second.Check(), "seed %d: %v", seed, did)
			if _, err := l.Holder(); err != nil {
				t.Errorf("seed %d: %v: %v", seed, did, err)
			}
			_, _ = Read(l.Root, l.Name)
			require.NoError(t, second.Release(), "seed %d: %v", seed, did)
			<-ended
		})
	}
}

// A claim cut at any byte is one that nothing is known of, or the whole one.
func TestClaimCutAtEachByte(t *testing.T) {
	l := newLog(t)
	whole := text(t, record{Holder: Holder{Unit: "app/0", Generation: 7}, Nonce: "x", LeaseMS: 600_000, Boot: Boot(), Flock: 1})
	for n := range len(whole) + 1 {
		write(t, l, "7", whole[:n])
		g, err := l.open()
		require.NoError(t, err)
		r, err := g.read(7)
		require.NoError(t, err)
		g.Close()
		if n == len(whole) {
			require.Equal(t, "app/0", r.Unit)
			require.Equal(t, 10*time.Minute, r.lease())
			return
		}
		require.Equal(t, record{Holder: Holder{Generation: 7}}, r)
		require.Equal(t, DefaultLease, r.lease())
	}
}

func TestRubbishInTheNameFile(t *testing.T) {
	for _, rubbish := range []string{`{"unit":"conc`, "", "\x00\xff", strings.Repeat("[", 1<<20), strings.Repeat("x", 1000)} {
		l := newLog(t)
		require.NoError(t, l.Root.WriteFile(l.Name, []byte(rubbish), 0o644))
		_, err := Read(l.Root, l.Name)
		require.Error(t, err)
		c, err := l.Try(t.Context(), Holder{Unit: "app/0"})
		require.NoError(t, err)
		named, err := Read(l.Root, l.Name)
		require.NoError(t, err)
		require.Equal(t, "app/0", named.Unit)
		require.NoError(t, c.Release())
	}
}

// Who slept since it looked may get the number of a claim that was pruned.
func TestLogStaysShortAndItsNumbersUnused(t *testing.T) {
	l := newLog(t)
	for range 3 * kept {
		c, err := l.Try(t.Context(), Holder{})
		require.NoError(t, err)
		require.NoError(t, c.Release())
	}
	names, err := durable.Names(l.Root, l.Dir)
	require.NoError(t, err)
	require.LessOrEqual(t, len(names), 2*kept+1)
	require.Contains(t, names, "lock")

	l.Guard = func(step string) error {
		if step != "claim" {
			return nil
		}
		// Asleep between look and link.
		l.Guard = func(string) error { return nil }
		for _, name := range names {
			if name != "lock" {
				require.NoError(t, l.Root.Rename(path.Join(l.Dir, name), path.Join(l.Dir, "5"+name)))
			}
		}
		return nil
	}
	sleeper := l.contender(Holder{})
	defer sleeper.close()
	_, _, err = sleeper.attempt(t.Context(), evidence{}, false)
	require.ErrorIs(t, err, ErrHeld)
	c, err := l.Try(t.Context(), Holder{})
	require.NoError(t, err)
	require.Greater(t, c.Generation(), 500)
	require.NoError(t, c.Release())
}

// Who sleeps while it waits, until the claim that it watched is pruned, waits for
// the newest one.
func TestWatchedClaimIsPruned(t *testing.T) {
	l := newLog(t)
	write(t, l, "1", `{"unit":"app/0","nonce":"x"}`)
	s := l.contender(Holder{})
	defer s.close()
	o, err := s.lookAtAll(evidence{})
	require.NoError(t, err)
	e := evidence{}.with(o)
	require.Equal(t, 1, e.generation)
	require.NoError(t, l.Root.Remove("claims/1"))
	write(t, l, "30", `{"unit":"app/3","nonce":"x"}`)
	o, err = s.look(e)
	require.NoError(t, err)
	require.Equal(t, 30, o.generation)
	require.Equal(t, "app/3", o.record.Unit)
}

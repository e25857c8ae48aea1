package claim

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const here, elsewhere = "this kernel", "another kernel"

// see is an observation after that many seconds.
func see(seconds float64, generation int, sign string, change ...func(*observation)) observation {
	o := observation{at: time.Time{}.Add(time.Hour + time.Duration(seconds*float64(time.Second))), generation: generation, sign: sign}
	if generation > 0 {
		o.record = record{Nonce: "nonce", LeaseMS: 20_000, Boot: elsewhere, Flock: 7}
	}
	for _, f := range change {
		f(&o)
	}
	return o
}

func gets(inode uint64) func(*observation) {
	return func(o *observation) { o.lock, o.inode = obtained, inode }
}

func lockedOut(o *observation) { o.lock = refused }

func by(boot string, flock uint64) func(*observation) {
	return func(o *observation) { o.record.Boot, o.record.Flock = boot, flock }
}

func leaseOf(d time.Duration) func(*observation) {
	return func(o *observation) { o.record.LeaseMS = d.Milliseconds() }
}

func TestJudge(t *testing.T) {
	// Four looks, a quarter of a lease apart, and one more.
	watched := func(sign string, change ...func(*observation)) []observation {
		var all []observation
		for i := range 5 {
			all = append(all, see(float64(5*i), 3, sign, change...))
		}
		return all
	}
	for _, tt := range []struct {
		name string
		seen []observation
		want verdict
	}{
		{"no claim", []observation{see(0, 0, "")}, vacant},
		{"no claim, but somebody has the lock", []observation{see(0, 0, "", lockedOut)}, held},
		{"released", []observation{see(0, 3, "a"), see(1, 3, released)}, vacant},
		{"released, but somebody has the lock", []observation{see(0, 3, released, lockedOut)}, held},
		{"somebody has the lock and does not claim", watched(released, lockedOut), silent},
		{"held", []observation{see(0, 3, "a")}, held},
		{"another holder after a silent one", append(watched("a")[:4], see(20, 4, "a")), held},
		{"a lease of silence", watched("a"), silent},
		{"almost a lease of silence", append(watched("a")[:4], see(19.9, 3, "a")), held},
		{"a sign of life at the end of a lease", append(watched("a")[:4], see(20, 3, "b")), held},
		{"asleep for an hour", []observation{see(0, 3, "a"), see(3600, 3, "a"), see(3601, 3, "a")}, held},
		{"a longer lease", watched("a", leaseOf(time.Minute)), held},
		{"a shorter lease", watched("a", leaseOf(4*time.Second))[:2], held},
		{"a shorter lease, to its end", watched("a", leaseOf(4*time.Second)), silent},
		{"no record", watched("", leaseOf(0)), silent},
		{"the holder's lock, one kernel", []observation{see(0, 3, "a", by(here, 7), gets(7))}, died},
		{"another lock, one kernel", []observation{see(0, 3, "a", by(here, 7), gets(8))}, held},
		{"a holder without lock, one kernel", []observation{see(0, 3, "a", by(here, 0), gets(8))}, held},
		{"no lock at all, one kernel", []observation{see(0, 3, "a", by(here, 0))}, held},
		{"the holder's lock, another kernel", []observation{see(0, 3, "a", gets(7))}, held},
		{"kernels unknown", []observation{see(0, 3, "a", by("", 7), gets(7))}, held},
		{"often refused, then the holder's lock", []observation{
			see(0, 3, "a", lockedOut), see(1, 3, "a", lockedOut), see(2, 3, "a", lockedOut), see(3, 3, "a", lockedOut), see(4, 3, "a", gets(7)),
		}, died},
		{"refused as often as contenders do, then the holder's lock", []observation{
			see(0, 3, "a", lockedOut), see(1, 3, "a", lockedOut), see(2, 3, "a", lockedOut), see(3, 3, "a", gets(7)),
		}, held},
		{"often refused by the holder before", []observation{
			see(0, 3, "a", lockedOut), see(1, 3, "a", lockedOut), see(2, 3, "a", lockedOut), see(3, 3, "a", lockedOut), see(4, 4, "a", gets(7)),
		}, held},
		{"often refused, but not since it got the lock", []observation{
			see(0, 3, "a", lockedOut), see(1, 3, "a", lockedOut), see(2, 3, "a", lockedOut), see(3, 3, "b", lockedOut), see(4, 3, "b", gets(8)), see(5, 3, "b", gets(7)),
		}, held},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := evidence{patience: DefaultLease}
			for _, o := range tt.seen {
				e = e.with(o)
			}
			require.Equal(t, tt.want, e.judge(here), "%+v", e)
		})
	}
}

func TestLockSemantics(t *testing.T) {
	refusals := []observation{see(0, 3, "a", lockedOut), see(1, 3, "a", lockedOut), see(2, 3, "b", lockedOut), see(3, 3, "b", lockedOut)}
	for _, tt := range []struct {
		name             string
		seen             []observation
		exclusive, known bool
	}{
		{name: "the lock of a holder that may be dead", seen: []observation{see(0, 3, "a", gets(7))}},
		{name: "the lock of a holder that lived on", seen: []observation{see(0, 3, "a", gets(7)), see(1, 3, "b")}, known: true},
		{name: "the lock of a holder that gave up", seen: []observation{see(0, 3, "a", gets(7)), see(1, 3, released)}},
		{name: "the lock of a holder before", seen: []observation{see(0, 3, "a", gets(7)), see(1, 4, "b")}},
		{name: "another lock", seen: []observation{see(0, 3, "a", gets(8)), see(1, 3, "b")}},
		{name: "refused for some time", seen: refusals, exclusive: true, known: true},
		{name: "refused a few times", seen: refusals[:3]},
		{name: "one kernel", seen: []observation{see(0, 3, "a", by(here, 7), gets(7)), see(1, 3, "b", by(here, 7))}},
		{name: "one of the kernels unknown", seen: []observation{see(0, 3, "a", by("", 7), gets(7)), see(1, 3, "b", by("", 7))}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var e evidence
			for _, o := range tt.seen {
				e = e.with(o)
			}
			exclusive, known := e.lockSemantics(here)
			require.Equal(t, tt.known, known)
			require.Equal(t, tt.exclusive, exclusive)
		})
	}
}

func TestRecordedLeases(t *testing.T) {
	for ms, want := range map[int64]time.Duration{
		0: DefaultLease, -1: DefaultLease, 1: DefaultLease, 49: DefaultLease, math.MinInt64: DefaultLease, math.MinInt64/1_000_000 - 1: DefaultLease,
		50: 50 * time.Millisecond, 1000: time.Second, 600_000: 10 * time.Minute,
		600_001: maxLease, math.MaxInt64: maxLease, math.MaxInt64/1_000_000 + 1: maxLease,
	} {
		require.Equal(t, want, record{LeaseMS: ms}.lease(), "%d ms", ms)
	}
}

// Whatever the leases, the pauses between looks and the naps of the contender: a
// holder that gives a sign of life within its lease is never taken for dead, and
// one that is dead is as soon as it was watched for a lease.
func TestRandomHistories(t *testing.T) {
	for seed := range uint64(5000) {
		r := rand.New(rand.NewPCG(seed, 0))
		upTo := func(d time.Duration) time.Duration { return time.Duration(r.Int64N(int64(d))) }
		lease := minLease + upTo(maxLease).Round(time.Millisecond)
		now, dies := time.Duration(0), 2*lease+upTo(3*lease)
		nextBeat, sign := upTo(lease), 0
		e := evidence{patience: minLease + upTo(maxLease)}.with(see(0, 3, "\x01", leaseOf(lease)))
		var since time.Duration // when the contender saw the last sign for the first time
		for e.judge(here) == held {
			pause := upTo(lease / 8)
			if r.IntN(10) == 0 {
				pause = upTo(2 * lease) // a nap
			}
			if now >= dies {
				pause = lease/8 - 1
			}
			now += pause
			for ; nextBeat <= now && nextBeat < dies; nextBeat += 1 + upTo(lease-1) {
				sign++
			}
			before := e.sign
			e = e.with(see(now.Seconds(), 3, string(rune(sign+1)), leaseOf(lease)))
			if e.sign != before {
				since = now
			}
			if now < dies {
				require.NotEqual(t, silent, e.judge(here), "seed %d: robbed after %v of a lease of %v", seed, e.silent, lease)
			}
			require.LessOrEqual(t, now-dies, lease*10/8+2*lease, "seed %d: the dead holder of a lease of %v is waited for", seed, lease)
		}
		require.Equal(t, silent, e.judge(here))
		require.GreaterOrEqual(t, now-since, lease-time.Millisecond, "seed %d", seed)
	}
}

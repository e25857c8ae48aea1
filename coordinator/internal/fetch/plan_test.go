package fetch

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

func newPlan(size, chunk int64, connections int) *plan {
	p := &plan{size: size, chunk: chunk, claims: map[int]span{}}
	for i := range connections {
		p.giveBack(i + 1)
	}
	return p
}

func TestSpansAreJoined(t *testing.T) {
	var s spans
	for _, step := range []struct {
		add  span
		want spans
	}{
		{span{10, 20}, spans{{10, 20}}},
		{span{30, 40}, spans{{10, 20}, {30, 40}}},
		{span{0, 5}, spans{{0, 5}, {10, 20}, {30, 40}}},
		{span{5, 7}, spans{{0, 7}, {10, 20}, {30, 40}}},
		{span{25, 30}, spans{{0, 7}, {10, 20}, {25, 40}}},
		{span{6, 30}, spans{{0, 40}}},
	} {
		before := slices.Clone(s)
		next := s.add(step.add)
		require.Equal(t, step.want, next)
		require.Equal(t, before, slices.Clone(s), "the journal may be writing it")
		require.True(t, next.within(40))
		require.False(t, next.within(next[len(next)-1].End-1))
		s = next
	}
	require.EqualValues(t, 40, s.bytes())
	require.EqualValues(t, 40, s.prefix())
}

// Nothing is set aside for what a server announces, and nothing overflows.
func TestHugeSizes(t *testing.T) {
	for _, tt := range []struct{ size, chunk, first, second int64 }{
		{1, 10, 1, 0}, {10, 10, 10, 0}, {11, 10, 10, 1},
		{math.MaxInt64, math.MaxInt64, math.MaxInt64, 0},
		{math.MaxInt64, 1 << 62, 1 << 62, math.MaxInt64 - 1<<62},
		{math.MaxInt64, 1, 1, 1},
	} {
		p := newPlan(tt.size, tt.chunk, 2)
		claim := p.next(1, false)
		require.Equal(t, span{0, tt.first}, claim, "%+v", tt)
		claim = p.next(2, false)
		require.Equal(t, tt.second, claim.End-claim.Start, "%+v", tt)
	}
}

func TestUnknownSize(t *testing.T) {
	p := newPlan(0, 10, 1)
	require.Equal(t, span{0, 10}, p.next(1, true))
	p.There = p.There.add(span{0, 10})
	require.EqualValues(t, 10, p.There.prefix())
	require.False(t, p.complete(), "nobody knows where it ends")
	require.Equal(t, span{10, 20}, p.claim(1, 10), "its end is still to be found")
	p.There = p.There.add(span{10, 15})
	p.size = 15
	require.True(t, p.complete())
}

func TestWhoFetchesWhat(t *testing.T) {
	p := newPlan(40, 10, 3)
	require.Equal(t, span{0, 10}, p.next(1, false))
	require.Equal(t, span{10, 20}, p.next(2, false))
	p.There = p.There.add(span{10, 20})
	require.Equal(t, span{20, 30}, p.next(2, false))
	require.EqualValues(t, 0, p.There.prefix(), "what is before it is not there")
	p.There = p.There.add(span{0, 3})
	require.EqualValues(t, 3, p.There.prefix())
	require.Equal(t, span{0, 10}, p.claim(1, 3), "what it has claimed")
	require.Equal(t, span{30, 40}, p.claim(3, 0), "others have what is before it")
	require.Equal(t, span{30, 40}, p.claim(3, 25), "not yet there")
	require.Equal(t, span{}, p.claim(1, 10), "others have all that is behind it")
	require.Equal(t, span{3, 10}, p.next(1, false), "what it has given back")
	// The server turns out to answer no ranges: one connection is enough.
	require.Equal(t, span{}, p.next(3, true))
	require.Equal(t, span{}, p.next(2, true))
	require.Len(t, p.claims, 1)
	p.There = p.There.add(span{3, 5})
	require.Equal(t, span{5, 10}, p.next(1, true))
	require.Equal(t, span{20, 30}, p.claim(1, 10), "what the others have begun is given back")
	p.There = p.There.add(span{5, 10})
	require.EqualValues(t, 20, p.There.prefix())
}

// TestPlanKeepsBytesInPlace plays connections that receive parts of what they
// asked for, or the whole archive, that break off and are slow to write, in any
// order. A bit for each byte is what the plan is held to.
func TestPlanKeepsBytesInPlace(t *testing.T) {
	for seed := range uint64(2000) {
		if problem := playPlan(rand.New(rand.NewPCG(seed, 1))); problem != "" {
			t.Fatalf("seed %d: %s", seed, problem)
		}
	}
}

type player struct {
	pos, end int64 // of the answer that it reads; none if they are equal
	left     bool
	writes   span // what it is about to write
}

func playPlan(r *rand.Rand) string {
	size, chunk := 1+r.Int64N(60), 1+r.Int64N(20)
	there := make([]bool, size)
	players := make([]player, 1+r.IntN(4))
	p := newPlan(size, chunk, len(players))
	sequential := false
	for step := 0; len(p.claims) > 0; step++ {
		if step > 100_000 {
			return "it does not end"
		}
		id := r.IntN(len(players))
		me := &players[id]
		switch {
		case me.left:
		case me.writes != span{}:
			for i := me.writes.Start; i < me.writes.End; i++ {
				if there[i] {
					return fmt.Sprintf("byte %d is written twice", i)
				}
				there[i] = true
			}
			p.There = p.There.add(me.writes)
			me.pos, me.writes = me.writes.End, span{}
		case me.pos < me.end && r.IntN(10) == 0: // breaks off
			p.giveBack(id + 1)
			me.pos = me.end
		case me.pos < me.end:
			claim := p.claim(id+1, me.pos)
			switch {
			case claim.empty():
				me.pos = me.end
			case me.pos < claim.Start:
				me.pos += 1 + r.Int64N(min(claim.Start, me.end)-me.pos)
			default:
				me.writes = span{me.pos, me.pos + 1 + r.Int64N(min(claim.End, me.end)-me.pos)}
			}
		default:
			sequential = sequential || r.IntN(20) == 0
			claim := p.next(id+1, sequential)
			if me.left = claim.empty(); !me.left {
				if me.pos, me.end = claim.Start, claim.End; sequential || r.IntN(10) == 0 {
					me.pos, me.end = 0, size
				}
			}
		}
		prefix, present := int64(0), int64(0)
		for i, is := range there {
			if is && int64(i) == prefix {
				prefix++
			}
			if is {
				present++
			}
		}
		if p.There.prefix() != prefix || p.There.bytes() != present || !p.There.within(size) {
			return fmt.Sprintf("says %v, but prefix is %d and present are %d", p.There, prefix, present)
		}
	}
	if !p.complete() {
		return fmt.Sprintf("all have left with %v of %d bytes", p.There, size)
	}
	return ""
}

package fetch

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestChunks(t *testing.T) {
	for _, tt := range []struct {
		size, length int64
		chunks       int
		last         int64 // length of the last one
	}{
		{1, 10, 1, 1}, {10, 10, 1, 10}, {11, 10, 2, 1}, {100, 1, 100, 1},
		{math.MaxInt64, math.MaxInt64, 1, math.MaxInt64},
		{math.MaxInt64, 1 << 62, 2, math.MaxInt64 - 1<<62},
		{math.MaxInt64, 1, maxChunks, 1<<43 - 1}, // longer ones than asked for
	} {
		p := newPlan(tt.size, tt.length)
		require.Len(t, p.chunks, tt.chunks, "%+v", tt)
		start, end := p.bounds(len(p.chunks) - 1)
		require.Equal(t, tt.size, end, "%+v", tt)
		require.Equal(t, tt.last, end-start, "%+v", tt)
	}
}

func TestUnknownSize(t *testing.T) {
	p := newPlan(0, 10)
	p.working = 1
	i, ok := p.next(1, true)
	require.True(t, ok)
	p.add(i, 25)
	require.EqualValues(t, 25, p.prefix())
	require.False(t, p.complete(), "nobody knows where it ends")
	u := p.useOf(25, 1)
	require.True(t, u.write)
	require.False(t, p.useOf(30, 1).write, "it would leave a gap")
	require.False(t, p.useOf(30, 1).stop, "its end is still to be found")
	p.end(25)
	require.True(t, p.complete())
	require.EqualValues(t, 25, p.prefix())
}

func TestWhoFetchesWhat(t *testing.T) {
	p := newPlan(40, 10)
	p.working = 3
	next := func(connection int, oneIsEnough bool) int {
		i, ok := p.next(connection, oneIsEnough)
		if !ok {
			return -1
		}
		return i
	}
	require.Equal(t, 0, next(1, false))
	require.Equal(t, 1, next(2, false))
	p.add(1, 10)
	require.Equal(t, 2, next(2, false))
	require.EqualValues(t, 0, p.prefix(), "the first chunk is not there")
	p.add(0, 3)
	require.EqualValues(t, 3, p.prefix())
	require.Equal(t, use{chunk: 0, end: 10, write: true}, p.useOf(2, 1), "bytes that are there, and behind them some that are not")
	require.Equal(t, use{chunk: 0, end: 10}, p.useOf(4, 1), "a gap")
	require.Equal(t, use{chunk: 0, end: 10, stop: false}, p.useOf(0, 2), "another connection has them; behind are some that nobody has")
	require.Equal(t, use{chunk: 2, end: 30, stop: false}, p.useOf(20, 3))
	require.Equal(t, 3, next(3, false))
	require.Equal(t, use{chunk: 2, end: 30, stop: true}, p.useOf(20, 1))
	// The server turns out to answer no ranges: one connection is enough.
	require.Equal(t, -1, next(3, true))
	require.Equal(t, -1, next(2, true))
	require.Equal(t, 1, p.working)
	require.Equal(t, 0, next(1, true), "what the others have begun is given back")
	p.add(0, 7)
	require.EqualValues(t, 20, p.prefix())
	require.Equal(t, 2, next(1, true))
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
	writes   bool // n bytes from pos on, to a chunk of which so much was there when it began
	chunk    int
	n, have  int64
}

func playPlan(r *rand.Rand) string {
	size, length := 1+r.Int64N(60), 1+r.Int64N(20)
	p := newPlan(size, length)
	there := make([]bool, size)
	players := make([]player, 1+r.IntN(4))
	p.working = len(players)
	sequential := false
	for step := 0; p.working > 0; step++ {
		if step > 100_000 {
			return "it does not end"
		}
		id := r.IntN(len(players))
		me := &players[id]
		switch {
		case me.left:
		case me.writes:
			me.writes = false
			have, end := p.missing(me.chunk)
			if me.pos > have || me.pos+me.n > end || have != me.have {
				return fmt.Sprintf("writes %d+%d where %d, then %d to %d are missing", me.pos, me.n, me.have, have, end)
			}
			fresh := max(0, me.pos+me.n-have)
			for i := have; i < have+fresh; i++ {
				if there[i] {
					return fmt.Sprintf("byte %d is written twice", i)
				}
				there[i] = true
			}
			p.add(me.chunk, fresh)
			me.pos += me.n
		case me.pos < me.end && r.IntN(10) == 0: // breaks off
			p.giveBack(id + 1)
			me.pos = me.end
		case me.pos < me.end:
			u := p.useOf(me.pos, id+1)
			if u.stop {
				me.pos = me.end
				break
			}
			me.n = 1 + r.Int64N(min(u.end, me.end)-me.pos)
			if me.writes, me.chunk = u.write, u.chunk; !u.write {
				me.pos += me.n
			}
			me.have, _ = p.missing(u.chunk)
		default:
			sequential = sequential || r.IntN(20) == 0
			i, ok := p.next(id+1, sequential)
			if me.left = !ok; ok {
				if me.pos, me.end = p.missing(i); sequential || r.IntN(10) == 0 {
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
		if p.prefix() != prefix || p.present != present {
			return fmt.Sprintf("says %d and %d, but prefix is %d and present are %d", p.prefix(), p.present, prefix, present)
		}
	}
	if !p.complete() || p.present != size {
		return fmt.Sprintf("all have left with %d of %d bytes", p.present, size)
	}
	return ""
}

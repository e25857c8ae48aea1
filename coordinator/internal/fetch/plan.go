package fetch

import (
	"cmp"
	"math"
	"slices"
)

// span is a part of an archive.
type span struct {
	Start int64 `json:"start"`
	End   int64 `json:"end"` // the byte behind the last one
}

func (s span) empty() bool { return s.Start == s.End }

// spans are in order, and apart.
type spans []span

// add returns the spans with one more, joined where they meet.
func (s spans) add(more span) spans {
	all := append(slices.Clip(s), more)
	slices.SortFunc(all, func(a, b span) int { return cmp.Compare(a.Start, b.Start) })
	joined := all[:1]
	for _, t := range all[1:] {
		if last := &joined[len(joined)-1]; t.Start <= last.End {
			last.End = max(last.End, t.End)
		} else {
			joined = append(joined, t)
		}
	}
	return joined
}

// within tells whether they are what they must be, and end at a limit.
func (s spans) within(limit int64) bool {
	end := int64(-1)
	for _, t := range s {
		if t.Start <= end || t.End <= t.Start || t.End > limit {
			return false
		}
		end = t.End
	}
	return true
}

func (s spans) bytes() (n int64) {
	for _, t := range s {
		n += t.End - t.Start
	}
	return n
}

// prefix returns how many bytes there are without a gap.
func (s spans) prefix() int64 {
	if len(s) == 0 || s[0].Start > 0 {
		return 0
	}
	return s[0].End
}

// plan says which bytes of an archive are there, and which connection fetches
// which of the others. It does no I/O and knows no locks.
type plan struct {
	state
	size   int64        // of the archive; 0 while unknown
	chunk  int64        // bytes that a connection claims at a time
	claims map[int]span // of the connections that have not left
}

func (p *plan) complete() bool { return p.size > 0 && p.There.prefix() == p.size }

// next claims the first bytes that nobody fetches. A connection that gets none has
// left. Where one is enough, all but the last one leave.
func (p *plan) next(connection int, oneIsEnough bool) (claim span) {
	p.giveBack(connection)
	if !oneIsEnough || len(p.claims) == 1 {
		claim = p.claim(connection, 0)
	}
	if claim.empty() {
		delete(p.claims, connection)
	}
	return claim
}

// giveBack lets others fetch what a connection has begun.
func (p *plan) giveBack(connection int) { p.claims[connection] = span{} }

// claim returns what of the bytes from pos on a connection fetches: what it has
// claimed, and once that is behind it the first that are neither there nor claimed.
// There may be none.
func (p *plan) claim(connection int, pos int64) span {
	if claim := p.claims[connection]; pos < claim.End {
		return claim
	}
	p.giveBack(connection)
	end, taken := cmp.Or(p.size, math.MaxInt64), p.There
	for _, c := range p.claims {
		taken = taken.add(c)
	}
	for _, t := range taken {
		if t.Start > pos {
			end = min(end, t.Start)
		} else {
			pos = max(pos, t.End)
		}
	}
	if pos < end {
		p.claims[connection] = span{pos, pos + min(p.chunk, end-pos)}
	}
	return p.claims[connection]
}

package fetch

import "math"

// maxChunks bounds what a size that a server or a journal states can cost: 24
// MiB. Chunks of larger archives are longer than was asked for.
const maxChunks = 1 << 20

// plan says which bytes of an archive are there, and which connection fetches
// which of the others. It does no I/O and knows no locks.
type plan struct {
	size    int64 // of the archive; 0 while unknown: then it is one chunk
	length  int64 // of each chunk but the last
	chunks  []chunk
	lead    int   // first chunk that is not complete
	present int64 // bytes that are there
	working int   // connections that have not left
}

type chunk struct {
	got   int64 // bytes from its start that are there
	noted int64 // of which the journal knows
	owner int   // connection that fetches it; 0 if none does
}

// newPlan cuts an archive into chunks. A size of 0 is unknown.
func newPlan(size, length int64) plan {
	if size == 0 {
		return plan{length: length, chunks: make([]chunk, 1)}
	}
	length = max(length, (size-1)/maxChunks+1)
	return plan{size: size, length: length, chunks: make([]chunk, (size-1)/length+1)}
}

// bounds returns where a chunk starts and ends.
func (p *plan) bounds(i int) (start, end int64) {
	if p.size == 0 {
		return 0, math.MaxInt64
	}
	start = int64(i) * p.length
	return start, start + min(p.length, p.size-start)
}

// missing returns which bytes of a chunk are not there.
func (p *plan) missing(i int) (start, end int64) {
	start, end = p.bounds(i)
	return start + p.chunks[i].got, end
}

func (p *plan) has(i int) bool {
	start, end := p.missing(i)
	return start == end
}

func (p *plan) complete() bool { return p.lead == len(p.chunks) }

// prefix returns how many bytes are there without a gap.
func (p *plan) prefix() int64 {
	if p.complete() {
		return p.size
	}
	start, _ := p.missing(p.lead)
	return start
}

// add notes that n more bytes of a chunk are there.
func (p *plan) add(i int, n int64) {
	p.chunks[i].got += n
	p.present += n
	if p.has(i) {
		p.chunks[i].owner = 0
	}
	for !p.complete() && p.has(p.lead) {
		p.lead++
	}
}

// end says how long an archive of unknown size turned out to be.
func (p *plan) end(size int64) {
	p.size, p.length = size, size
	p.add(0, 0)
}

// claim gives a chunk to a connection, unless it is complete or another has it.
func (p *plan) claim(i, connection int) bool {
	c := &p.chunks[i]
	if p.has(i) || c.owner != 0 && c.owner != connection {
		return false
	}
	c.owner = connection
	return true
}

// next claims the first chunk that nobody fetches. A connection that gets none
// has left. Where one is enough, all but the last one leave.
func (p *plan) next(connection int, oneIsEnough bool) (i int, ok bool) {
	if !oneIsEnough || p.working == 1 {
		for i := p.lead; i < len(p.chunks); i++ {
			if p.claim(i, connection) {
				return i, true
			}
		}
	}
	p.giveBack(connection)
	p.working--
	return 0, false
}

// giveBack lets others fetch what a connection has begun.
func (p *plan) giveBack(connection int) {
	for i := range p.chunks {
		if p.chunks[i].owner == connection {
			p.chunks[i].owner = 0
		}
	}
}

// use is what the next bytes that a connection receives are good for.
type use struct {
	chunk int
	end   int64 // of the bytes that this is true of
	write bool  // the connection writes them
	stop  bool  // neither these bytes nor any behind them are of use
}

// useOf tells what the bytes from pos on are good for. They are written where
// they join what is there, and where no other connection writes.
func (p *plan) useOf(pos int64, connection int) use {
	u := use{}
	if p.size > 0 {
		u.chunk = int(pos / p.length)
	}
	var have int64
	have, u.end = p.missing(u.chunk)
	u.write = pos <= have && p.claim(u.chunk, connection)
	u.stop = !u.write && !p.wanted(u.chunk+1, connection) && p.size > 0
	return u
}

// wanted tells whether chunk i, or one behind it, is still to be fetched by a
// connection.
func (p *plan) wanted(i, connection int) bool {
	for ; i < len(p.chunks); i++ {
		if c := p.chunks[i]; !p.has(i) && (c.owner == 0 || c.owner == connection) {
			return true
		}
	}
	return false
}

package fetch

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
)

// partial is the file of an archive while it grows: connections write to it in
// any order, readers follow the prefix that is complete. It is safe for
// concurrent use.
type partial struct {
	file    *os.File
	journal *journal      // nil while the size is unknown
	dirty   chan struct{} // there is something to sync
	moved   atomic.Int64  // bytes received
	fresh   atomic.Int64  // of which were not there already

	mu    sync.Mutex
	grown sync.Cond
	plan  plan
	sums  map[string]string // of the whole, once it is there and hashed
	err   error             // why there will be no sums
}

func newPartial(p plan) *partial {
	f := &partial{plan: p, dirty: make(chan struct{}, 1)}
	f.grown.L = &f.mu
	return f
}

// locked calls f with the plan.
func (f *partial) locked(use func(p *plan)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	use(&f.plan)
}

// fail ends what waits for more. Of several errors the first one counts.
func (f *partial) fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err == nil && f.sums == nil {
		f.err = err
	}
	f.grown.Broadcast()
}

// finish says that the whole archive is there, with these digests.
func (f *partial) finish(sums map[string]string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.sums = sums
	f.grown.Broadcast()
}

// wait returns the digests of the whole archive.
func (f *partial) wait() (map[string]string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for f.sums == nil && f.err == nil {
		f.grown.Wait()
	}
	return f.sums, f.err
}

// next gives a connection something to fetch, or lets it go.
func (f *partial) next(connection int, oneIsEnough bool) (start, end int64, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return 0, 0, false
	}
	i, ok := f.plan.next(connection, oneIsEnough)
	if ok {
		start, end = f.plan.missing(i)
	}
	return start, end, ok
}

// write puts bytes at their place in a chunk, but for those that are there, and
// tells how many those were. After fail it writes nothing.
func (f *partial) write(i int, pos int64, p []byte) (fresh int64, err error) {
	f.mu.Lock()
	have, _ := f.plan.missing(i)
	err = f.err
	f.mu.Unlock()
	if err != nil {
		return 0, err
	}
	if pos > have {
		return 0, errors.New("bytes before it are missing")
	}
	p = p[min(have-pos, int64(len(p))):]
	if len(p) == 0 {
		return 0, nil
	}
	if _, err := f.file.WriteAt(p, have); err != nil {
		return 0, fmt.Errorf("cannot write the partial archive: %w", err)
	}
	return int64(len(p)), f.add(i, int64(len(p)))
}

// add tells the readers, and now and then the journal, that a chunk has grown.
func (f *partial) add(i int, n int64) error {
	f.fresh.Add(n)
	f.mu.Lock()
	f.plan.add(i, n)
	c := &f.plan.chunks[i]
	got := c.got
	note := f.journal != nil && (f.plan.has(i) || got-c.noted >= min(noteEvery, f.plan.length))
	if note {
		c.noted = got
	}
	if f.plan.lead >= i {
		f.grown.Broadcast()
	}
	f.mu.Unlock()
	if !note {
		return nil
	}
	f.touch()
	return f.journal.append(record{Chunk: i, Got: got})
}

// noteTo has the journal know of all bytes below pos, which are there.
func (f *partial) noteTo(pos int64) error {
	f.mu.Lock()
	var r record
	if p := &f.plan; !p.complete() {
		start, _ := p.bounds(p.lead)
		if c := &p.chunks[p.lead]; pos > start+c.noted {
			c.noted = c.got
			r = record{Chunk: p.lead, Got: c.got}
		}
	}
	f.mu.Unlock()
	if r.Got == 0 {
		return nil
	}
	return f.journal.append(r)
}

// touch says that there is something to sync.
func (f *partial) touch() {
	select {
	case f.dirty <- struct{}{}:
	default:
	}
}

// end is what an answer without a length finds out.
func (f *partial) end(size int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.plan.end(size)
	f.grown.Broadcast()
}

// reader reads the archive from some byte on, waiting for what is not there yet.
type reader struct {
	partial *partial
	pos     int64
}

func (r *reader) Read(p []byte) (int, error) {
	end, err := r.partial.prefixBehind(r.pos)
	if err != nil {
		return 0, err
	}
	n, err := r.partial.file.ReadAt(p[:min(int64(len(p)), end-r.pos)], r.pos)
	r.pos += int64(n)
	if err != nil {
		return n, fmt.Errorf("cannot read the partial archive: %w", err)
	}
	return n, nil
}

// prefixBehind waits until the complete prefix ends behind pos, and returns its
// end.
func (f *partial) prefixBehind(pos int64) (int64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for {
		end := f.plan.prefix()
		switch {
		case f.err != nil:
			return 0, f.err
		case end > pos:
			return end, nil
		case f.plan.complete():
			return 0, io.EOF
		}
		f.grown.Wait()
	}
}

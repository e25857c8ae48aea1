package fetch

import (
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
	journal *os.File     // nil while the size is unknown
	synced  int64        // how much was done when that was last synced
	wasted  atomic.Int64 // bytes that were received and are there already

	mu    sync.Mutex
	grown sync.Cond
	plan  plan
	noted state             // as the journal has it
	sums  map[string]string // of the whole, once it is there and hashed
	err   error             // why there will be no sums
}

// newPartial goes on with what is kept.
func newPartial(k kept, chunk int64) *partial {
	f := &partial{
		plan:  plan{state: k.state, size: k.Size, chunk: chunk, claims: map[int]span{}},
		noted: k.state,
	}
	f.grown.L = &f.mu
	return f
}

// locked calls f with the plan.
func (f *partial) locked(use func(p *plan)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	use(&f.plan)
}

// finish ends what waits for more, with the digests of the whole or an error. The
// first end counts.
func (f *partial) finish(sums map[string]string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err == nil && f.sums == nil {
		f.sums, f.err = sums, err
	}
	f.grown.Broadcast()
}

// await waits until something is true, or is never going to be.
func (f *partial) await(ready func() bool) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for f.err == nil && !ready() {
		f.grown.Wait()
	}
	return f.err
}

// write puts bytes that a connection has claimed at their place. Once the download
// has failed it writes nothing.
func (f *partial) write(p []byte, at span, endsClaim bool) error {
	if err := f.await(func() bool { return true }); err != nil {
		return err
	}
	if _, err := f.file.WriteAt(p, at.Start); err != nil {
		return fmt.Errorf("cannot write the partial archive: %w", err)
	}
	return f.update(endsClaim, func(plan *plan) { plan.There = plan.There.add(at) })
}

// update tells the readers what has changed, and the journal if that is much, or must
// be noted.
func (f *partial) update(must bool, change func(p *plan)) error {
	f.mu.Lock()
	change(&f.plan)
	f.grown.Broadcast()
	s, step := f.plan.state, min(noteEvery, f.plan.chunk)
	must = must || s.There.bytes()-f.noted.There.bytes() >= step || s.Hashed-f.noted.Hashed >= step
	must = must && f.journal != nil
	if must {
		f.noted = s
	}
	f.mu.Unlock()
	if !must {
		return nil
	}
	return note(f.journal, s)
}

// sync makes what the journal says, and before it what of the archive it says it of,
// survive a power cut. It does nothing if there is nothing new.
func (f *partial) sync(archive func() error) error {
	var s state
	f.locked(func(p *plan) { s = p.state })
	if s.done() == f.synced {
		return nil
	}
	if err := archive(); err != nil {
		return err
	}
	s.Synced, f.synced = true, s.done()
	if err := note(f.journal, s); err != nil {
		return err
	}
	if err := f.journal.Sync(); err != nil {
		return fmt.Errorf("cannot sync the journal: %w", err)
	}
	return nil
}

// reader reads the archive from some byte on, waiting for what is not there yet.
type reader struct {
	partial *partial
	pos     int64
}

func (r *reader) Read(p []byte) (int, error) {
	var end int64
	err := r.partial.await(func() bool {
		end = r.partial.plan.There.prefix()
		return end > r.pos || r.partial.plan.complete()
	})
	if err == nil && end <= r.pos {
		err = io.EOF
	}
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

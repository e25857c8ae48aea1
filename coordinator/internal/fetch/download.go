package fetch

import (
	"context"
	"encoding"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"math"
	"net/http"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/unpack"
)

var (
	errStalled = errors.New("it sends nothing, or too slowly")
	// ErrChanged: the server has another archive than at the beginning. It is an
	// ErrUnreachable, too.
	ErrChanged = errors.New("the archive changed while it was read")
)

const (
	// received is the buffer of a connection, as large as the transport's.
	received = 256 << 10
	// hashedAtOnce bounds what is read back for the digest at a time.
	hashedAtOnce = 1 << 20
	// markEvery is how many bytes of a chunk, or of the digest, the journal may
	// lag behind: all that the death of the process costs. A line has 50 to 200
	// bytes.
	markEvery = 1 << 20
	// syncPause bounds what a power cut costs, and what syncing costs: the disk
	// writes what will be deleted in a moment, and has less time for the rest. One
	// that is slow at it is left alone for three times as long as it took.
	syncPause = 5 * time.Second
)

// Download is an archive on its way into a file, by several connections and in
// any order. Readers see the prefix that is complete, while it grows; the
// digest is computed beside them, in order and once.
//
// A download that ends before its time leaves a partial file and a journal, with
// which another, also on another machine, goes on. If the server still has the
// same archive, only what the journal did not yet know of is fetched and hashed
// again: a MiB for each connection, and after a power cut also what was not
// synced.
type Download struct {
	URL    string
	Size   int64 // of the archive; 0 while unknown
	Reused int64 // bytes that an earlier attempt left

	source  Source
	raw     string // URL with its password
	root    *os.Root
	dir     string // below root
	state   remains
	ctx     context.Context
	cancel  context.CancelCauseFunc
	answer  *answer // to the first request, unread
	all     sync.WaitGroup
	partial *os.File
	journal *journal // nil while the size is unknown
	sums    map[string]hash.Hash

	mu         sync.Mutex
	grown      sync.Cond
	chunks     []chunk
	lead       int   // the first chunk that is not complete
	present    int64 // bytes in the partial file
	hashed     int64 // bytes hashed, by this or an earlier attempt
	rehashed   int64 // bytes hashed by this attempt
	working    int   // connections that have not given up
	sequential bool  // the server does not answer ranges
	finished   bool  // everything is there and hashed
	err        error
	unsynced   chan struct{}

	syncing sync.Mutex
	lost    error // what the volume said when it lost some of the bytes
}

type chunk struct {
	got    int64 // bytes from its start
	marked int64 // of which the journal knows
	owner  int   // connection that fetches it; 0 if none does
}

// Open asks for the archive of a release, and looks in dir, below root, for what
// an earlier attempt left. The directory need not be there. It writes nothing. The download ends
// with ctx; who opens it must Close it.
func (s Source) Open(ctx context.Context, version string, root *os.Root, dir string, want Digest) (*Download, error) {
	if s.Connections == 0 {
		s.Connections = DefaultConnections
	}
	if s.Chunk == 0 {
		s.Chunk = DefaultChunk
	}
	d := &Download{
		URL: redact(s.Archive(version)), raw: s.Archive(version), source: s, root: root, dir: dir,
		sequential: s.Connections == 1,
		unsynced:   make(chan struct{}, 1),
		sums:       map[string]hash.Hash{"sha256": Digest{Algorithm: "sha256"}.New()},
	}
	d.grown.L = &d.mu
	if want.Algorithm == "sha1" {
		d.sums["sha1"] = want.New()
	}
	stop := func() {}
	if s.Policy.Total > 0 {
		ctx, stop = context.WithTimeoutCause(ctx, s.Policy.Total, fmt.Errorf("%s: %w: it takes longer than %s", d.URL, ErrUnreachable, s.Policy.Total))
	}
	d.ctx, d.cancel = context.WithCancelCause(ctx)
	context.AfterFunc(d.ctx, stop)
	err := d.open(want.String())
	if err != nil {
		d.cancel(nil)
		return nil, err
	}
	return d, nil
}

func (d *Download) open(want string) error {
	boot := bootID()
	old, ok := look(d.root, d.dir, boot)
	if ok && old.URL == d.URL && old.Digest == want && (old.Validator != "" || want != Digest{}.String()) {
		old.Boot = boot
		d.resume(old)
		if d.lead == len(d.chunks) {
			return nil
		}
		a, err := d.ask(d.lead)
		if err == nil {
			d.answer = a
			return nil
		}
		var status *statusError
		changed := errors.Is(err, ErrChanged) || errors.As(err, &status) && status.code == http.StatusRequestedRangeNotSatisfiable
		if !changed {
			return err
		}
	}
	d.state = remains{header: header{URL: d.URL, Digest: want, Chunk: d.source.Chunk, Boot: boot}}
	d.chunks = make([]chunk, 1)
	d.lead, d.present, d.hashed, d.Reused, d.Size = 0, 0, 0, 0, 0
	d.sequential = d.source.Connections == 1
	for _, h := range d.sums {
		h.Reset()
	}
	a, err := d.ask(0)
	if err != nil {
		return err
	}
	d.answer = a
	d.Size, d.state.Size, d.state.Validator = a.total, a.total, a.validator
	if d.Size > 0 {
		d.chunks = make([]chunk, chunks(d.Size, d.state.Chunk))
	}
	return nil
}

// resume takes over what an earlier attempt left.
func (d *Download) resume(old remains) {
	d.state, d.Size = old, old.Size
	d.chunks = make([]chunk, len(old.got))
	for i, got := range old.got {
		d.chunks[i].got, d.chunks[i].marked = got, got
	}
	d.present = old.kept()
	d.Reused = d.present
	d.forward()
	for name, h := range d.sums {
		if h.(encoding.BinaryUnmarshaler).UnmarshalBinary(old.sums[name]) != nil {
			// Made by another version of this program.
			old.hashed = 0
		}
	}
	if d.hashed = old.hashed; d.hashed == 0 {
		for _, h := range d.sums {
			h.Reset()
		}
	}
}

// Resumable tells whether another attempt could go on from what is there.
func (d *Download) Resumable() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.Size > 0 && slices.ContainsFunc(d.chunks, func(c chunk) bool { return c.marked > 0 })
}

// Received returns how many bytes of the archive are there, and how many this
// download, not an earlier one, has hashed.
func (d *Download) Received() (present, hashed int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.present, d.rehashed
}

// Start begins to write, into the directory given to Open.
func (d *Download) Start() error {
	flags := os.O_RDWR
	name := path.Join(d.dir, partialName)
	if d.Reused == 0 {
		// Whoever may still write to an old one writes other bytes.
		if err := d.root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("cannot begin the partial archive: %w", err)
		}
		flags |= os.O_CREATE | os.O_EXCL
	}
	var err error
	if d.partial, err = d.root.OpenFile(name, flags, 0o600); err != nil {
		return fmt.Errorf("cannot open the partial archive: %w", err)
	}
	if d.Size > 0 {
		if d.journal, err = begin(d.root, d.dir, d.state); err != nil {
			return err
		}
		d.all.Go(d.sync)
		if d.Reused > 0 {
			d.dirty()
		}
	}
	d.working = d.source.Connections
	if d.sequential {
		d.working = 1
	}
	if d.answer == nil {
		d.working = 0 // all is there
	} else {
		d.chunks[d.answer.chunk].owner = 1
	}
	for i := range d.working {
		first := d.answer
		if i > 0 {
			first = nil
		}
		d.all.Go(func() { d.work(i+1, first) })
	}
	d.all.Go(d.hash)
	context.AfterFunc(d.ctx, func() { d.fail(context.Cause(d.ctx)) })
	return nil
}

// Sync waits until what is there is on the disk, and returns an error if any of
// it was ever lost on the way: who reads it gets something else.
func (d *Download) Sync() error {
	d.syncing.Lock() // an error is told once: to the one who syncs
	defer d.syncing.Unlock()
	if err := d.partial.Sync(); err != nil && d.lost == nil {
		d.lost = fmt.Errorf("cannot sync the partial archive: %w", err)
	}
	return d.lost
}

// Stop ends the download with err, for all who read or wait.
func (d *Download) Stop(err error) { d.fail(err) }

// Close ends the download and waits until nothing is written any more.
func (d *Download) Close() error {
	d.cancel(errClosed)
	d.all.Wait()
	if d.answer != nil {
		d.answer.close()
	}
	var err error
	if d.journal != nil {
		err = d.journal.f.Close()
	}
	if d.partial != nil {
		err = errors.Join(err, d.partial.Close())
	}
	return err
}

var errClosed = errors.New("the download was closed")

// Kept returns how many bytes of an archive the journal in dir vouches for.
func Kept(root *os.Root, dir string) int64 {
	r, _ := look(root, dir, bootID())
	return r.kept()
}

// Wait returns the digests of the whole archive, in hex by algorithm, once it is
// there. Errors are ErrUnreachable, ErrNotFound, those of the file system, and
// the cause of the context's end.
func (d *Download) Wait() (map[string]string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for !d.finished && d.err == nil {
		d.grown.Wait()
	}
	if d.err != nil {
		return nil, d.err
	}
	sums := map[string]string{}
	for name, h := range d.sums {
		sums[name] = hex.EncodeToString(h.Sum(nil))
	}
	return sums, nil
}

// Reader reads the archive from its start, waiting for what is not there yet.
func (d *Download) Reader() io.Reader { return &reader{d: d} }

type reader struct {
	d   *Download
	off int64
}

func (r *reader) Read(p []byte) (int, error) {
	end, err := r.d.await(r.off)
	if err != nil {
		return 0, err
	}
	n, err := r.d.partial.ReadAt(p[:min(int64(len(p)), end-r.off)], r.off)
	r.off += int64(n)
	if err != nil {
		return n, fmt.Errorf("cannot read the partial archive: %w", err)
	}
	return n, nil
}

// await returns the end of the prefix, once it is beyond off.
func (d *Download) await(off int64) (int64, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for {
		end := d.prefix()
		switch {
		case d.err != nil:
			return 0, d.err
		case end > off:
			return end, nil
		case d.lead == len(d.chunks):
			return 0, io.EOF
		}
		d.grown.Wait()
	}
}

func (d *Download) prefix() int64 {
	if d.lead == len(d.chunks) {
		return d.state.Size
	}
	start, _ := d.bounds(d.lead)
	return start + d.chunks[d.lead].got
}

// bounds returns where a chunk starts and ends.
func (d *Download) bounds(i int) (start, end int64) {
	if d.state.Size == 0 {
		return 0, math.MaxInt64
	}
	start = int64(i) * d.state.Chunk
	return start, min(start+d.state.Chunk, d.state.Size)
}

// mark is how many bytes the journal may lag behind.
func (d *Download) mark() int64 { return min(markEvery, d.state.Chunk) }

// forward moves lead behind what is complete.
func (d *Download) forward() {
	for d.lead < len(d.chunks) {
		if start, end := d.bounds(d.lead); d.chunks[d.lead].got < end-start {
			return
		}
		d.lead++
	}
}

func (d *Download) fail(err error) {
	d.mu.Lock()
	if d.err == nil && !d.finished {
		d.err = err
	}
	d.grown.Broadcast()
	d.mu.Unlock()
	d.cancel(err)
}

// hash adds up the prefix as it grows, and writes its state down now and then.
func (d *Download) hash() {
	buf := make([]byte, hashedAtOnce)
	r := &reader{d: d, off: d.hashed}
	noted := d.hashed
	for {
		n, err := r.Read(buf)
		for _, h := range d.sums {
			h.Write(buf[:n])
		}
		d.mu.Lock()
		d.hashed = r.off
		d.rehashed += int64(n)
		if err == io.EOF {
			d.finished = true
			d.grown.Broadcast()
			d.mu.Unlock()
			return
		}
		d.mu.Unlock()
		if err == nil && d.journal != nil && (r.off-noted >= d.mark() || r.off == d.Size) {
			noted, err = r.off, d.note()
		}
		if err != nil {
			d.fail(err)
			return
		}
	}
}

func (d *Download) note() error {
	rec := record{Hashed: d.hashed, Sums: map[string][]byte{}}
	for name, h := range d.sums {
		state, err := h.(encoding.BinaryMarshaler).MarshalBinary()
		if err != nil {
			return fmt.Errorf("cannot keep the state of the digest: %w", err)
		}
		rec.Sums[name] = state
	}
	return d.journal.append(rec)
}

// dirty wakes sync up.
func (d *Download) dirty() {
	select {
	case d.unsynced <- struct{}{}:
	default:
	}
}

// sync runs beside the transfers, so that none waits for the disk.
func (d *Download) sync() {
	for {
		select {
		case <-d.ctx.Done():
			return
		case <-d.unsynced:
		}
		start := time.Now()
		if err := d.journal.sync(d.Sync); err != nil {
			d.fail(err)
			return
		}
		if sleep(d.ctx, max(syncPause, 3*time.Since(start))) != nil {
			return
		}
	}
}

// take gives a connection the first chunk that nobody fetches. A connection that
// gets none has ended.
func (d *Download) take(me int) (int, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.err == nil && (!d.sequential || d.working == 1) {
		for i := d.lead; i < len(d.chunks); i++ {
			if d.claim(i, me) {
				return i, true
			}
		}
	}
	d.disown(me)
	d.working--
	return 0, false
}

// disown gives back what a connection has begun.
func (d *Download) disown(me int) {
	for i := range d.chunks {
		if d.chunks[i].owner == me {
			d.chunks[i].owner = 0
		}
	}
}

func (d *Download) claim(i, me int) bool {
	c := &d.chunks[i]
	start, end := d.bounds(i)
	if c.got == end-start || c.owner != 0 && c.owner != me {
		return false
	}
	c.owner = me
	return true
}

// release gives back what a connection could not fetch. Unless others go on,
// the download has failed.
func (d *Download) release(me int, err error, final bool) (goOn bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.disown(me)
	if !final {
		return true
	}
	d.working--
	return d.working > 0 && errors.Is(err, ErrUnreachable) && !errors.Is(err, ErrChanged)
}

// work is one connection.
func (d *Download) work(me int, a *answer) {
	broken := 0
	var buf []byte
	for {
		var err error
		i := 0
		if a == nil {
			var ok bool
			if i, ok = d.take(me); !ok {
				return
			}
			if a, err = d.ask(i); err != nil {
				if !d.release(me, err, true) {
					d.fail(err)
				}
				return
			}
		}
		if buf == nil {
			buf = make([]byte, received)
		}
		moved, err := d.receive(me, a, buf)
		a.close()
		a = nil
		if err == nil {
			broken = 0
			continue
		}
		if d.ctx.Err() != nil {
			d.fail(context.Cause(d.ctx))
			return
		}
		if moved > max(0, d.source.Policy.Rate*int64(d.source.Policy.Stall/time.Second)) {
			broken = 0
		}
		broken++
		var local *fs.PathError
		hopeless := errors.As(err, &local) || errors.Is(err, unpack.ErrNotArchive)
		final := hopeless || broken >= d.source.Policy.Attempts
		if final && !hopeless {
			present, _ := d.Received()
			err = fmt.Errorf("%s: %w: broke off after %d of %d bytes: %w", d.URL, ErrUnreachable, present, d.Size, err)
		}
		if !d.release(me, err, final) {
			d.fail(err)
			return
		}
		if final {
			return
		}
		if sleep(d.ctx, d.source.pause(broken, nil)) != nil {
			return
		}
	}
}

// answer is a part of the archive, unread.
type answer struct {
	body      io.ReadCloser
	cancel    context.CancelCauseFunc
	chunk     int   // it was asked for
	at, end   int64 // what it holds
	total     int64 // 0 if unknown
	validator string
}

func (a *answer) close() {
	a.cancel(nil)
	a.body.Close()
}

// ask requests the rest of a chunk, or of the archive if the server does not
// answer ranges.
func (d *Download) ask(i int) (*answer, error) {
	d.mu.Lock()
	start, end := d.bounds(i)
	first := d.state.Size == 0
	if first {
		end = d.source.Chunk
	}
	start += d.chunks[i].got
	sequential := d.sequential
	d.mu.Unlock()

	header := http.Header{}
	switch {
	case !sequential:
		header.Set("Range", fmt.Sprintf("bytes=%d-%d", start, end-1))
	case start > 0:
		header.Set("Range", fmt.Sprintf("bytes=%d-", start))
	}
	if d.state.Validator != "" && header.Get("Range") != "" {
		header.Set("If-Range", d.state.Validator)
	}
	ctx, cancel := context.WithCancelCause(d.ctx)
	resp, err := d.source.do(ctx, http.MethodGet, d.raw, header)
	if err != nil {
		cancel(nil)
		return nil, err
	}
	a := &answer{
		body:   &guarded{body: resp.Body, cancel: cancel, policy: d.source.Policy},
		cancel: cancel, chunk: i, total: max(resp.ContentLength, 0), end: max(resp.ContentLength, 0),
		validator: validator(resp.Header),
	}
	if resp.StatusCode == http.StatusPartialContent {
		var last int64
		if a.at, last, a.total, err = contentRange(resp.Header); err != nil || a.at != start || !sequential && last >= end {
			a.close()
			return nil, fmt.Errorf("%s: %w: it sent another range than was asked for", d.URL, ErrUnreachable)
		}
		a.end = last + 1
	}
	if !first && (a.total != d.state.Size && a.total > 0 || d.state.Validator != "" && a.validator != d.state.Validator) {
		a.close()
		return nil, fmt.Errorf("%s: %w: %w", d.URL, ErrUnreachable, ErrChanged)
	}
	if resp.StatusCode != http.StatusPartialContent {
		if a.end == 0 {
			a.end = math.MaxInt64 // it does not say
			if !first {
				a.end = d.state.Size
			}
		}
		d.mu.Lock()
		d.sequential = true
		d.mu.Unlock()
	}
	return a, nil
}

// validator is what tells this archive from the next one under its name. A weak
// ETag is no promise about bytes.
func validator(h http.Header) string {
	if tag := h.Get("ETag"); tag != "" && !strings.HasPrefix(tag, "W/") {
		return tag
	}
	return h.Get("Last-Modified")
}

// contentRange reads "bytes 0-9/10".
func contentRange(h http.Header) (first, last, total int64, err error) {
	span, all, ok := strings.Cut(strings.TrimPrefix(h.Get("Content-Range"), "bytes "), "/")
	from, to, found := strings.Cut(span, "-")
	if !ok || !found {
		return 0, 0, 0, errors.New("no range")
	}
	first, err1 := strconv.ParseInt(from, 10, 64)
	last, err2 := strconv.ParseInt(to, 10, 64)
	total, err3 := strconv.ParseInt(all, 10, 64)
	if err := errors.Join(err1, err2, err3); err != nil {
		return 0, 0, 0, err
	}
	if first < 0 || last < first || total <= last {
		return 0, 0, 0, errors.New("a range that cannot be")
	}
	return first, last, total, nil
}

// receive writes what of an answer is missing and nobody else fetches, and
// returns how many bytes that were.
func (d *Download) receive(me int, a *answer, buf []byte) (moved int64, err error) {
	for pos := a.at; ; {
		d.mu.Lock()
		i, mine, more, unknown := 0, false, true, d.state.Size == 0
		_, end := d.bounds(0)
		// What comes is of use only where it goes on from what is there.
		if !unknown && pos < a.end {
			i = int(pos / d.state.Chunk)
			var start int64
			start, end = d.bounds(i)
			mine = pos <= start+d.chunks[i].got && d.claim(i, me)
			more = mine || d.wanted(i+1, me)
		} else if unknown {
			mine = pos <= d.chunks[0].got && d.claim(0, me)
		}
		d.mu.Unlock()
		if !more {
			return moved, nil
		}
		end = min(end, a.end)
		space := buf
		if pos < a.end {
			space = buf[:min(int64(len(buf)), end-pos)]
		}
		n, err := a.body.Read(space)
		if n > 0 && pos >= a.end {
			return moved, errors.New("it sent more than it announced")
		}
		if n > 0 && mine {
			fresh, err := d.write(i, pos, buf[:n])
			moved += fresh
			if err != nil {
				return moved, err
			}
		}
		pos += int64(n)
		switch {
		case err == io.EOF && unknown && (pos == a.end || a.end == math.MaxInt64):
			return moved, d.end(pos)
		case err == io.EOF && pos == a.end:
			return moved, nil
		case err == io.EOF:
			return moved, io.ErrUnexpectedEOF
		case err != nil:
			return moved, err
		}
	}
}

// wanted tells whether chunk i, or one behind it, is still to be fetched by a
// connection.
func (d *Download) wanted(i, me int) bool {
	for ; i < len(d.chunks); i++ {
		start, end := d.bounds(i)
		if c := d.chunks[i]; c.got < end-start && (c.owner == 0 || c.owner == me) {
			return true
		}
	}
	return false
}

// write puts bytes at their place, but for those that are there.
func (d *Download) write(i int, pos int64, p []byte) (fresh int64, err error) {
	d.mu.Lock()
	start, end := d.bounds(i)
	have := start + d.chunks[i].got
	d.mu.Unlock()
	if pos > have {
		return 0, errors.New("bytes before it are missing")
	}
	p = p[min(have-pos, int64(len(p))):]
	if len(p) == 0 {
		return 0, nil
	}
	if _, err := d.partial.WriteAt(p, have); err != nil {
		return 0, fmt.Errorf("cannot write the partial archive: %w", err)
	}
	d.mu.Lock()
	c := &d.chunks[i]
	c.got += int64(len(p))
	d.present += int64(len(p))
	got := c.got
	if got == end-start {
		c.owner = 0
	}
	mark := d.journal != nil && (got == end-start || got-c.marked >= d.mark())
	if mark {
		c.marked = got
	}
	if i == d.lead {
		d.forward()
		d.grown.Broadcast()
	}
	d.mu.Unlock()
	if mark {
		if err := d.journal.append(record{Chunk: i, Got: got}); err != nil {
			return int64(len(p)), err
		}
		d.dirty()
	}
	return int64(len(p)), nil
}

// end is what an answer without a length finds out.
func (d *Download) end(size int64) error {
	if size == 0 {
		return fmt.Errorf("%s: %w: it is empty", d.URL, unpack.ErrNotArchive)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.state.Size, d.state.Chunk = size, size
	d.forward()
	d.grown.Broadcast()
	return nil
}

// guarded ends a transfer that is silent or too slow. Only the time spent in
// waiting for the network counts.
type guarded struct {
	body   io.ReadCloser
	cancel context.CancelCauseFunc
	policy Policy
	timer  *time.Timer
	waited time.Duration
	got    int64
}

func (g *guarded) Read(p []byte) (int, error) {
	if g.timer == nil {
		g.timer = time.AfterFunc(g.policy.Stall, func() { g.cancel(errStalled) })
	} else {
		g.timer.Reset(g.policy.Stall)
	}
	start := time.Now()
	n, err := g.body.Read(p)
	silent := !g.timer.Stop()
	g.got += int64(n)
	if g.waited += time.Since(start); g.waited >= g.policy.Stall {
		if float64(g.got) < float64(g.policy.Rate)*g.waited.Seconds() {
			silent = true
		}
		g.waited, g.got = 0, 0
	}
	if silent && err != io.EOF {
		g.cancel(errStalled)
		return n, errStalled
	}
	return n, err
}

func (g *guarded) Close() error { return g.body.Close() }

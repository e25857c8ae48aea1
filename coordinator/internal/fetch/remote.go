package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

var errStalled = errors.New("it sends nothing, or too slowly")

// remote is an archive on its server. It is safe for concurrent use.
type remote struct {
	source Source
	url    string
	known  identity // of the archive; every answer must be of it

	mu       sync.Mutex
	ranges   ranges
	ignored  bool   // the last range that was asked for: it sent the whole
	location string // where the last redirect led to; "" to walk them again
}

// identity tells one archive from the next one under its name.
type identity struct {
	size      int64  // 0 if unknown
	validator string // "" if there is none
}

// newRemote is the archive at a URL, of which nothing is known yet.
func newRemote(s Source, url string) *remote {
	r := &remote{source: s, url: url}
	if s.Connections == 1 {
		r.ranges = restRange
	}
	return r
}

// ranges says which ranges a server is asked for.
type ranges int

const (
	partRanges ranges = iota // any part
	restRange                // from some byte on, in one piece: the server ignores ranges, or one connection is wanted
	noRanges                 // none: the server refuses requests that have one
)

func (r ranges) header(start, end int64) string {
	switch {
	case r == partRanges:
		return fmt.Sprintf("bytes=%d-%d", start, end-1)
	case r == restRange && start > 0:
		return fmt.Sprintf("bytes=%d-", start)
	}
	return ""
}

// answer is a part of the archive, unread.
type answer struct {
	body       io.ReadCloser
	cancel     context.CancelCauseFunc
	start, end int64  // of what it holds; end is the largest number if the server does not say
	identity          // of the whole
	location   string // where a redirect led to
	received   int64  // bytes of the body so far
}

func (a *answer) close() {
	a.cancel(nil)
	a.body.Close()
}

// ask requests the bytes from start to end. Servers that answer no ranges send
// more than that. It returns as soon as there are headers; the body ends with ctx.
func (r *remote) ask(ctx context.Context, start, end int64) (*answer, error) {
	r.mu.Lock()
	ranges, location := r.ranges, r.location
	r.mu.Unlock()
	if location != "" {
		// Signed URLs expire, and another node may be better than a sick one: what
		// goes wrong here has one attempt.
		hasty := r.source
		hasty.Policy.Attempts = 1
		a, err := r.get(ctx, hasty, location, ranges, start, end)
		if err == nil || ctx.Err() != nil || errors.Is(err, ErrChanged) {
			return a, err
		}
		r.forget(location)
	}
	a, err := r.get(ctx, r.source, r.url, ranges, start, end)
	if ranges.header(start, end) != "" && refusesRanges(err) {
		return r.get(ctx, r.source, r.url, noRanges, start, end)
	}
	return a, err
}

// sequential tells that the archive comes in one piece: more than one connection
// would fetch the same bytes.
func (r *remote) sequential() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.ranges != partRanges
}

// ignoresRanges tells that each answer begins with the first byte.
func (r *remote) ignoresRanges() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.ignored || r.ranges == noRanges
}

// forget has the redirects walked again, unless that was done meanwhile: a
// signature has expired, or another node may be better.
func (r *remote) forget(location string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.location == location {
		r.location = ""
	}
}

// get makes one request for the bytes from start to end.
func (r *remote) get(ctx context.Context, source Source, url string, ranges ranges, start, end int64) (*answer, error) {
	header := http.Header{}
	asked := ranges.header(start, end)
	if asked != "" {
		header.Set("Range", asked)
		if r.known.validator != "" {
			header.Set("If-Range", r.known.validator)
		}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	resp, err := source.request(ctx, http.MethodGet, url, header)
	if err != nil {
		cancel(nil)
		return nil, err
	}
	a := &answer{body: &guarded{body: resp.Body, cancel: cancel, policy: source.Policy}, cancel: cancel}
	partial := resp.StatusCode == http.StatusPartialContent
	a.start, a.end, a.identity, err = extent(resp)
	switch {
	case err != nil || partial && (asked == "" || a.start != start || ranges == partRanges && a.end > end):
		err = errors.New("it sent another range than was asked for")
	case r.known.size > 0 && a.size > 0 && a.size != r.known.size,
		r.known.validator != "" && a.validator != r.known.validator:
		err = ErrChanged
	}
	if err != nil {
		a.close()
		return nil, fmt.Errorf("%s: %w: %w", redact(r.url), ErrUnreachable, err)
	}
	if a.size == 0 && r.known.size > 0 {
		a.end = r.known.size
	}
	if !partial && ranges == partRanges {
		ranges = restRange
	}
	if final := resp.Request.URL.String(); final != r.url {
		a.location = final
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ranges, r.location = max(r.ranges, ranges), a.location
	if asked != "" {
		r.ignored = !partial
	}
	return a, nil
}

// refusesRanges tells whether a request may do better without a range. A 416 may
// also mean that the archive is shorter now: the whole of it tells.
func refusesRanges(err error) bool {
	var status *statusError
	if !errors.As(err, &status) {
		return false
	}
	switch status.code {
	case http.StatusUnauthorized, http.StatusNotFound, http.StatusGone:
		return false
	case http.StatusNotImplemented:
		return true
	}
	return status.refused()
}

// extent reads which bytes an answer holds, and of what. A weak ETag is no promise
// about bytes.
func extent(resp *http.Response) (start, end int64, whole identity, err error) {
	whole.validator = resp.Header.Get("Last-Modified")
	if tag := resp.Header.Get("ETag"); tag != "" && !strings.HasPrefix(tag, "W/") {
		whole.validator = tag
	}
	if resp.StatusCode == http.StatusPartialContent {
		start, end, whole.size, err = contentRange(resp.Header)
		return start, end, whole, err
	}
	if resp.ContentLength < 0 {
		return 0, math.MaxInt64, whole, nil
	}
	whole.size = resp.ContentLength
	return 0, resp.ContentLength, whole, nil
}

// contentRange reads "bytes 0-9/10". The end is the byte behind the last one.
func contentRange(h http.Header) (start, end, total int64, err error) {
	span, all, _ := strings.Cut(strings.TrimPrefix(h.Get("Content-Range"), "bytes "), "/")
	from, to, _ := strings.Cut(span, "-")
	start, err1 := strconv.ParseInt(from, 10, 64)
	last, err2 := strconv.ParseInt(to, 10, 64)
	total, err3 := strconv.ParseInt(all, 10, 64)
	if err := errors.Join(err1, err2, err3); err != nil {
		return 0, 0, 0, err
	}
	if start < 0 || last < start || total <= last {
		return 0, 0, 0, errors.New("a range that cannot be")
	}
	return start, last + 1, total, nil
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

package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"strings"
	"sync/atomic"
	"time"
)

var errStalled = errors.New("it sends nothing, or too slowly")

// Fingerprint tells one archive of a version from another one, as far as a server
// does without sending it.
type Fingerprint struct {
	Size      int64  `json:"size"`                // 0 if the server does not tell
	Validator string `json:"validator,omitempty"` // a strong ETag, else the time of the last change
	// Ranges: the server says that it sends parts of the archive. Only Source.Fingerprint
	// asks for it.
	Ranges bool `json:"ranges,omitempty"`
}

// Fingerprint asks for the size and the validator of an archive, in one request of a
// few hundred bytes. Errors are those of Digest.
func (s Source) Fingerprint(ctx context.Context, version string) (Fingerprint, error) {
	resp, err := s.request(ctx, http.MethodHead, s.ArchiveURL(version), nil)
	if err != nil {
		return Fingerprint{}, err
	}
	resp.Body.Close()
	_, whole := extent(resp)
	whole.Ranges = resp.Header.Get("Accept-Ranges") == "bytes"
	return whole, nil
}

// remote is an archive on its server. It is safe for concurrent use.
type remote struct {
	source Source
	url    string
	known  Fingerprint // of the archive; every answer must be of it

	// sequential: the archive comes in one piece, and more than one connection would
	// fetch the same bytes.
	sequential atomic.Bool
	refuses    atomic.Bool  // the server refuses requests that have a range
	ignores    atomic.Bool  // the last range that was asked for: the server sent the whole
	location   atomic.Value // string: where the last redirect led to; "" to walk them again
}

// newRemote is the archive at a URL, of which so much is known.
func newRemote(s Source, url string, known Fingerprint) *remote {
	r := &remote{source: s, url: url, known: known}
	r.sequential.Store(s.Connections == 1)
	r.location.Store("")
	return r
}

// ask requests the bytes of a span. Servers that answer no ranges send more than
// that. It returns as soon as there are headers; the body ends with ctx.
func (r *remote) ask(ctx context.Context, want span) (*answer, error) {
	asked := ""
	if r.sequential.Load() {
		want.End = math.MaxInt64
	}
	switch {
	case r.refuses.Load():
	case want.End < math.MaxInt64:
		asked = fmt.Sprintf("bytes=%d-%d", want.Start, want.End-1)
	case want.Start > 0:
		asked = fmt.Sprintf("bytes=%d-", want.Start)
	}
	if location := r.location.Load().(string); location != "" {
		// Signed URLs expire, and another node may be better than a sick one: what
		// goes wrong here has one attempt.
		hasty := r.source
		hasty.Policy.Attempts = 1
		a, err := r.get(ctx, hasty, location, asked, want)
		if err == nil || ctx.Err() != nil || errors.Is(err, ErrChanged) {
			return a, err
		}
		r.forget(location)
	}
	a, err := r.get(ctx, r.source, r.url, asked, want)
	// A 416 may also mean that the archive is shorter now: the whole of it tells.
	if asked != "" && refuses(err) {
		if a, err = r.get(ctx, r.source, r.url, "", want); err == nil {
			r.refuses.Store(true)
		}
	}
	return a, err
}

// forget has the redirects walked again, unless that was done meanwhile: a
// signature has expired, or another node may be better.
func (r *remote) forget(location string) { r.location.CompareAndSwap(location, "") }

// get makes one request, for the range that is asked for.
func (r *remote) get(ctx context.Context, source Source, url, asked string, want span) (*answer, error) {
	header := http.Header{}
	if asked != "" {
		header.Set("Range", asked)
		if r.known.Validator != "" {
			header.Set("If-Range", r.known.Validator)
		}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	resp, err := source.request(ctx, http.MethodGet, url, header)
	if err != nil {
		cancel(nil)
		return nil, err
	}
	a := &answer{body: resp.Body, cancel: cancel, policy: source.Policy}
	a.timer = time.AfterFunc(math.MaxInt64, func() { cancel(errStalled) })
	partial := resp.StatusCode == http.StatusPartialContent
	a.span, a.Fingerprint = extent(resp)
	switch {
	case partial && (asked == "" || a.Start != want.Start || a.End > want.End):
		err = errors.New("it sent another range than was asked for")
	case r.known.Size > 0 && a.Size > 0 && a.Size != r.known.Size,
		r.known.Validator != "" && a.Validator != r.known.Validator:
		err = ErrChanged
	}
	if err != nil {
		a.close()
		return nil, unreachable(r.url, err)
	}
	if a.Size == 0 && r.known.Size > 0 {
		a.End = r.known.Size
	}
	if final := resp.Request.URL.String(); final != r.url {
		a.location = final
	}
	r.location.Store(a.location)
	if !partial {
		r.sequential.Store(true)
	}
	if asked != "" {
		r.ignores.Store(!partial)
	}
	return a, nil
}

// extent reads which bytes an answer holds, and of what. A weak ETag is no promise
// about bytes.
func extent(resp *http.Response) (part span, whole Fingerprint) {
	whole.Validator = resp.Header.Get("Last-Modified")
	if tag := resp.Header.Get("ETag"); tag != "" && !strings.HasPrefix(tag, "W/") {
		whole.Validator = tag
	}
	if resp.StatusCode == http.StatusPartialContent {
		var start, last, size int64
		_, err := fmt.Sscanf(resp.Header.Get("Content-Range"), "bytes %d-%d/%d", &start, &last, &size)
		if err != nil || start < 0 || last < start || size <= last {
			return span{-1, -1}, whole // nowhere
		}
		whole.Size = size
		return span{start, last + 1}, whole
	}
	if resp.ContentLength < 0 {
		return span{0, math.MaxInt64}, whole
	}
	whole.Size = resp.ContentLength
	return span{0, whole.Size}, whole
}

// answer is a part of the archive, unread. Reading ends a transfer that is silent or
// too slow; only the time spent in waiting for the network counts.
type answer struct {
	span               // of what it holds; it ends at the largest number if the server does not say
	Fingerprint        // of the whole
	location    string // where a redirect led to
	received    int64  // bytes of the body so far
	body        io.ReadCloser
	cancel      context.CancelCauseFunc
	policy      Policy
	timer       *time.Timer
	waited      time.Duration // since the rate was last looked at
	got         int64         // bytes since then
}

func (a *answer) close() {
	a.timer.Stop()
	a.cancel(nil)
	a.body.Close()
}

func (a *answer) Read(p []byte) (int, error) {
	a.timer.Reset(a.policy.Stall)
	start := time.Now()
	n, err := a.body.Read(p)
	silent := !a.timer.Stop()
	a.received += int64(n)
	a.got += int64(n)
	if a.waited += time.Since(start); a.waited >= a.policy.Stall {
		if float64(a.got) < float64(a.policy.Rate)*a.waited.Seconds() {
			silent = true
		}
		a.waited, a.got = 0, 0
	}
	if silent && err != io.EOF {
		a.cancel(errStalled)
		return n, errStalled
	}
	return n, err
}

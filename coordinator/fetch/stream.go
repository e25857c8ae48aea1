package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

var errStalled = errors.New("no byte arrived for too long")

// Stream is the body of an archive. When the connection breaks it asks for the
// rest, so that a reader sees one uninterrupted stream. It is not safe for
// concurrent use.
type Stream struct {
	URL  string
	Size int64 // 0 while unknown

	source    Source
	raw       string // URL with its password
	ctx       context.Context
	body      io.ReadCloser
	cancel    context.CancelCauseFunc
	validator string // for If-Range
	off       int64
	broken    int // failures in a row
}

// Open asks for the archive of a release. The stream lives as long as ctx.
func (s Source) Open(ctx context.Context, version string) (*Stream, error) {
	t := &Stream{URL: redact(s.Archive(version)), raw: s.Archive(version), source: s, ctx: ctx}
	resp, err := t.connect(nil)
	if err != nil {
		return nil, err
	}
	t.body = resp.Body
	t.Size = max(resp.ContentLength, 0)
	// A weak ETag is no promise about bytes.
	if t.validator = resp.Header.Get("ETag"); t.validator == "" || strings.HasPrefix(t.validator, "W/") {
		t.validator = resp.Header.Get("Last-Modified")
	}
	return t, nil
}

// Read fails with ErrUnreachable when the rest can't be had, and with the cause
// of the context's end.
func (t *Stream) Read(p []byte) (int, error) {
	for {
		n, err := t.once(p)
		t.off += int64(n)
		switch {
		case t.Size > 0 && t.off > t.Size:
			return 0, fmt.Errorf("%s: %w: it sent more than the %d bytes it announced", t.URL, ErrUnreachable, t.Size)
		case n > 0:
			t.broken = 0
			return n, nil
		case err == nil:
			continue
		case err == io.EOF && (t.Size == 0 || t.off == t.Size):
			return 0, io.EOF
		case t.ctx.Err() != nil:
			return 0, context.Cause(t.ctx)
		case err == io.EOF:
			err = io.ErrUnexpectedEOF
		}
		if err := t.resume(err); err != nil {
			return 0, err
		}
	}
}

// once reads, with the stall limit running only while it waits for the network
// and not while the reader is busy elsewhere.
func (t *Stream) once(p []byte) (int, error) {
	if t.body == nil {
		return 0, io.ErrUnexpectedEOF
	}
	cancel := t.cancel
	timer := time.AfterFunc(t.source.Policy.Stall, func() { cancel(errStalled) })
	n, err := t.body.Read(p)
	if !timer.Stop() && n == 0 && t.ctx.Err() == nil {
		err = errStalled
	}
	return n, err
}

func (t *Stream) resume(why error) error {
	t.Close()
	if t.broken++; t.broken >= t.source.Policy.Attempts {
		return fmt.Errorf("%s: %w: broke off after %d of %d bytes: %w", t.URL, ErrUnreachable, t.off, t.Size, why)
	}
	if err := sleep(t.ctx, t.source.pause(t.broken, nil)); err != nil {
		return err
	}
	header := http.Header{"Range": {fmt.Sprintf("bytes=%d-", t.off)}}
	if t.validator != "" {
		header.Set("If-Range", t.validator)
	}
	resp, err := t.connect(header)
	if err != nil {
		return err
	}
	skip := t.off
	if resp.StatusCode == http.StatusPartialContent {
		skip = 0
		if !strings.HasPrefix(resp.Header.Get("Content-Range"), fmt.Sprintf("bytes %d-", t.off)) {
			resp.Body.Close()
			return fmt.Errorf("%s: %w: it sent another range than was asked for", t.URL, ErrUnreachable)
		}
	} else if t.Size > 0 && resp.ContentLength > 0 && resp.ContentLength != t.Size {
		resp.Body.Close()
		return fmt.Errorf("%s: %w: the archive changed while it was read", t.URL, ErrUnreachable)
	}
	t.body = resp.Body
	// A server without ranges sends it all again. What was read is skipped; the
	// digest tells if it was something else.
	for buf := make([]byte, 64<<10); skip > 0; {
		n, err := t.once(buf[:min(skip, int64(len(buf)))])
		skip -= int64(n)
		if err != nil && skip > 0 {
			t.Close()
			return t.ctx.Err() // the next read tries again
		}
	}
	return nil
}

func (t *Stream) connect(header http.Header) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(t.ctx)
	resp, err := t.source.do(ctx, http.MethodGet, t.raw, header)
	if err != nil {
		cancel(nil)
		return nil, err
	}
	t.cancel = cancel
	return resp, nil
}

// Close ends the transfer.
func (t *Stream) Close() error {
	if t.body == nil {
		return nil
	}
	t.cancel(nil)
	err := t.body.Close()
	t.body = nil
	return err
}

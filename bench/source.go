package bench

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// source serves the archives in a directory over loopback, with sendfile, so
// that serving takes next to nothing from the processors that are measured. It
// counts what it sends of archives and can stop at a byte.
type source struct {
	dir    string
	url    string
	server *http.Server

	mu        sync.Mutex
	downloads int   // requests for an archive from its first byte
	sent      int64 // bytes of archives
	hold      *hold
}

// hold stops a source after some bytes of archives.
type hold struct {
	after   int64
	reached chan struct{} // closed when it stops
	once    sync.Once
	resumed chan struct{}
	again   sync.Once
	drip    <-chan time.Time // lets a little through each time; nil never does
	dripped int64            // bytes let through so; the source's mu guards it
}

// A source that trickles sends so much so often: fast enough not to be given up,
// and too slow for an archive to end while units wait for it.
const (
	dripBytes = 16 << 10
	dripEvery = 250 * time.Millisecond
)

// piece is how much is sent between two looks at a hold.
const piece = 256 << 10

func serve(dir string) (*source, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &source{dir: dir, url: "http://" + l.Addr().String() + "/concourse/concourse"}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /concourse/concourse/releases/download/{tag}/{file}", s.file)
	s.server = &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	s.reset(-1)
	go s.server.Serve(l) // ends with Close
	return s, nil
}

func (s *source) Close() error { return s.server.Close() }

func (s *source) archive(a archive) string {
	return s.url + "/releases/download/v" + a.version() + "/" + a.name()
}

// reset forgets what was counted, and stops after so many bytes unless that is
// negative.
func (s *source) reset(after int64) *hold {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.downloads, s.sent = 0, 0
	s.hold = &hold{after: after, reached: make(chan struct{}), resumed: make(chan struct{})}
	if after < 0 {
		s.hold.resume()
	}
	return s.hold
}

// trickle forgets what was counted, and sends archives drop by drop until the
// hold ends.
func (s *source) trickle() *hold {
	h := s.reset(0)
	s.mu.Lock()
	defer s.mu.Unlock()
	h.drip = time.Tick(dripEvery)
	return h
}

// wait returns when the source has stopped. A unit that fails before would never
// ask for so much.
func (h *hold) wait(ctx context.Context) error {
	const patience = 5 * time.Minute
	ctx, cancel := context.WithTimeoutCause(ctx, patience, fmt.Errorf("no unit asked for %d bytes within %v", h.after, patience))
	defer cancel()
	select {
	case <-h.reached:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// resume lets everything through. It may be called again.
func (h *hold) resume() { h.again.Do(func() { close(h.resumed) }) }

// counted returns how often an archive was begun, and how many bytes were sent.
func (s *source) counted() (downloads int, sent int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.downloads, s.sent
}

func (s *source) file(w http.ResponseWriter, r *http.Request) {
	f, err := os.Open(filepath.Join(s.dir, filepath.Base(r.PathValue("file"))))
	if err != nil {
		http.NotFound(w, r)
		return
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	// Coordinators ask for the rest only if this is still the same.
	w.Header().Set("ETag", `"`+info.ModTime().UTC().Format(time.RFC3339Nano)+`"`)
	if !strings.HasSuffix(r.PathValue("file"), ".tgz") {
		http.ServeContent(w, r, "", time.Time{}, f)
		return
	}
	w.Header().Set("Content-Type", "application/gzip")
	http.ServeContent(&counter{ResponseWriter: w, s: s, ctx: r.Context()}, r, "", time.Time{}, f)
}

// counter passes an archive on in pieces. ServeContent copies to it by ReadFrom.
type counter struct {
	http.ResponseWriter
	s   *source
	ctx context.Context
}

func (c *counter) WriteHeader(status int) {
	span := c.Header().Get("Content-Range")
	if status == http.StatusOK || strings.HasPrefix(span, "bytes 0-") {
		c.s.mu.Lock()
		c.s.downloads++
		c.s.mu.Unlock()
	}
	c.ResponseWriter.WriteHeader(status)
}

func (c *counter) ReadFrom(from io.Reader) (int64, error) {
	// The limit is taken apart, because sendfile sees through one limit only.
	rest := int64(1 << 62)
	if limited, ok := from.(*io.LimitedReader); ok {
		from, rest = limited.R, limited.N
	}
	var total int64
	for rest > 0 {
		n, err := c.s.take(c.ctx, min(rest, piece))
		if err != nil {
			return total, err
		}
		sent, err := io.CopyN(c.ResponseWriter, from, n)
		c.s.untake(n - sent)
		total, rest = total+sent, rest-sent
		if err == io.EOF {
			return total, nil
		}
		if err != nil {
			return total, err
		}
	}
	return total, nil
}

// take counts up to want bytes that are about to be sent, and returns how many
// may be, after waiting where a hold says so.
func (s *source) take(ctx context.Context, want int64) (int64, error) {
	for {
		s.mu.Lock()
		h, n := s.hold, want
		select {
		case <-h.resumed:
		default:
			n = min(n, h.after+h.dripped-s.sent)
		}
		if n > 0 {
			s.sent += n
			s.mu.Unlock()
			return n, nil
		}
		drip := h.drip
		s.mu.Unlock()
		h.once.Do(func() { close(h.reached) })
		select {
		case <-h.resumed:
		case <-drip:
			s.mu.Lock()
			h.dripped += dripBytes
			s.mu.Unlock()
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		}
	}
}

func (s *source) untake(n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sent -= n
}

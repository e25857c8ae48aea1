package coordinator

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/fetch"
	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/needs"
)

// request is one line of a source's ledger.
type request struct {
	path, span string
	status     int
	bytes      int
}

// source serves archives in GitHub's layout and keeps a ledger.
type source struct {
	*httptest.Server
	mu     sync.Mutex
	files  map[string][]byte // by the last element of the path
	ledger []request
	before func(w http.ResponseWriter, r *http.Request) bool
}

func newSource(t testing.TB, versions ...string) *source {
	s := &source{files: map[string][]byte{}}
	for _, v := range versions {
		s.publish(v, releaseArchive(v, 1<<20))
	}
	s.Server = httptest.NewServer(s)
	t.Cleanup(s.Close)
	return s
}

func (s *source) publish(version string, archive []byte) {
	name := "concourse-" + version + "-linux-amd64.tgz"
	sum := sha256.Sum256(archive)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.files[name] = archive
	s.files[name+".sha256"] = []byte(hex.EncodeToString(sum[:]) + "  " + name + "\n")
}

// answer makes f see each request first; true means that it has answered.
func (s *source) answer(f func(w http.ResponseWriter, r *http.Request) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.before = f
}

func (s *source) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	counted := &countingWriter{ResponseWriter: w, status: http.StatusOK}
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.ledger = append(s.ledger, request{r.URL.Path, r.Header.Get("Range"), counted.status, counted.bytes})
	}()
	s.mu.Lock()
	before := s.before
	data, ok := s.files[filepath.Base(r.URL.Path)]
	s.mu.Unlock()
	if before != nil && before(counted, r) {
		return
	}
	if !ok {
		http.NotFound(counted, r)
		return
	}
	counted.Header().Set("ETag", `"`+fmt.Sprint(len(data))+`"`)
	http.ServeContent(counted, r, "", time.Time{}, bytes.NewReader(data))
}

// archives returns the requests for archives, and the bytes they moved.
func (s *source) archives() (requests []request, bytes int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.ledger {
		if strings.HasSuffix(r.path, ".tgz") {
			requests = append(requests, r)
			bytes += r.bytes
		}
	}
	return requests, bytes
}

type countingWriter struct {
	http.ResponseWriter
	status, bytes int
}

func (w *countingWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

func (w *countingWriter) Write(p []byte) (int, error) {
	n, err := w.ResponseWriter.Write(p)
	w.bytes += n
	return n, err
}

func (w *countingWriter) Flush() { w.ResponseWriter.(http.Flusher).Flush() }

func (w *countingWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// releaseArchive is a tarball in the genuine layout with an incompressible file
// of the given size.
func releaseArchive(version string, size int) []byte {
	noise := make([]byte, size)
	r := rand.NewChaCha8([32]byte([]byte(fmt.Sprintf("%-32s", version))))
	r.Read(noise)
	return tarball(
		member{name: "concourse/", kind: tar.TypeDir},
		member{name: "concourse/bin/concourse", mode: 0o755, body: "#!/bin/sh\necho " + version + "\n"},
		member{name: "concourse/bin/runc", mode: 0o755, body: string(noise)},
		member{name: "concourse/resource-types/mock/resource_metadata.json", mode: 0o644, body: `{"type":"mock"}`},
		member{name: "concourse/fly-assets/fly-linux-amd64.tgz", mode: 0o644, body: "fly"},
	)
}

type member struct {
	name, body, link string
	kind             byte
	mode             int64
}

func tarball(members ...member) []byte {
	var buf bytes.Buffer
	gz := gzip.NewWriter(&buf)
	tw := tar.NewWriter(gz)
	for _, e := range members {
		if e.kind == 0 {
			e.kind = tar.TypeReg
		}
		h := &tar.Header{Name: e.name, Typeflag: e.kind, Linkname: e.link, Mode: e.mode, Size: int64(len(e.body)), Uid: 4711}
		if err := tw.WriteHeader(h); err != nil {
			panic(err)
		}
		if _, err := tw.Write([]byte(e.body)); err != nil {
			panic(err)
		}
	}
	tw.Close()
	gz.Close()
	return buf.Bytes()
}

// quick tries as often as the default, without the pauses.
var quick = fetch.Policy{Attempts: 3, Pause: time.Millisecond, Stall: 2 * time.Second}

// inside opens what a call of c works on.
func inside(t testing.TB, c *Coordinator) *unit {
	v, err := c.enter()
	require.NoError(t, err)
	t.Cleanup(func() { v.root.Close() })
	return &unit{v, c}
}

func pin(t testing.TB, c *Coordinator, version string) error {
	_, err := c.Pin(t.Context(), version)
	return err
}

func open(t testing.TB, root, unit, source string, change ...func(*Options)) *Coordinator {
	o := Options{Unit: unit, Source: source, Product: concourse}
	for _, f := range change {
		f(&o)
	}
	c, err := Open(t.Context(), root, o)
	require.NoError(t, err)
	c.source.Policy = quick
	return c
}

func logTo(b *bytes.Buffer) func(*Options) {
	return func(o *Options) { o.Log = slog.New(slog.NewTextHandler(b, nil)) }
}

// listing returns the names of all files below dir.
func listing(t testing.TB, dir string) []string {
	names := []string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && path != dir {
			names = append(names, strings.TrimPrefix(path, dir+"/"))
		}
		return err
	})
	require.NoError(t, err)
	return names
}

// nothingLeft demands that a failed install left no trace.
func nothingLeft(t testing.TB, root string) {
	t.Helper()
	require.Empty(t, listing(t, filepath.Join(root, releasesDir)), "releases")
	require.Empty(t, listing(t, filepath.Join(root, stagingDir)), "staging")
	require.NoFileExists(t, filepath.Join(root, progressFile))
	require.NoFileExists(t, filepath.Join(root, installedFile))
}

// tmpfs mounts a small volume of its own, as root.
func tmpfs(t *testing.T, size string) string {
	dir := t.TempDir()
	needs.Mount(t, "tmpfs", dir, "tmpfs", 0, "size="+size)
	return dir
}

// TestMain lets the test binary be a unit: a process of its own that installs.
func TestMain(m *testing.M) {
	root := os.Getenv("TEST_UNIT_ROOT")
	if root == "" {
		os.Exit(m.Run())
	}
	if err := live(root); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

package faults

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// source serves releases in GitHub's layout, and can be made to pause.
type source struct {
	*httptest.Server
	files map[string][]byte // by the last element of the path

	asked atomic.Int64 // requests for archives, of any method
	sent  atomic.Int64 // bytes of archives

	mu      sync.Mutex
	served  int64
	at      int64
	reached chan struct{} // closed when at bytes of archives were served
	resume  chan struct{}
}

func newSource(t *testing.T, size int) *source {
	s := &source{files: map[string][]byte{}}
	for _, v := range []string{older, newer} {
		s.publish(v, content(v, size))
	}
	s.Server = httptest.NewServer(s)
	t.Cleanup(s.Close)
	return s
}

// publish makes a release of files.
func (s *source) publish(version string, files map[string]string) {
	name := "concourse-" + version + "-linux-amd64.tgz"
	s.files[name] = archive(files)
	sum := sha256.Sum256(s.files[name])
	s.files[name+".sha256"] = []byte(hex.EncodeToString(sum[:]) + "  " + name + "\n")
}

func (s *source) size(version string) int64 {
	return int64(len(s.files["concourse-"+version+"-linux-amd64.tgz"]))
}

// pause stops all archives once at bytes more of them are on the way. It returns a
// channel that tells when, and what lets them go on.
func (s *source) pause(t *testing.T, at int64) (reached <-chan struct{}, resume func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.served, s.at = 0, at
	s.reached, s.resume = make(chan struct{}), make(chan struct{})
	resume = sync.OnceFunc(func() { close(s.resume) })
	t.Cleanup(resume)
	return s.reached, resume
}

func (s *source) passing(n int) {
	s.mu.Lock()
	if s.resume == nil {
		s.mu.Unlock()
		return
	}
	before := s.served
	s.served += int64(n)
	if before < s.at && s.served >= s.at {
		close(s.reached)
	}
	wait := s.served >= s.at
	resume := s.resume
	s.mu.Unlock()
	if wait {
		<-resume
	}
}

func (s *source) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	name := filepath.Base(r.URL.Path)
	data, ok := s.files[name]
	if !ok {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("ETag", `"`+name+`"`)
	w.Header().Set("Content-Type", "application/octet-stream") // else some bytes are read to find it out
	body := io.ReadSeeker(bytes.NewReader(data))
	if strings.HasSuffix(name, ".tgz") {
		s.asked.Add(1)
	}
	if strings.HasSuffix(name, ".tgz") && r.Method == http.MethodGet {
		body = &metered{body, s}
	}
	http.ServeContent(w, r, "", time.Time{}, body)
}

// metered lets a source see what passes, in small pieces.
type metered struct {
	io.ReadSeeker
	s *source
}

func (m *metered) Read(p []byte) (int, error) {
	n, err := m.ReadSeeker.Read(p[:min(len(p), 16<<10)])
	m.s.sent.Add(int64(n))
	m.s.passing(n)
	return n, err
}

// content returns the files of a release; noise bytes of it do not compress.
func content(version string, noise int) map[string]string {
	blob := make([]byte, noise)
	rand.NewChaCha8([32]byte([]byte(fmt.Sprintf("%-32s", version)))).Read(blob)
	return map[string]string{
		"bin/concourse": "#!/bin/sh\necho " + version + "\n",
		"bin/runc":      string(blob),
		"resource-types/mock/resource_metadata.json": `{"type":"mock","version":"` + version + `"}`,
		"fly-assets/fly-linux-amd64.tgz":             "fly " + version,
	}
}

func archive(files map[string]string) []byte {
	var buf bytes.Buffer
	gz := gzip.NewWriter(&buf)
	tw := tar.NewWriter(gz)
	names := []string{}
	for name := range files {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		mode := int64(0o644)
		if strings.HasPrefix(name, "bin/") {
			mode = 0o755
		}
		err := tw.WriteHeader(&tar.Header{Name: "concourse/" + name, Typeflag: tar.TypeReg, Mode: mode, Size: int64(len(files[name]))})
		if err == nil {
			_, err = io.WriteString(tw, files[name])
		}
		if err != nil {
			panic(err)
		}
	}
	tw.Close()
	gz.Close()
	return buf.Bytes()
}

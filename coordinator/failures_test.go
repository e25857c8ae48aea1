package coordinator

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// failing asks for a release every 10 s for an hour of its own clock, and returns how
// often the archive was sent.
func failing(t *testing.T, c *Coordinator, src *source, kind error, before func(call int)) (downloads int) {
	now := time.Now()
	c.memory.now = func() time.Time { return now }
	for call := range 360 {
		before(call)
		_, err := c.Ensure(t.Context(), "7.14.3")
		require.ErrorIs(t, err, kind)
		now = now.Add(10 * time.Second)
	}
	src.mu.Lock()
	defer src.mu.Unlock()
	for _, r := range src.ledger {
		if strings.HasSuffix(r.path, ".tgz") && r.bytes > 1<<16 {
			downloads++
		}
	}
	return downloads
}

// Nodes of a CDN differ about a validator, and some servers make a new one each time:
// that alone does not mean that somebody has mended the archive.
func TestServerWhoseValidatorsChange(t *testing.T) {
	src := newSource(t, "7.14.3")
	n := 0
	src.answer(func(w http.ResponseWriter, r *http.Request) bool {
		if strings.HasSuffix(r.URL.Path, ".tgz.sha256") {
			fmt.Fprintln(w, strings.Repeat("0", 64))
			return true
		}
		if r.Method == http.MethodHead {
			n++
			w.Header().Set("Last-Modified", time.Unix(int64(n), 0).UTC().Format(http.TimeFormat))
			return true
		}
		return false
	})
	c := open(t, t.TempDir(), "concourse-ci/0", src.URL)
	require.LessOrEqual(t, failing(t, c, src, ErrDigest, func(int) {}), 10)
}

// Where the server does not tell how large the archive is, what did not fit does.
func TestArchiveOfUnknownSizeThatDoesNotFit(t *testing.T) {
	src := newSource(t)
	src.publish("7.14.3", releaseArchive("7.14.3", 3<<20))
	src.answer(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, ".tgz") {
			return false
		}
		src.mu.Lock()
		data := src.files[filepath.Base(r.URL.Path)]
		src.mu.Unlock()
		w.Header().Set("ETag", `"one"`)
		w.WriteHeader(http.StatusOK)
		if r.Method == http.MethodGet {
			w.(http.Flusher).Flush()
			w.Write(data)
		}
		return true
	})
	root := tmpfs(t, "4m")
	c := open(t, root, "concourse-ci/0", src.URL)
	// Others give a little back all the time.
	others := func(call int) {
		require.NoError(t, os.WriteFile(filepath.Join(root, workerDir, "log"), make([]byte, max(0, 128-call)<<12), 0o644))
	}
	require.Equal(t, 2, failing(t, c, src, ErrNoSpace, others))
}

// Somebody mends the archive while it is still downloaded: the note is about the one
// that failed.
func TestArchiveMendedWhileItIsDownloaded(t *testing.T) {
	src := newSource(t)
	src.publish("7.14.3", tarball(member{name: "concourse/README", body: "soon"}))
	c := open(t, t.TempDir(), "concourse-ci/0", src.URL, func(o *Options) { o.AllowUnverified = true })
	delete(src.files, "concourse-7.14.3-linux-amd64.tgz.sha256")
	c.memory.at = func(point string, _ int) {
		if point == "staged" {
			src.publish("7.14.3", releaseArchive("7.14.3", 1<<10))
			delete(src.files, "concourse-7.14.3-linux-amd64.tgz.sha256")
		}
	}
	_, err := c.Ensure(t.Context(), "7.14.3")
	require.ErrorIs(t, err, ErrNotArchive)
	_, err = c.Ensure(t.Context(), "7.14.3")
	require.NoError(t, err)
}

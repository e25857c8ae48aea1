package coordinator

import (
	"bytes"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/claim"
)

// One version's download beside what is done with the others.
func TestSlowDownloadHoldsUpNoOther(t *testing.T) {
	src := newSource(t, "7.14.0", "7.14.1", "7.14.2", "7.14.3", "7.14.4", "7.14.5")
	root := t.TempDir()
	slow, other := open(t, root, "concourse-ci/0", src.URL), open(t, root, "concourse-ci/1", src.URL)
	installed(t, other, "7.14.0", "7.14.1", "7.14.2")
	begun, goOn := make(chan struct{}), make(chan struct{})
	var once sync.Once
	src.answer(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, "concourse-7.14.3-linux-amd64.tgz") {
			return false
		}
		http.ServeContent(&trickle{ResponseWriter: w, begun: func() { once.Do(func() { close(begun) }) }, goOn: goOn},
			r, "", time.Time{}, bytes.NewReader(releaseArchive("7.14.3", 1<<20)))
		return true
	})
	ended := make(chan error, 1)
	go func() { _, err := slow.Ensure(t.Context(), "7.14.3"); ended <- err }()
	<-begun
	// What other units read of it is written.
	require.Eventually(t, func() bool {
		i, err := other.Inspect(t.Context())
		return err == nil && i.Progress != nil && i.Progress.Version == "7.14.3"
	}, 20*time.Second, time.Millisecond)

	for c, version := range map[*Coordinator]string{other: "7.14.4", slow: "7.14.5"} {
		c.memory.at = func(point string, _ int) {
			if point != "release" {
				return
			}
			// All is done but the end of the claim.
			named, err := claim.Read(inside(t, c).root, lockFile)
			require.NoError(t, err)
			require.Equal(t, c.options.Unit+" "+version, named.Unit+" "+named.Version)
		}
		r, err := c.Ensure(t.Context(), version)
		require.NoError(t, err)
		require.True(t, r.Downloaded)
		c.memory.at = func(string, int) {}
		i, err := other.Inspect(t.Context())
		require.NoError(t, err)
		require.Len(t, i.Claims, 1, "of the one who downloads")
		require.Equal(t, "7.14.3", i.Claims[0].Version)
		if i.Progress != nil {
			require.Equal(t, "concourse-ci/0 7.14.3", i.Progress.Unit+" "+i.Progress.Version)
		}
		named, err := claim.Read(inside(t, c).root, lockFile)
		require.NoError(t, err)
		require.Empty(t, named.Unit, "it holds nothing any more")
	}
	removed, err := other.Collect(t.Context())
	require.ErrorIs(t, err, ErrHeld)
	require.ErrorContains(t, err, "7.14.3")
	require.Equal(t, []string{"releases/7.14.0", "store/7.14.0.1"}, removed)
	require.Empty(t, ended)
	close(goOn)
	require.NoError(t, <-ended)
	_, err = other.Collect(t.Context())
	require.NoError(t, err)
	require.NoFileExists(t, filepath.Join(root, progressFile))
}

// trickle sends a little, tells so, and waits.
type trickle struct {
	http.ResponseWriter
	begun func()
	goOn  chan struct{}
}

func (w *trickle) Write(p []byte) (int, error) {
	n, err := w.ResponseWriter.Write(p[:min(len(p), 100)])
	http.NewResponseController(w.ResponseWriter).Flush()
	w.begun()
	<-w.goOn
	rest, restErr := w.ResponseWriter.Write(p[n:])
	return n + rest, errors.Join(err, restErr)
}

// The end of a download takes away the progress of its own only.
func TestProgressOfAnotherVersionStays(t *testing.T) {
	src := newSource(t, "7.14.3")
	root := t.TempDir()
	c := open(t, root, "concourse-ci/0", src.URL)
	c.memory.at = func(point string, _ int) {
		if point == "published" { // nothing is reported from here on
			require.NoError(t, os.WriteFile(filepath.Join(root, progressFile), []byte(`{"version":"7.14.2","unit":"concourse-ci/0"}`), 0o644))
		}
	}
	_, err := c.Ensure(t.Context(), "7.14.3")
	require.NoError(t, err)
	require.FileExists(t, filepath.Join(root, progressFile))
}

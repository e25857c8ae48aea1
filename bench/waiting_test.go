package bench

import (
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestRequestsOfALog(t *testing.T) {
	var q requests
	l := log.New(&q, "", 0)
	for _, line := range []string{
		`rx 8: LOOKUP n1 ["head"] 5b p5874`,
		`tx 8:     OK, {n5 g2 tE=1s tA=1s {M040755 SZ=0 L=0}}`,
		`rx 10: LOOKUP n1 ["rx 10: READ"] 5b p0`,
		`rx 12: RELEASE n4 {Fh 0} p0`,
		`rx 14: FORGET n4 {Nlookup=1} p0`,
		`rx 16: INTERRUPT n0 {ix 10} p0`,
		`received ENODEV (unmount request), thread exiting`,
	} {
		l.Print(line)
	}
	count := q.take()
	require.Equal(t, map[string]int{"LOOKUP": 2, "RELEASE": 1}, count)
	require.Equal(t, "LOOKUP 1.0, RELEASE 0.5", perSecond(count, 2))
	require.Empty(t, q.take())
}

// TestMountsAreCountedApart has two processes read the same directory.
func TestMountsAreCountedApart(t *testing.T) {
	dir := t.TempDir()
	behind := filepath.Join(dir, "behind")
	require.NoError(t, os.Mkdir(behind, 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(behind, "file"), []byte("content"), 0o644))
	var one, other requests
	mounted := func(name string, q *requests) mount {
		m, err := mountOn(filepath.Join(dir, name), behind, q)
		if errors.Is(err, errNoFUSE) {
			t.Skip(err)
		}
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, m.unmount()) })
		return m
	}
	first := mounted("one", &one)
	mounted("other", &other)
	one.take()
	other.take()
	out, err := exec.Command("cat", filepath.Join(first.dir, "file")).Output()
	require.NoError(t, err)
	require.Equal(t, "content", string(out))
	count := one.take()
	require.Positive(t, count["LOOKUP"])
	require.Positive(t, count["OPEN"])
	require.Positive(t, count["READ"])
	rest := other.take()
	delete(rest, "RELEASE") // of what mounting itself has opened: nobody waits for it
	require.Empty(t, rest)
}

// TestTrickle proves that a trickling source sends, and stops trickling.
func TestTrickle(t *testing.T) {
	r, err := newRun(options(t))
	require.NoError(t, err)
	defer r.source.Close()
	a, err := r.archive(t.Context(), compressible, 20, 1)
	require.NoError(t, err)
	h := r.source.trickle()
	drips := make(chan time.Time)
	h.drip = drips
	out, in := io.Pipe()
	go func() {
		_, err := (&counter{ResponseWriter: pipeResponse{httptest.NewRecorder(), in}, s: r.source, ctx: t.Context()}).ReadFrom(
			&io.LimitedReader{R: zeros{}, N: a.Size})
		in.CloseWithError(err)
	}()
	require.NoError(t, h.wait(t.Context()))
	for i := range int64(3) {
		_, sent := r.source.counted()
		require.Equal(t, i*dripBytes, sent)
		drips <- time.Time{}
		require.NoError(t, h.wait(t.Context()), "it may be asked for while it trickles")
		_, err := io.ReadFull(out, make([]byte, dripBytes))
		require.NoError(t, err)
	}
	h.resume()
	h.resume()
	rest, err := io.Copy(io.Discard, out)
	require.NoError(t, err)
	require.Equal(t, a.Size, 3*dripBytes+rest)
}

// pipeResponse goes to a pipe.
type pipeResponse struct {
	http.ResponseWriter
	pipe *io.PipeWriter
}

func (p pipeResponse) Write(b []byte) (int, error) { return p.pipe.Write(b) }

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

func TestWaitedUntil(t *testing.T) {
	ended := time.Now()
	unit := func(downloaded bool, returned time.Time) outcome {
		return outcome{Installed: []installedBy{{Downloaded: downloaded, Returned: returned}}}
	}
	late, early := ended.Add(time.Second), ended.Add(-time.Second)
	require.NoError(t, waitedUntil(ended, unit(true, late), unit(false, late)))
	require.ErrorContains(t, waitedUntil(ended, unit(false, late), unit(true, late)), "has downloaded")
	require.ErrorContains(t, waitedUntil(ended, unit(true, late), unit(true, late)), "has downloaded")
	require.ErrorContains(t, waitedUntil(ended, unit(true, early), unit(false, early)), "1s too early")
}

func TestArchiveOutlastsTheWaiting(t *testing.T) {
	for _, samples := range []int{1, EnoughSamples, 100} {
		r := run{Options: Options{Samples: samples}}
		watched := r.settling() + time.Duration(samples)*r.window()
		trickles := time.Duration(float64(r.trickleMB()) * 1e6 / dripBytes * float64(dripEvery))
		require.Greater(t, trickles, 2*watched)
	}
}

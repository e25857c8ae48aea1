package fetch

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/unpack"
)

const testChunk = 64 << 10

func noise(size int) []byte {
	data := make([]byte, size)
	rand.NewChaCha8([32]byte{7}).Read(data)
	return data
}

func digestOf(data []byte) Digest {
	sum := sha256.Sum256(data)
	return Digest{Algorithm: "sha256", Hex: hex.EncodeToString(sum[:])}
}

// content answers like a good server. It counts the bytes that it sends.
func content(w http.ResponseWriter, r *http.Request, data []byte, sent *atomic.Int64) {
	w.Header().Set("ETag", `"`+digestOf(data).Hex[:8]+`"`)
	http.ServeContent(counted{w, sent}, r, "", time.Time{}, bytes.NewReader(data))
}

type counted struct {
	http.ResponseWriter
	n *atomic.Int64
}

// Write counts first: the client may be done before the server knows.
func (c counted) Write(p []byte) (int, error) {
	if c.n != nil {
		c.n.Add(int64(len(p)))
	}
	n, err := c.ResponseWriter.Write(p)
	if c.n != nil {
		c.n.Add(int64(n - len(p)))
	}
	return n, err
}

func (c counted) Unwrap() http.ResponseWriter { return c.ResponseWriter }

func TestRangesOnSeveralConnections(t *testing.T) {
	data := noise(testChunk*20 + 100)
	var sent, now, most atomic.Int64
	s, n := serve(t, func(n int, w http.ResponseWriter, r *http.Request) {
		most.Store(max(most.Load(), now.Add(1)))
		defer now.Add(-1)
		time.Sleep(5 * time.Millisecond)
		content(w, r, data, &sent)
	})
	s.Chunk, s.Connections = testChunk, 3
	dir := t.TempDir()
	got, sums, d, err := readIn(t, s, dir, digestOf(data))
	require.NoError(t, err)
	require.True(t, got == string(data))
	require.Equal(t, digestOf(data).Hex, sums["sha256"])
	require.EqualValues(t, len(data), d.Size)
	require.EqualValues(t, 21, n.Load())
	require.EqualValues(t, len(data), sent.Load(), "a byte moved twice")
	require.EqualValues(t, 3, most.Load())
	require.EqualValues(t, len(data), Kept(rootOf(t, dir), "."))
}

func TestOddServers(t *testing.T) {
	data := noise(testChunk*5 + 1)
	whole := func(w http.ResponseWriter) {
		w.Header().Set("Content-Length", strconv.Itoa(len(data)))
		w.Write(data)
	}
	for name, answer := range map[string]func(n int, w http.ResponseWriter, r *http.Request){
		"no ranges": func(n int, w http.ResponseWriter, r *http.Request) { whole(w) },
		"no ranges and no length": func(n int, w http.ResponseWriter, r *http.Request) {
			http.NewResponseController(w).Flush()
			w.Write(data)
		},
		"no ranges, and each answer breaks off later": func(n int, w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", strconv.Itoa(len(data)))
			w.Write(data[:min(n*testChunk*2+10, len(data))])
		},
		"ranges for the first only": func(n int, w http.ResponseWriter, r *http.Request) {
			if n > 1 {
				r.Header.Del("Range")
			}
			content(w, r, data, nil)
		},
		"ranges from the third request on": func(n int, w http.ResponseWriter, r *http.Request) {
			if n == 1 {
				w.Header().Set("Content-Length", strconv.Itoa(len(data)))
				w.Write(data[:testChunk])
				return
			}
			if n == 2 {
				whole(w)
				return
			}
			content(w, r, data, nil)
		},
		"each body cut short": func(n int, w http.ResponseWriter, r *http.Request) {
			var from, to int
			fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-%d", &from, &to)
			to = min(to, len(data)-1)
			w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, to, len(data)))
			w.Header().Set("Content-Length", strconv.Itoa(to+1-from))
			w.WriteHeader(http.StatusPartialContent)
			w.Write(data[from : from+min(to+1-from, 50_000)])
		},
		"ranges shorter than asked for": func(n int, w http.ResponseWriter, r *http.Request) {
			var from, to int
			fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-%d", &from, &to)
			r.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", from, min(to, from+30_000)))
			content(w, r, data, nil)
		},
		"one connection only": func() func(n int, w http.ResponseWriter, r *http.Request) {
			var busy sync.Mutex
			return func(n int, w http.ResponseWriter, r *http.Request) {
				if !busy.TryLock() {
					w.WriteHeader(http.StatusTooManyRequests)
					return
				}
				defer busy.Unlock()
				time.Sleep(20 * time.Millisecond)
				content(w, r, data, nil)
			}
		}(),
	} {
		t.Run(name, func(t *testing.T) {
			s, _ := serve(t, answer)
			s.Chunk = testChunk
			got, sums, _, err := readIn(t, s, t.TempDir(), digestOf(data))
			require.NoError(t, err)
			require.True(t, got == string(data))
			require.Equal(t, digestOf(data).Hex, sums["sha256"])
		})
	}
}

func TestUnusableServers(t *testing.T) {
	data := noise(testChunk * 5)
	for name, tt := range map[string]struct {
		answer func(n int, w http.ResponseWriter, r *http.Request)
		text   string
	}{
		"other range than asked for": {func(n int, w http.ResponseWriter, r *http.Request) {
			r.Header.Set("Range", "bytes=5-100")
			content(w, r, data, nil)
		}, "another range"},
		"ranges without a place": {func(n int, w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusPartialContent)
			w.Write(data)
		}, "another range"},
		"length larger than the body": {func(n int, w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", strconv.Itoa(len(data)+1))
			w.Write(data)
		}, "broke off after"},
		"no length, and shorter than what is there": {func(n int, w http.ResponseWriter, r *http.Request) {
			w.Write(data[:len(data)/min(n, 2)])
			http.NewResponseController(w).Flush()
			if n == 1 {
				panic(http.ErrAbortHandler)
			}
		}, "broke off after"},
		"redirects without end": {func(n int, w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, fmt.Sprintf("%s?%d", r.URL.Path, n), http.StatusFound)
		}, "redirects without end"},
		"archive changes between ranges": {func(n int, w http.ResponseWriter, r *http.Request) {
			other := bytes.Clone(data)
			other[0] ^= byte(min(n, 2))
			content(w, r, other, nil)
		}, "changed while it was read"},
		"archive grows between ranges": {func(n int, w http.ResponseWriter, r *http.Request) {
			http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(append(data, make([]byte, n)...)))
		}, "changed while it was read"},
		"one byte at a time": {func(n int, w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", strconv.Itoa(len(data)))
			for i := range data {
				w.Write(data[i : i+1])
				http.NewResponseController(w).Flush()
				select {
				case <-r.Context().Done():
					return
				case <-time.After(10 * time.Millisecond):
				}
			}
		}, "too slowly"},
	} {
		t.Run(name, func(t *testing.T) {
			s, n := serve(t, tt.answer)
			s.Chunk = testChunk
			s.Policy.Rate = 10_000
			_, err := readAll(t, s)
			require.ErrorIs(t, err, ErrUnreachable)
			require.ErrorContains(t, err, tt.text)
			require.LessOrEqual(t, n.Load(), int32(20))
		})
	}
}

func TestTotalLimit(t *testing.T) {
	data := noise(1000)
	s, _ := serve(t, func(n int, w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "1000")
		for i := range data {
			w.Write(data[i : i+1])
			http.NewResponseController(w).Flush()
			time.Sleep(time.Millisecond)
		}
	})
	s.Policy.Total = 200 * time.Millisecond
	start := time.Now()
	_, err := readAll(t, s)
	require.ErrorIs(t, err, ErrUnreachable)
	require.ErrorContains(t, err, "longer than 200ms")
	require.Less(t, time.Since(start), 2*time.Second)
}

func TestRetryAfter(t *testing.T) {
	for name, header := range map[string]func(h http.Header){
		"seconds": func(h http.Header) { h.Set("Retry-After", "1") },
		"date, by a clock that is years behind": func(h http.Header) {
			now := time.Date(2001, 2, 3, 4, 5, 6, 0, time.UTC)
			h.Set("Date", now.Format(http.TimeFormat))
			h.Set("Retry-After", now.Add(time.Second).Format(http.TimeFormat))
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, n := serve(t, func(n int, w http.ResponseWriter, r *http.Request) {
				if n == 1 {
					header(w.Header())
					w.WriteHeader(http.StatusTooManyRequests)
					return
				}
				fmt.Fprint(w, "archive")
			})
			start := time.Now()
			_, err := readAll(t, s)
			require.NoError(t, err)
			require.GreaterOrEqual(t, time.Since(start), time.Second)
			require.EqualValues(t, 2, n.Load())
		})
	}
}

func TestTokenStaysWithItsHost(t *testing.T) {
	data := noise(testChunk * 3)
	var leaked, asked atomic.Int32
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "" {
			leaked.Add(1)
		}
		content(w, r, data, nil)
	}))
	t.Cleanup(other.Close)
	s, _ := serve(t, func(n int, w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer hunter2" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		asked.Add(1)
		if r.URL.Query().Get("hop") == "" { // the second hop is on this host
			http.Redirect(w, r, r.URL.Path+"?hop=1", http.StatusFound)
			return
		}
		http.Redirect(w, r, other.URL, http.StatusFound) // another port is another host
	})
	s.Chunk, s.Token = testChunk, "hunter2"
	got, err := readAll(t, s)
	require.NoError(t, err)
	require.True(t, got == string(data))
	require.EqualValues(t, 2, asked.Load())
	require.Zero(t, leaked.Load())

	failing, _ := serve(t, func(n int, w http.ResponseWriter, r *http.Request) { w.WriteHeader(500) })
	failing.Token = "hunter2"
	_, err = readAll(t, failing)
	require.NotContains(t, err.Error(), "hunter2")
}

// half downloads until about half is there, and then ends as a crash would. It
// returns how many bytes it hashed.
func half(t *testing.T, s Source, dir string, want Digest) int64 {
	d, err := s.Open(context.Background(), "7.14.3", rootOf(t, dir), ".", want)
	require.NoError(t, err)
	require.NoError(t, d.Start())
	_, err = io.CopyN(io.Discard, d.Reader(), d.Size/2)
	require.NoError(t, err)
	require.NoError(t, d.Close())
	hashed := d.Stats().Hashed
	return hashed
}

func TestResume(t *testing.T) {
	data := noise(testChunk*40 + 7)
	other := noise(testChunk*40 + 8)
	slow := func(data []byte, sent *atomic.Int64) func(n int, w http.ResponseWriter, r *http.Request) {
		return func(n int, w http.ResponseWriter, r *http.Request) {
			time.Sleep(2 * time.Millisecond)
			content(w, r, data, sent)
		}
	}
	tests := map[string]struct {
		between func(t *testing.T, s *Source, dir string)
		want    Digest
		reused  bool
		get     []byte
	}{
		"goes on":            {func(t *testing.T, s *Source, dir string) {}, digestOf(data), true, data},
		"without any digest": {func(t *testing.T, s *Source, dir string) {}, Digest{}, true, data},
		"other chunk size":   {func(t *testing.T, s *Source, dir string) { s.Chunk = 10_000 }, digestOf(data), true, data},
		"one connection":     {func(t *testing.T, s *Source, dir string) { s.Connections = 1 }, digestOf(data), true, data},
		"torn journal": {func(t *testing.T, s *Source, dir string) {
			f, err := os.OpenFile(filepath.Join(dir, journalName), os.O_APPEND|os.O_WRONLY, 0)
			require.NoError(t, err)
			defer f.Close()
			fmt.Fprint(f, `{"done":39`)
		}, digestOf(data), true, data},
		"journal of another digest": {func(t *testing.T, s *Source, dir string) {
			edit(t, dir, digestOf(data).Hex, digestOf(other).Hex)
		}, digestOf(data), false, data},
		"journal of nonsense": {func(t *testing.T, s *Source, dir string) {
			require.NoError(t, os.WriteFile(filepath.Join(dir, journalName), []byte("\x00\x00\x00"), 0o600))
		}, digestOf(data), false, data},
		"partial file cut": {func(t *testing.T, s *Source, dir string) {
			require.NoError(t, os.Truncate(filepath.Join(dir, partialName), 10))
		}, digestOf(data), false, data},
		"archive changed": {func(t *testing.T, s *Source, dir string) {
			s.URL = httptestServer(t, slow(other, nil))
			edit(t, dir, `"url":"`, `"url":"`+s.ArchiveURL("7.14.3")+`","was":"`)
		}, Digest{}, false, other},
		"archive shorter than what is there": {func(t *testing.T, s *Source, dir string) {
			s.URL = httptestServer(t, func(n int, w http.ResponseWriter, r *http.Request) {
				http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data[:10]))
			})
			edit(t, dir, `"url":"`, `"url":"`+s.ArchiveURL("7.14.3")+`","was":"`)
		}, Digest{}, false, data[:10]},
		"ranges no longer answered": {func(t *testing.T, s *Source, dir string) {
			s.URL = httptestServer(t, func(n int, w http.ResponseWriter, r *http.Request) {
				r.Header.Del("Range")
				content(w, r, data, nil)
			})
			edit(t, dir, `"url":"`, `"url":"`+s.ArchiveURL("7.14.3")+`","was":"`)
		}, digestOf(data), true, data},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var sent atomic.Int64
			s, _ := serve(t, slow(data, &sent))
			s.Chunk = testChunk
			dir := t.TempDir()
			before := half(t, s, dir, tt.want)
			kept := Kept(rootOf(t, dir), ".")
			require.Greater(t, kept, int64(len(data)/3))
			tt.between(t, &s, dir)
			got, sums, d, err := readIn(t, s, dir, tt.want)
			require.NoError(t, err)
			require.True(t, got == string(tt.get), "other bytes")
			require.Equal(t, digestOf(tt.get).Hex, sums["sha256"])
			hashed := d.Stats().Hashed
			if !tt.reused {
				require.Zero(t, d.Reused)
				require.EqualValues(t, len(tt.get), hashed)
				return
			}
			require.Equal(t, kept, d.Reused)
			// What was in flight when it ended: a chunk for each connection.
			require.LessOrEqual(t, sent.Load(), int64(len(data)+DefaultConnections*testChunk))
			// The state of the digest is kept with each chunk.
			require.LessOrEqual(t, before+hashed, int64(len(data)+testChunk))
		})
	}
}

func edit(t *testing.T, dir, old, new string) {
	name := filepath.Join(dir, journalName)
	text, err := os.ReadFile(name)
	require.NoError(t, err)
	require.Contains(t, string(text), old)
	require.NoError(t, os.WriteFile(name, []byte(strings.Replace(string(text), old, new, 1)), 0o600))
}

func httptestServer(t *testing.T, answer func(n int, w http.ResponseWriter, r *http.Request)) string {
	s, _ := serve(t, answer)
	return s.URL
}

// A mirror's upload was cut off: that is no reason to ask again and again.
func TestEmptyArchive(t *testing.T) {
	for name, answer := range map[string]func(w http.ResponseWriter){
		"length 0":  func(w http.ResponseWriter) { w.Header().Set("Content-Length", "0") },
		"no length": func(w http.ResponseWriter) { http.NewResponseController(w).Flush() },
	} {
		t.Run(name, func(t *testing.T) {
			s, n := serve(t, func(_ int, w http.ResponseWriter, _ *http.Request) { answer(w) })
			_, _, _, err := readIn(t, s, t.TempDir(), digestOf(nil))
			require.ErrorIs(t, err, unpack.ErrNotArchive)
			require.ErrorContains(t, err, "it is empty")
			require.EqualValues(t, 1, n.Load())
		})
	}
}

// Of several servers behind one name some answer ranges and some do not. The whole
// answer of one is past the bytes that another's range lacks in the end: they
// must be fetched again, and what comes next must not take their place.
func TestUnevenServers(t *testing.T) {
	const chunk = 200 << 10
	data := noise(2 * chunk)
	passed := make(chan struct{})
	s, _ := serve(t, func(n int, w http.ResponseWriter, r *http.Request) {
		flush := func() { http.NewResponseController(w).Flush() }
		switch n {
		case 1: // the range, of which a part comes
			w.Header().Set("Content-Range", fmt.Sprintf("bytes 0-%d/%d", chunk-1, len(data)))
			w.Header().Set("Content-Length", strconv.Itoa(chunk))
			w.WriteHeader(http.StatusPartialContent)
			w.Write(data[:20<<10])
			flush()
			<-passed
			panic(http.ErrAbortHandler)
		case 2: // the whole, beyond that part when the range breaks off
			w.Header().Set("Content-Length", strconv.Itoa(len(data)))
			w.Write(data[:150<<10])
			flush()
			time.Sleep(50 * time.Millisecond)
			close(passed)
			time.Sleep(100 * time.Millisecond)
			w.Write(data[150<<10:])
		default:
			content(w, r, data, nil)
		}
	})
	s.Connections, s.Chunk = 2, chunk
	s.Policy.Pause, s.Policy.Stall = 500*time.Millisecond, 5*time.Second
	got, sums, _, err := readIn(t, s, t.TempDir(), digestOf(data))
	require.NoError(t, err)
	require.True(t, got == string(data), "bytes are not where they belong")
	require.Equal(t, digestOf(data).Hex, sums["sha256"])
}

// A chunk that was not complete is gone on with, and so is its digest.
func TestResumesWithinAChunk(t *testing.T) {
	data := noise(8 << 20)
	var sent atomic.Int64
	s, _ := serve(t, func(n int, w http.ResponseWriter, r *http.Request) {
		if n == 1 {
			w.Header().Set("ETag", `"`+digestOf(data).Hex[:8]+`"`)
			w.Header().Set("Content-Range", fmt.Sprintf("bytes 0-%d/%d", len(data)-1, len(data)))
			w.WriteHeader(http.StatusPartialContent)
			w.Write(data[:5<<20])
			http.NewResponseController(w).Flush()
			<-r.Context().Done()
			return
		}
		content(w, r, data, &sent)
	})
	s.Chunk, s.Policy.Stall = 8<<20, time.Minute
	root := rootOf(t, t.TempDir())
	d, err := s.Open(t.Context(), "7.14.3", root, ".", digestOf(data))
	require.NoError(t, err)
	require.NoError(t, d.Start())
	_, err = io.CopyN(io.Discard, d.Reader(), 5<<20)
	require.NoError(t, err)
	require.Eventually(t, func() bool { hashed := d.Stats().Hashed; return hashed == 5<<20 }, 5*time.Second, time.Millisecond)
	require.True(t, d.Stats().Resumable)
	require.NoError(t, d.Close())
	kept := Kept(root, ".")
	require.Greater(t, kept, int64(4<<20-received))

	again, err := s.Open(t.Context(), "7.14.3", root, ".", digestOf(data))
	require.NoError(t, err)
	defer again.Close()
	require.Equal(t, kept, again.Reused)
	require.NoError(t, again.Start())
	sums, err := again.Wait()
	require.NoError(t, err)
	require.Equal(t, digestOf(data).Hex, sums["sha256"])
	require.EqualValues(t, int64(len(data))-kept, sent.Load())
	hashed := again.Stats().Hashed
	require.LessOrEqual(t, hashed, int64(4<<20))
}

// On another machine, and after a power cut, only what was synced counts.
func TestOtherKernelsTrustWhatWasSynced(t *testing.T) {
	dir := t.TempDir()
	root := rootOf(t, dir)
	require.NoError(t, os.WriteFile(filepath.Join(dir, partialName), make([]byte, 100), 0o600))
	f := newPartial(kept{header: header{Fingerprint: Fingerprint{Size: 100}, Boot: "here"}}, 10)
	var err error
	f.journal, err = newJournal(root, ".", kept{header: header{Fingerprint: Fingerprint{Size: 100}, Boot: "here"}})
	require.NoError(t, err)
	defer f.journal.Close()
	know := func(hashed int64, there ...span) {
		require.NoError(t, f.update(true, func(p *plan) {
			p.There, p.Hashed, p.Sums = there, hashed, map[string][]byte{"sha256": {byte(hashed)}}
		}))
	}
	know(10, span{0, 10}, span{20, 27})
	synced := false
	require.NoError(t, f.sync(func() error {
		synced = true
		know(10, span{0, 10}, span{20, 27}, span{30, 40}) // too late for this sync
		return nil
	}))
	require.True(t, synced)
	here := readKept(root, ".", "here")
	require.Equal(t, spans{{0, 10}, {20, 27}, {30, 40}}, here.There, "a sync tells less than what came while it ran")
	know(29, span{0, 29}, span{30, 40})

	here = readKept(root, ".", "here")
	require.Equal(t, spans{{0, 29}, {30, 40}}, here.There)
	require.EqualValues(t, 29, here.Hashed)
	require.Equal(t, []byte{29}, here.Sums["sha256"])
	for _, boot := range []string{"there", ""} {
		there := readKept(root, ".", boot)
		require.Equal(t, spans{{0, 10}, {20, 27}}, there.There)
		require.EqualValues(t, 10, there.Hashed)
		require.Equal(t, []byte{10}, there.Sums["sha256"])
		require.False(t, there.Synced, "its next journal has yet to be synced")
	}
	calls := 0
	for range 3 {
		require.NoError(t, f.sync(func() error { calls++; return nil }))
	}
	require.Equal(t, 1, calls, "nothing is new")
	require.Equal(t, here, readKept(root, ".", "here"))
	require.Equal(t, here.state, readKept(root, ".", "there").state)
}

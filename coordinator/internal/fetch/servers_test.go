package fetch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const aSHA1 = "a9993e364706816aba3e25717850c26c9cd0d89d"

func TestNextSideFile(t *testing.T) {
	for _, status := range []int{400, 401, 403, 404, 410, 451} {
		t.Run(strconv.Itoa(status), func(t *testing.T) {
			s, _ := serve(t, func(n int, w http.ResponseWriter, r *http.Request) {
				if strings.HasSuffix(r.URL.Path, ".sha1") {
					fmt.Fprintln(w, aSHA1)
					return
				}
				w.WriteHeader(status)
			})
			d, err := s.Digest(t.Context(), "7.14.3")
			require.NoError(t, err)
			require.Equal(t, "sha1:"+aSHA1, d.String())
		})
	}
}

func TestNoSideFile(t *testing.T) {
	beside := func(sha256, sha1, archive int) Source {
		s, _ := serve(t, func(n int, w http.ResponseWriter, r *http.Request) {
			switch {
			case strings.HasSuffix(r.URL.Path, ".sha256"):
				w.WriteHeader(sha256)
			case strings.HasSuffix(r.URL.Path, ".sha1"):
				w.WriteHeader(sha1)
			default:
				w.WriteHeader(archive)
			}
		})
		return s
	}
	for name, tt := range map[string]struct {
		source Source
		want   []error
		not    []error
		text   []string
	}{
		"none is to be had": {
			beside(403, 404, 200), []error{ErrNoDigest}, []error{ErrUnreachable, ErrUnauthorized, ErrNotFound},
			[]string{".sha256: the server answered 403 Forbidden", ".sha1: the server answered 404 Not Found"},
		},
		"nor is the archive":               {beside(404, 404, 404), []error{ErrNotFound}, []error{ErrNoDigest}, nil},
		"the token is wrong":               {beside(401, 401, 401), []error{ErrNoDigest, ErrUnauthorized}, nil, nil},
		"the server knows no HEAD":         {beside(404, 404, 405), []error{ErrNoDigest}, []error{ErrUnreachable}, nil},
		"the server fails for the first":   {beside(500, 404, 200), []error{ErrUnreachable}, []error{ErrNoDigest}, nil},
		"the server fails for the second":  {beside(403, 503, 200), []error{ErrUnreachable}, []error{ErrNoDigest}, nil},
		"the server fails for the archive": {beside(404, 404, 500), []error{ErrUnreachable}, []error{ErrNoDigest}, nil},
		"too many requests for a while":    {beside(429, 404, 200), []error{ErrUnreachable}, []error{ErrNoDigest}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := tt.source.Digest(t.Context(), "7.14.3")
			for _, want := range tt.want {
				require.ErrorIs(t, err, want)
			}
			for _, not := range tt.not {
				require.NotErrorIs(t, err, not)
			}
			for _, text := range tt.text {
				require.ErrorContains(t, err, text)
			}
		})
	}
}

// The server's clock is years behind: only the distance of its two times counts.
var serversNow = time.Date(2001, 2, 3, 4, 5, 6, 0, time.UTC)

func limited(w http.ResponseWriter, status int, headers ...string) {
	w.Header().Set("Date", serversNow.Format(http.TimeFormat))
	for i := 0; i < len(headers); i += 2 {
		w.Header().Set(headers[i], headers[i+1])
	}
	w.WriteHeader(status)
}

func reset(in time.Duration) string { return strconv.FormatInt(serversNow.Add(in).Unix(), 10) }

func TestShortRateLimitsAreWaitedFor(t *testing.T) {
	for name, answer := range map[string]func(w http.ResponseWriter){
		"403 with Retry-After": func(w http.ResponseWriter) { limited(w, 403, "Retry-After", "1") },
		"429 with Retry-After": func(w http.ResponseWriter) { limited(w, 429, "Retry-After", "1") },
		"403 with a reset": func(w http.ResponseWriter) {
			limited(w, 403, "X-RateLimit-Remaining", "0", "X-RateLimit-Reset", reset(time.Second))
		},
		"429 with a reset": func(w http.ResponseWriter) {
			limited(w, 429, "X-RateLimit-Remaining", "0", "X-RateLimit-Reset", reset(time.Second))
		},
		"a reset that has passed": func(w http.ResponseWriter) {
			limited(w, 403, "X-RateLimit-Remaining", "0", "X-RateLimit-Reset", reset(-time.Hour))
		},
		"403 without a time": func(w http.ResponseWriter) { limited(w, 403, "X-RateLimit-Remaining", "0") },
	} {
		t.Run(name, func(t *testing.T) {
			s, n := serve(t, func(n int, w http.ResponseWriter, r *http.Request) {
				if n == 1 {
					answer(w)
					return
				}
				fmt.Fprint(w, "archive")
			})
			got, err := readAll(t, s)
			require.NoError(t, err)
			require.Equal(t, "archive", got)
			require.EqualValues(t, 2, n.Load())
		})
	}
}

func TestLongRateLimits(t *testing.T) {
	for name, tt := range map[string]struct {
		answer func(w http.ResponseWriter)
		asked  int32
		text   string
	}{
		"403 with a reset": {func(w http.ResponseWriter) {
			limited(w, 403, "X-RateLimit-Remaining", "0", "X-RateLimit-Reset", reset(time.Hour))
		}, 1, "rate limited until 2001-02-03T05:05:06Z"},
		"429 with Retry-After": {func(w http.ResponseWriter) {
			limited(w, 429, "Retry-After", "7200")
		}, 1, "rate limited until 2001-02-03T06:05:06Z"},
		"403 with a date": {func(w http.ResponseWriter) {
			limited(w, 403, "Retry-After", serversNow.Add(time.Hour).Format(http.TimeFormat))
		}, 1, "rate limited until 2001-02-03T05:05:06Z"},
		"more seconds than there are": {func(w http.ResponseWriter) {
			limited(w, 429, "Retry-After", "9223372036854775807")
		}, 1, "rate limited until"},
		"again and again": {func(w http.ResponseWriter) {
			limited(w, 403, "X-RateLimit-Remaining", "0")
		}, 3, "rate limited"},
	} {
		t.Run(name, func(t *testing.T) {
			s, n := serve(t, func(_ int, w http.ResponseWriter, _ *http.Request) { tt.answer(w) })
			_, err := readAll(t, s)
			require.ErrorIs(t, err, ErrUnreachable)
			require.NotErrorIs(t, err, ErrUnauthorized)
			require.ErrorContains(t, err, tt.text)
			require.EqualValues(t, tt.asked, n.Load())
		})
	}
}

func TestKindsOfErrors(t *testing.T) {
	kinds := []error{ErrUnreachable, ErrNotFound, ErrUnauthorized, ErrNoDigest, ErrChanged, ErrTooLarge}
	for status, want := range map[int]error{
		401: ErrUnauthorized, 403: ErrUnauthorized, 404: ErrNotFound, 410: ErrNotFound,
		400: ErrUnreachable, 407: ErrUnreachable, 408: ErrUnreachable, 500: ErrUnreachable, 501: ErrUnreachable,
	} {
		s, _ := serve(t, func(n int, w http.ResponseWriter, r *http.Request) { w.WriteHeader(status) })
		_, err := readAll(t, s)
		for _, kind := range kinds {
			require.Equal(t, kind == want, errors.Is(err, kind), "%d: %v is %v", status, err, kind)
		}
		require.ErrorContains(t, err, strconv.Itoa(status))
	}
}

// The nodes of a CDN do not agree about the ETag of one and the same file.
func TestETagsOfNodes(t *testing.T) {
	data := noise(testChunk*5 + 1)
	node := func(n int, w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", fmt.Sprintf("%q", strconv.Itoa(n)))
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
	}
	s, _ := serve(t, node)
	s.Chunk = testChunk
	got, sums, _, err := readIn(t, s, t.TempDir(), digestOf(data))
	require.NoError(t, err)
	require.True(t, got == string(data))
	require.Equal(t, digestOf(data).Hex, sums["sha256"])

	dir := t.TempDir()
	half(t, s, dir, digestOf(data))
	_, sums, d, err := readIn(t, s, dir, digestOf(data))
	require.NoError(t, err)
	require.Positive(t, d.Reused)
	require.Equal(t, digestOf(data).Hex, sums["sha256"])

	_, _, _, err = readIn(t, s, t.TempDir(), Digest{})
	require.ErrorIs(t, err, ErrChanged, "nobody else says what the bytes must be")

	grows, _ := serve(t, func(n int, w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(append(bytes.Clone(data), make([]byte, n)...)))
	})
	grows.Chunk = testChunk
	_, _, _, err = readIn(t, grows, t.TempDir(), digestOf(data))
	require.ErrorIs(t, err, ErrChanged, "another size is another archive")
}

func TestHTTPSMustNotBecomeHTTP(t *testing.T) {
	var plain atomic.Int32
	insecure := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		plain.Add(1)
		fmt.Fprint(w, "archive")
	}))
	t.Cleanup(insecure.Close)
	var asked atomic.Int32
	secure := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		http.Redirect(w, r, insecure.URL, http.StatusFound)
	}))
	t.Cleanup(secure.Close)
	s, _ := serve(t, nil)
	s.URL, s.Client = secure.URL, secure.Client()
	_, err := readAll(t, s)
	require.ErrorIs(t, err, ErrUnreachable)
	require.ErrorContains(t, err, "from https to http")
	require.Zero(t, plain.Load())
	require.EqualValues(t, 1, asked.Load(), "it will not get better")

	// The other way round is what many servers do.
	data := noise(100)
	secure2 := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { content(w, r, data, nil) }))
	t.Cleanup(secure2.Close)
	up, _ := serve(t, func(n int, w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, secure2.URL, http.StatusFound)
	})
	up.Client = secure2.Client()
	got, err := readAll(t, up)
	require.NoError(t, err)
	require.True(t, got == string(data))
}

func TestServersThatRefuseRanges(t *testing.T) {
	data := noise(testChunk*5 + 1)
	for _, status := range []int{400, 403, 405, 416, 501} {
		t.Run(strconv.Itoa(status), func(t *testing.T) {
			var refused, whole atomic.Int32
			s, _ := serve(t, func(n int, w http.ResponseWriter, r *http.Request) {
				if r.Header.Get("Range") != "" {
					refused.Add(1)
					w.WriteHeader(status)
					return
				}
				w.Header().Set("Content-Length", strconv.Itoa(len(data)))
				if whole.Add(1) == 1 {
					w.Write(data[:testChunk*2+100]) // breaks off
					return
				}
				w.Write(data)
			})
			s.Chunk = testChunk
			got, sums, _, err := readIn(t, s, t.TempDir(), digestOf(data))
			require.NoError(t, err)
			require.True(t, got == string(data))
			require.Equal(t, digestOf(data).Hex, sums["sha256"])
			require.EqualValues(t, 1, refused.Load(), "a refusal is remembered")
			require.EqualValues(t, 2, whole.Load())
		})
	}
}

func TestRedirectsAreWalkedOnce(t *testing.T) {
	const chunks = 6
	data := noise(testChunk * chunks)
	for name, refuse := range map[string]func(w http.ResponseWriter){
		"signed for ever": nil,
		"401":             func(w http.ResponseWriter) { w.WriteHeader(401) },
		"403":             func(w http.ResponseWriter) { w.WriteHeader(403) },
		"404":             func(w http.ResponseWriter) { w.WriteHeader(404) },
		"410":             func(w http.ResponseWriter) { w.WriteHeader(410) },
		"503":             func(w http.ResponseWriter) { w.WriteHeader(503) },
		"no answer":       func(w http.ResponseWriter) { panic(http.ErrAbortHandler) },
	} {
		t.Run(name, func(t *testing.T) {
			var mu sync.Mutex
			used := map[string]int{} // requests by signature
			storage := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				signature := r.URL.Query().Get("signature")
				mu.Lock()
				used[signature]++
				expired := used[signature] > 2
				mu.Unlock()
				switch {
				case r.Header.Get("Authorization") != "":
					t.Error("the token went to another host")
				case expired && refuse != nil:
					refuse(w)
				default:
					content(w, r, data, nil)
				}
			}))
			t.Cleanup(storage.Close)
			s, walked := serve(t, func(n int, w http.ResponseWriter, r *http.Request) {
				if r.Header.Get("Authorization") != "Bearer hunter2" {
					w.WriteHeader(http.StatusUnauthorized)
					return
				}
				http.Redirect(w, r, storage.URL+"?signature="+strconv.Itoa(n), http.StatusFound)
			})
			s.Chunk, s.Token, s.Connections = testChunk, "hunter2", 2
			got, sums, _, err := readIn(t, s, t.TempDir(), digestOf(data))
			require.NoError(t, err)
			require.True(t, got == string(data))
			require.Equal(t, digestOf(data).Hex, sums["sha256"])
			if refuse == nil {
				require.EqualValues(t, 1, walked.Load())
				return
			}
			// Each signature is good for two chunks, and may be found to have
			// expired by both connections.
			require.GreaterOrEqual(t, walked.Load(), int32(chunks/2))
			require.Less(t, walked.Load(), int32(chunks))
		})
	}
}

func TestDroppedTransferWalksAgain(t *testing.T) {
	data := noise(testChunk * 20)
	var walked atomic.Int32
	storage := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("node") == "1" { // sick: each body breaks off at once
			w.Header().Set("Content-Range", fmt.Sprintf("bytes 0-%d/%d", testChunk-1, len(data)))
			w.Header().Set("Content-Length", strconv.Itoa(testChunk))
			w.WriteHeader(http.StatusPartialContent)
			return
		}
		content(w, r, data, nil)
	}))
	t.Cleanup(storage.Close)
	s, _ := serve(t, func(n int, w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, storage.URL+"?node="+strconv.Itoa(int(walked.Add(1))), http.StatusFound)
	})
	s.Chunk = testChunk
	got, _, _, err := readIn(t, s, t.TempDir(), digestOf(data))
	require.NoError(t, err)
	require.True(t, got == string(data))
	// Each connection may have begun at the sick node.
	require.LessOrEqual(t, walked.Load(), int32(1+DefaultConnections))
}

func TestBodiesWithoutBound(t *testing.T) {
	for name, announce := range map[string]bool{"announced": true, "without a length": false} {
		t.Run(name, func(t *testing.T) {
			ended := make(chan struct{})
			s, n := serve(t, func(n int, w http.ResponseWriter, r *http.Request) {
				defer close(ended)
				if announce {
					w.Header().Set("Content-Length", strconv.FormatInt(1<<62, 10))
				}
				for block := noise(64 << 10); r.Context().Err() == nil; {
					if _, err := w.Write(block); err != nil {
						return
					}
				}
			})
			s.MaxBytes = 1 << 20
			dir := t.TempDir()
			_, _, _, err := readIn(t, s, dir, digestOf(nil))
			require.ErrorIs(t, err, ErrTooLarge)
			require.NotErrorIs(t, err, ErrUnreachable)
			require.ErrorContains(t, err, "1048576")
			<-ended
			require.EqualValues(t, 1, n.Load(), "it is not asked again")
			require.LessOrEqual(t, sizeOf(t, dir), int64(1<<20))
		})
	}
	exact, _ := serve(t, func(n int, w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "archive") })
	exact.MaxBytes = 7
	got, err := readAll(t, exact)
	require.NoError(t, err)
	require.Equal(t, "archive", got)
}

// Without MaxBytes a server may announce what it likes: nothing is set aside for it.
func TestHugeAnnouncement(t *testing.T) {
	s, _ := serve(t, func(n int, w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Range", "bytes 0-9/9223372036854775807")
		w.Header().Set("Content-Length", "10")
		w.WriteHeader(http.StatusPartialContent)
		w.Write(noise(10))
	})
	s.Chunk = 10
	d, err := s.Open(t.Context(), "7.14.3", rootOf(t, t.TempDir()), ".", Digest{})
	require.NoError(t, err)
	require.NoError(t, d.Close())
}

func TestStop(t *testing.T) {
	data := noise(testChunk * 40)
	var ended atomic.Int32
	s, asked := serve(t, func(n int, w http.ResponseWriter, r *http.Request) {
		defer ended.Add(1)
		var from, to int
		fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-%d", &from, &to)
		if from >= len(data)/2 {
			http.NewResponseController(w).Flush()
			<-r.Context().Done() // for ever, unless the client goes away
			return
		}
		content(w, r, data, nil)
	})
	s.Chunk, s.Policy.Stall = testChunk, time.Hour
	dir := t.TempDir()
	d, err := s.Open(t.Context(), "7.14.3", rootOf(t, dir), ".", digestOf(data))
	require.NoError(t, err)
	require.NoError(t, d.Start())
	_, err = io.CopyN(io.Discard, d.Reader(), int64(len(data)/3))
	require.NoError(t, err)
	require.Less(t, d.Stats().Remaining, int64(len(data)))
	refused := errors.New("no archive")
	d.Stop(refused)
	_, err = d.Reader().Read(make([]byte, 1))
	require.ErrorIs(t, err, refused)
	_, err = d.Wait()
	require.ErrorIs(t, err, refused)
	require.NoError(t, d.Close())
	before := sizeOf(t, dir)
	left := d.Stats().Remaining
	require.Eventually(t, func() bool { return ended.Load() == asked.Load() }, time.Minute, time.Millisecond, "a connection goes on")
	require.Equal(t, before, sizeOf(t, dir))
	require.Equal(t, left, d.Stats().Remaining)
}

// Bytes that a connection holds when the download is stopped are not written.
func TestNothingIsWrittenAfterStop(t *testing.T) {
	data := noise(testChunk)
	s, _ := serve(t, func(n int, w http.ResponseWriter, r *http.Request) { content(w, r, data, nil) })
	dir := t.TempDir()
	d, err := s.Open(t.Context(), "7.14.3", rootOf(t, dir), ".", digestOf(data))
	require.NoError(t, err)
	refused := errors.New("no archive")
	d.Stop(refused)
	require.NoError(t, d.Start())
	_, err = d.Wait()
	require.ErrorIs(t, err, refused)
	require.NoError(t, d.Close())
	require.Zero(t, sizeOf(t, dir))
	require.EqualValues(t, len(data), d.Stats().Remaining)
}

func TestRemaining(t *testing.T) {
	s, _ := serve(t, func(n int, w http.ResponseWriter, r *http.Request) {
		http.NewResponseController(w).Flush()
		w.Write(noise(100))
	})
	d, err := s.Open(t.Context(), "7.14.3", rootOf(t, t.TempDir()), ".", Digest{})
	require.NoError(t, err)
	defer d.Close()
	require.EqualValues(t, -1, d.Stats().Remaining, "the server does not say")
	require.NoError(t, d.Start())
	_, err = d.Wait()
	require.NoError(t, err)
	require.Zero(t, d.Stats().Remaining)
}

func TestTokenAndListing(t *testing.T) {
	var leaked atomic.Int32
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "" {
			leaked.Add(1)
		}
		fmt.Fprint(w, `[{"tag_name":"v2.0.0"}]`)
	}))
	t.Cleanup(other.Close)
	for _, redirected := range []bool{false, true} {
		s, _ := serve(t, func(n int, w http.ResponseWriter, r *http.Request) {
			switch {
			case r.Header.Get("Authorization") != "Bearer hunter2":
				w.WriteHeader(http.StatusNotFound) // as GitHub does for private repositories
			case redirected:
				http.Redirect(w, r, other.URL, http.StatusFound)
			default:
				fmt.Fprint(w, `[{"tag_name":"v2.0.0"}]`)
			}
		})
		s.URL, s.Token = s.URL+"/o/r", "hunter2"
		newest, err := s.Newest(t.Context(), testVersion)
		require.NoError(t, err)
		require.Equal(t, "2.0.0", newest)
		require.Zero(t, leaked.Load())
	}
}

func TestNewest(t *testing.T) {
	const api = "/api/v3/repos/o/r/releases"
	listing := func(text string) func(n int, w http.ResponseWriter, r *http.Request) {
		return func(n int, w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != api || r.URL.Query().Get("per_page") != "100" {
				http.NotFound(w, r)
				return
			}
			fmt.Fprint(w, text)
		}
	}
	for name, tt := range map[string]struct {
		answer func(n int, w http.ResponseWriter, r *http.Request)
		want   string
		err    error
	}{
		"published last is not the highest": {listing(`[{"tag_name":"v7.11.9"},{"tag_name":"v7.14.3"},{"tag_name":"v7.9.10"}]`), "7.14.3", nil},
		"compared by number":                {listing(`[{"tag_name":"v7.9.10"},{"tag_name":"v7.10.2"},{"tag_name":"v7.10.10"}]`), "7.10.10", nil},
		"drafts and prereleases do not count": {listing(`[{"tag_name":"v9.0.0","draft":true},{"tag_name":"v8.0.0","prerelease":true},
			{"tag_name":"v7.14.3"},{"tag_name":"v8.0.0-rc.1"},{"tag_name":"bosh-99"}]`), "7.14.3", nil},
		"none is stable": {listing(`[{"tag_name":"v9.0.0","draft":true}]`), "", ErrNotFound},
		"none at all":    {listing(`[]`), "", ErrNotFound},
		"no listing": {func(n int, w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != api+"/latest" {
				http.NotFound(w, r)
				return
			}
			fmt.Fprint(w, `{"tag_name":"v7.14.3"}`)
		}, "7.14.3", nil},
		"no listing, and an odd tag": {func(n int, w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != api+"/latest" {
				http.NotFound(w, r)
				return
			}
			fmt.Fprint(w, `{"tag_name":"nightly"}`)
		}, "", ErrNotFound},
		"neither":                          {func(n int, w http.ResponseWriter, r *http.Request) { http.NotFound(w, r) }, "", ErrNotFound},
		"no access":                        {func(n int, w http.ResponseWriter, r *http.Request) { w.WriteHeader(401) }, "", ErrUnauthorized},
		"a server that fails":              {func(n int, w http.ResponseWriter, r *http.Request) { w.WriteHeader(500) }, "", ErrUnreachable},
		"nonsense":                         {listing(`[{"tag_name":`), "", ErrUnreachable},
		"more than 1 MiB of release notes": {listing(`[{"tag_name":"v7.14.3","body":"` + strings.Repeat("x", 3<<20) + `"},{"tag_name":"v7.14.4"}]`), "7.14.4", nil},
	} {
		t.Run(name, func(t *testing.T) {
			s, _ := serve(t, tt.answer)
			s.URL += "/o/r"
			got, err := s.Newest(context.Background(), testVersion)
			require.ErrorIs(t, err, tt.err)
			require.Equal(t, tt.want, got)
		})
	}
	require.True(t, trusts("https://github.com/o/r", "https://api.github.com/repos"))
	require.False(t, trusts("https://github.com/o/r", "http://api.github.com/repos"))
	require.False(t, trusts("https://example.com/o/r", "https://api.github.com/repos"))
	require.False(t, trusts("https://example.com/o/r", "http://example.com/o/r"))
	require.False(t, trusts("https://example.com/o/r", "https://example.com:444/o/r"))
}

func trusts(source, target string) bool {
	u, err := url.Parse(target)
	return err == nil && Source{URL: source}.trusts(u)
}

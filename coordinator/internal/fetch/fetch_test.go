package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func serve(t *testing.T, answer func(n int, w http.ResponseWriter, r *http.Request)) (Source, *atomic.Int32) {
	var n atomic.Int32
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer(int(n.Add(1)), w, r)
	}))
	t.Cleanup(s.Close)
	return Source{
		URL: s.URL, Archive: testArchive, Client: NewClient(),
		Policy: Policy{Attempts: 3, Pause: time.Millisecond, Stall: 100 * time.Millisecond},
	}, &n
}

func testArchive(version, arch string) string {
	return "releases/download/v" + version + "/concourse-" + version + "-linux-" + arch + ".tgz"
}

func testVersion(tag string) (string, error) {
	m := regexp.MustCompile(`^v(\d+\.\d+\.\d+)$`).FindStringSubmatch(tag)
	if m == nil {
		return "", errors.New("no version")
	}
	return m[1], nil
}

func rootOf(t *testing.T, dir string) *os.Root {
	root, err := os.OpenRoot(dir)
	require.NoError(t, err)
	t.Cleanup(func() { root.Close() })
	return root
}

// readIn downloads into dir and reads beside it.
func readIn(t *testing.T, s Source, dir string, want Digest) (string, map[string]string, *Download, error) {
	d, err := s.Open(context.Background(), "7.14.3", rootOf(t, dir), ".", want)
	if err != nil {
		return "", nil, nil, err
	}
	defer d.Close()
	require.NoError(t, d.Start())
	data, err := io.ReadAll(d.Reader())
	if err != nil {
		return "", nil, d, err
	}
	sums, err := d.Wait()
	return string(data), sums, d, err
}

func readAll(t *testing.T, s Source) (string, error) {
	data, _, _, err := readIn(t, s, t.TempDir(), Digest{})
	return data, err
}

func TestRetries(t *testing.T) {
	for _, status := range []int{500, 502, 503, 429} {
		s, n := serve(t, func(n int, w http.ResponseWriter, r *http.Request) {
			if n < 3 {
				w.WriteHeader(status)
				return
			}
			fmt.Fprint(w, "archive")
		})
		data, err := readAll(t, s)
		require.NoError(t, err, status)
		require.Equal(t, "archive", data)
		require.EqualValues(t, 3, n.Load())
	}
	for status, want := range map[int]int32{404: 1, 410: 1, 401: 1, 403: 2, 400: 2, 501: 2} {
		s, n := serve(t, func(n int, w http.ResponseWriter, r *http.Request) { w.WriteHeader(status) })
		_, err := readAll(t, s)
		require.Error(t, err)
		require.EqualValues(t, want, n.Load(), "%d will not get better, but for another request", status)
	}
}

func TestStall(t *testing.T) {
	s, n := serve(t, func(n int, w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "10")
		if n == 1 {
			fmt.Fprint(w, "01234")
			http.NewResponseController(w).Flush()
			<-r.Context().Done()
			return
		}
		fmt.Fprint(w, "0123456789") // knows no ranges
	})
	data, err := readAll(t, s)
	require.NoError(t, err)
	require.Equal(t, "0123456789", data)
	require.EqualValues(t, 2, n.Load())

	silent, _ := serve(t, func(n int, w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "10")
		http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})
	_, err = readAll(t, silent)
	require.ErrorIs(t, err, ErrUnreachable)
	require.ErrorIs(t, err, errStalled)
}

func TestChangedArchive(t *testing.T) {
	s, _ := serve(t, func(n int, w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", fmt.Sprintf("%q", fmt.Sprint(n)))
		if n == 1 {
			w.Header().Set("Content-Length", "10")
			fmt.Fprint(w, "01234")
			return
		}
		require.Equal(t, `"1"`, r.Header.Get("If-Range"))
		http.ServeContent(w, r, "", time.Time{}, strings.NewReader("other"))
	})
	_, err := readAll(t, s)
	require.ErrorIs(t, err, ErrUnreachable)
	require.ErrorContains(t, err, "changed")
}

func TestSHA1IsTheSecondChoice(t *testing.T) {
	const sum = "a9993e364706816aba3e25717850c26c9cd0d89d"
	s, _ := serve(t, func(n int, w http.ResponseWriter, r *http.Request) {
		if !strings.HasSuffix(r.URL.Path, "/releases/download/v7.14.3/concourse-7.14.3-linux-"+runtime.GOARCH+".tgz.sha1") {
			http.NotFound(w, r)
			return
		}
		fmt.Fprintf(w, "%s  concourse-7.14.3-linux-amd64.tgz\n", strings.ToUpper(sum))
	})
	d, err := s.Digest(context.Background(), "7.14.3")
	require.NoError(t, err)
	require.Equal(t, "sha1:"+sum, d.String())
}

// A firewall that drops packets lets every deadline pass.
func TestDeadlineNamesTheSource(t *testing.T) {
	silent, _ := serve(t, func(n int, w http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	busy, _ := serve(t, func(n int, w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Retry-After", "30")
		w.WriteHeader(http.StatusServiceUnavailable)
	})
	for name, test := range map[string]struct {
		source Source
		text   string
	}{"while it waits for an answer": {silent, "no answer"}, "between two attempts": {busy, "503"}} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
			defer cancel()
			_, err := test.source.Digest(ctx, "7.14.3")
			require.ErrorIs(t, err, ErrUnreachable)
			require.ErrorIs(t, err, context.DeadlineExceeded)
			require.ErrorContains(t, err, test.source.ArchiveURL("7.14.3"))
			require.ErrorContains(t, err, test.text)
		})
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err := silent.Digest(ctx, "7.14.3")
	require.Equal(t, context.Canceled, err, "who cancels knows why")
}

func TestPasswordsStayOut(t *testing.T) {
	s, _ := serve(t, func(n int, w http.ResponseWriter, r *http.Request) { w.WriteHeader(500) })
	s.URL = strings.Replace(s.URL, "http://", "http://user:hunter2@", 1)
	_, err := readAll(t, s)
	require.ErrorIs(t, err, ErrUnreachable)
	require.NotContains(t, err.Error(), "hunter2")
	_, err = s.Digest(context.Background(), "7.14.3")
	require.NotContains(t, err.Error(), "hunter2")
}

// sizeOf returns the length of the partial archive.
func sizeOf(t *testing.T, dir string) int64 {
	info, err := os.Stat(filepath.Join(dir, partialName))
	if errors.Is(err, fs.ErrNotExist) {
		return 0
	}
	require.NoError(t, err)
	return info.Size()
}

// inProcess is a transport without a network: fuzzing makes too many connections
// for one.
type inProcess http.HandlerFunc

func (p inProcess) RoundTrip(r *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	p(w, r.Clone(r.Context()))
	resp := w.Result()
	resp.Request = r
	return resp, nil
}

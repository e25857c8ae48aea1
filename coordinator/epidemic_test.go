package coordinator

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"math/rand/v2"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/lyingfs"
	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/needs"
)

// epidemic is a volume on which nobody can install, its source and its units.
type epidemic struct {
	t       *testing.T
	root    string
	src     *source
	now     time.Time
	units   []*Coordinator
	restart time.Duration // after which each unit is another process; 0 for never
	options func(unit int, o *Options)
	max     int64 // bytes of an archive that is accepted; 0 for the usual

	files map[string][]byte // of the source when nothing was wrong
	heal  func()
}

func newEpidemic(t *testing.T, root string) *epidemic {
	e := &epidemic{t: t, root: root, src: newSource(t), now: time.Now(), options: func(int, *Options) {}}
	e.src.publish("7.14.3", releaseArchive("7.14.3", 4<<20))
	e.files = map[string][]byte{}
	for name, data := range e.src.files {
		e.files[name] = data
	}
	e.heal = func() {
		e.src.answer(nil)
		for name, data := range e.files {
			e.src.serve(name, data)
		}
	}
	return e
}

// serve makes the source have a file.
func (s *source) serve(name string, data []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.files[name] = data
}

func (e *epidemic) start() {
	e.units = nil
	for i := range 3 {
		e.units = append(e.units, open(e.t, e.root, fmt.Sprintf("ci/%d", i), e.src.URL, func(o *Options) { e.options(i, o) }))
		e.units[i].memory.now = func() time.Time { return e.now }
		if e.max > 0 {
			e.units[i].source.MaxBytes = e.max
		}
	}
}

// pass lets time go by. It returns the last error of each unit, and how long it took
// until the first of them succeeded; it goes on until then, or for d.
func (e *epidemic) pass(d time.Duration, each func(unit int, err error)) (errs [3]error, took time.Duration, installed bool) {
	if e.units == nil {
		e.start()
	}
	begin := e.now
	for ; e.now.Sub(begin) <= d; e.now = e.now.Add(callEvery) {
		if e.restart > 0 && e.now.Sub(begin)%e.restart == 0 {
			e.start()
		}
		for i, c := range e.units {
			var r Release
			r, errs[i] = c.Ensure(e.t.Context(), "7.14.3")
			if each != nil {
				each(i, errs[i])
			} else if errs[i] == nil {
				require.Equal(e.t, "7.14.3", r.Version)
				return errs, e.now.Sub(begin), true
			}
		}
	}
	return errs, e.now.Sub(begin), false
}

// bill is what a source has sent.
type bill struct {
	archives, bytes int // requests for archives, and what they moved
	looks, most     int // other requests, and the largest answer to one
}

func (e *epidemic) bill() (b bill) {
	e.src.mu.Lock()
	defer e.src.mu.Unlock()
	for _, r := range e.src.ledger {
		if strings.HasSuffix(r.path, ".tgz") && r.bytes > 0 {
			b.archives++
			b.bytes += r.bytes
		} else {
			b.looks++
			b.most = max(b.most, r.bytes)
		}
	}
	return b
}

func (e *epidemic) forget() {
	e.src.mu.Lock()
	defer e.src.mu.Unlock()
	e.src.ledger = nil
}

// republish gives the source another archive of the same version.
func (e *epidemic) republish(archive []byte) { e.src.publish("7.14.3", archive) }

// unsized makes the source send archives without telling their length.
func (e *epidemic) unsized() {
	e.src.answer(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, ".tgz") || r.Method == http.MethodHead {
			return false
		}
		e.src.mu.Lock()
		data := e.src.files[filepath.Base(r.URL.Path)]
		e.src.mu.Unlock()
		for len(data) > 0 {
			n, err := w.Write(data[:min(len(data), 64<<10)])
			if err != nil {
				return true
			}
			http.NewResponseController(w).Flush()
			data = data[n:]
		}
		return true
	})
}

func endlessNoise(size int) []byte {
	data := make([]byte, size)
	rand.NewChaCha8([32]byte{}).Read(data)
	return data
}

// remount changes how a tmpfs is mounted.
func (e *epidemic) remount(flags uintptr, options string) {
	require.NoError(e.t, syscall.Mount("", e.root, "", unix.MS_REMOUNT|flags, options))
}

// onTmpfs mounts a file system that can be remounted, full or not.
func onTmpfs(options string) func(t *testing.T) string {
	return func(t *testing.T) string {
		dir := t.TempDir()
		needs.Mount(t, "tmpfs", dir, "tmpfs", 0, options)
		return dir
	}
}

// pinned returns the digest of what the source has.
func (e *epidemic) pinned() string {
	sum, _, _ := strings.Cut(string(e.src.files[endlessArchive+".sha256"]), " ")
	return "sha256:" + strings.TrimSpace(sum)
}

// breaksOff makes every answer to a request for an archive end in the middle.
func (e *epidemic) breaksOff(sized bool) {
	data := e.files[endlessArchive]
	e.src.answer(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, ".tgz") {
			return false
		}
		if sized {
			w.Header().Set("Content-Length", fmt.Sprint(len(data)))
			w.Header().Set("ETag", `"`+fmt.Sprint(len(data))+`"`)
		}
		if r.Method == http.MethodHead {
			return true
		}
		w.Write(data[:len(data)/2])
		http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	})
}

// status makes the source refuse everything.
func (s *source) status(code int) {
	s.answer(func(w http.ResponseWriter, r *http.Request) bool {
		w.WriteHeader(code)
		return true
	})
}

func gzipped(data []byte) []byte {
	var b bytes.Buffer
	gz := gzip.NewWriter(&b)
	gz.Write(data)
	gz.Close()
	return b.Bytes()
}

// onLies mounts a directory through a file server that lies, in its own process.
func onLies(t *testing.T) string {
	needs.Root(t)
	backing, dir := t.TempDir(), t.TempDir()
	server, lies, told, in := helper(t, "TestHungServer", "TEST_HUNG_BACKING="+backing, "TEST_HUNG_DIR="+dir)
	t.Cleanup(func() {
		in.Close()
		server.Wait()
		unix.Unmount(dir, unix.MNT_DETACH)
	})
	var refused string
	require.NoError(t, told.Decode(&refused))
	if refused != "" {
		needs.Lack(t, "fuse", "cannot mount with FUSE here: %s", refused)
	}
	liars.Store(dir, func(l lyingfs.Lies) {
		require.NoError(t, lies.Encode(l))
		require.NoError(t, told.Decode(&refused))
	})
	t.Cleanup(func() { liars.Delete(dir) })
	return dir
}

// liars tell lies to the mounts of onLies.
var liars sync.Map // directory -> func(lyingfs.Lies)

func (e *epidemic) lie(l lyingfs.Lies) {
	liar, _ := liars.Load(e.root)
	tell := liar.(func(lyingfs.Lies))
	e.start()
	tell(l)
	e.heal = func() { tell(lyingfs.Lies{}) }
}

func newEpidemicOf(t *testing.T, volume func(*testing.T) string, spoil func(*epidemic)) *epidemic {
	if volume == nil {
		volume = func(t *testing.T) string { return t.TempDir() }
	}
	e := newEpidemic(t, volume(t))
	spoil(e)
	if e.units == nil {
		e.start()
	}
	return e
}

// archiveSize is that of what the source has, or what is accepted if that never ends.
func (e *epidemic) archiveSize() int64 {
	e.src.mu.Lock()
	defer e.src.mu.Unlock()
	return max(int64(len(e.src.files[endlessArchive])), min(e.max, 8<<20))
}

func (e *epidemic) with(digest string) *Coordinator {
	return open(e.t, e.root, "ci/0", e.src.URL, func(o *Options) { o.Digest = digest })
}

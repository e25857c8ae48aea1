package coordinator

import (
	"archive/tar"
	"compress/gzip"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/lyingfs"
	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/needs"
	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/probe"
)

// As long as something cannot be installed, callers ask for it every few seconds, on
// every machine. What that costs is what these tests measure: by a virtual clock, in
// bytes that the source has sent.
const (
	callEvery = 10 * time.Second
	noticed   = 30 * time.Second // that the cause is gone, after at most
	lookBytes = 1000             // of a request that is no download, at most
)

const endlessArchive = "concourse-7.14.3-linux-amd64.tgz"

// causes are why a release cannot be installed.
var causes = []struct {
	name   string
	volume func(t *testing.T) string // nil for a directory
	spoil  func(e *epidemic)         // makes e.heal undo it, unless the source alone is to blame
	is     error
	most   float64 // archives an hour, of the size that the cause has
	slow   bool    // each call takes seconds: a minute must do
}{
	{name: "side file has another digest", is: ErrDigest, most: 2, spoil: func(e *epidemic) {
		e.src.serve(endlessArchive+".sha256", []byte(strings.Repeat("0", 64)+"\n"))
	}},
	{name: "another archive than its side file says", is: ErrDigest, most: 2, spoil: func(e *epidemic) {
		e.src.serve(endlessArchive, releaseArchive("7.14.2", 4<<20))
	}},
	{name: "pinned digest differs from the side file", is: ErrDigest, most: 2, spoil: func(e *epidemic) {
		pinned := e.pinned()
		e.options = func(_ int, o *Options) { o.Digest = pinned }
		e.republish(releaseArchive("7.14.2", 4<<20))
	}},
	{name: "a zip of 30 MB", is: ErrNotArchive, most: 2, spoil: func(e *epidemic) {
		e.republish(append([]byte("PK\x03\x04"), endlessNoise(30<<20)...))
	}},
	{name: "a zip of 4 MB", is: ErrNotArchive, most: 2, spoil: func(e *epidemic) {
		e.republish(append([]byte("PK\x03\x04"), endlessNoise(4<<20)...))
	}},
	{name: "gzip, but no tar", is: ErrNotArchive, most: 2, spoil: func(e *epidemic) { e.republish(gzipped(endlessNoise(4 << 20))) }},
	{name: "hostile entry at the start of 40 MB", is: ErrNotArchive, most: 2, spoil: func(e *epidemic) {
		e.republish(tarball(member{name: "concourse/../../x"}, member{name: "concourse/bin/concourse", mode: 0o755, body: string(endlessNoise(40 << 20))}))
	}},
	{name: "no executable", is: ErrNotArchive, most: 2, spoil: func(e *epidemic) {
		e.republish(tarball(member{name: "concourse/README", body: string(endlessNoise(4 << 20))}))
	}},
	{name: "larger than allowed, size unknown", is: ErrTooLarge, most: 2, spoil: func(e *epidemic) {
		e.max = 8 << 20
		e.republish(releaseArchive("7.14.3", 40<<20))
		e.unsized()
	}},
	// What counts as an archive here is what is accepted of it, and what is on its way
	// then in the buffers of a connection.
	{name: "a body that never ends", is: ErrTooLarge, most: 4, spoil: func(e *epidemic) {
		e.max = 8 << 20
		e.republish(nil)
		e.src.answer(func(w http.ResponseWriter, r *http.Request) bool {
			if !strings.HasSuffix(r.URL.Path, ".tgz") || r.Method == http.MethodHead {
				return false
			}
			gz := gzip.NewWriter(w)
			tw := tar.NewWriter(gz)
			err := tw.WriteHeader(&tar.Header{Name: "concourse/bin/concourse", Mode: 0o755, Size: 1 << 30})
			for err == nil { // as long as somebody reads
				_, err = tw.Write(endlessNoise(64 << 10))
			}
			return true
		})
	}},
	{name: "announced to be too large", is: ErrTooLarge, most: 2, spoil: func(e *epidemic) {
		e.max = 8 << 20
		e.republish(releaseArchive("7.14.3", 12<<20))
	}},
	{name: "full volume, size known", volume: onTmpfs("size=6m"), is: ErrNoSpace, most: 2, spoil: func(e *epidemic) {
		// Servers fill the buffers of a connection, also of one that is closed at once.
		e.heal = func() { e.remount(0, "size=64m") }
	}},
	{name: "full volume, size known, inflates", volume: onTmpfs("size=64m"), is: ErrNoSpace, most: 2, spoil: func(e *epidemic) {
		e.republish(tarball(member{name: "concourse/bin/concourse", mode: 0o755, body: string(endlessNoise(4<<20)) + strings.Repeat("\x00", 80<<20)}))
		e.heal = func() { e.remount(0, "size=256m") }
	}},
	{name: "full volume, size unknown", volume: onTmpfs("size=6m"), is: ErrNoSpace, most: 2, spoil: func(e *epidemic) {
		e.unsized()
		e.heal = func() { e.remount(0, "size=64m") }
	}},
	{name: "no inodes", volume: onTmpfs("size=64m,nr_inodes=60"), is: probe.ErrNoInodes, slow: true, spoil: func(e *epidemic) {
		e.heal = func() { e.remount(0, "nr_inodes=1000") }
	}},
	{name: "too few inodes for its files", volume: onTmpfs("size=64m,nr_inodes=200"), is: ErrNoSpace, most: 2, spoil: func(e *epidemic) {
		members := []member{{name: "concourse/bin/concourse", mode: 0o755, body: string(endlessNoise(4 << 20))}}
		for i := range 300 {
			members = append(members, member{name: fmt.Sprintf("concourse/%d", i)})
		}
		e.republish(tarball(members...))
		e.heal = func() { e.remount(0, "nr_inodes=1000") }
	}},
	{name: "no modes", volume: onLies, is: probe.ErrNoModes, slow: true, spoil: func(e *epidemic) { e.lie(lyingfs.Lies{Modeless: true}) }},
	{name: "renames are refused (EXDEV)", volume: onLies, is: probe.ErrUnfit, slow: true, spoil: func(e *epidemic) {
		e.lie(lyingfs.Lies{Refused: map[lyingfs.Request]syscall.Errno{lyingfs.Renaming: syscall.EXDEV}})
	}},
	{name: "a mount in the store", is: probe.ErrCrossDevice, slow: true, spoil: func(e *epidemic) {
		dir := filepath.Join(e.root, storeDir)
		require.NoError(e.t, os.MkdirAll(dir, 0o755))
		needs.Mount(e.t, "tmpfs", dir, "tmpfs", 0, "size=64m")
		e.heal = func() { require.NoError(e.t, unix.Unmount(dir, 0)) }
	}},
	{name: "read-only", volume: onTmpfs("size=64m"), is: probe.ErrReadOnly, most: 0, spoil: func(e *epidemic) {
		e.start()
		e.remount(unix.MS_RDONLY, "")
		e.heal = func() { e.remount(0, "") }
	}},
	{name: "noexec", volume: onTmpfs("size=64m"), is: probe.ErrNoExec, slow: true, spoil: func(e *epidemic) {
		e.remount(unix.MS_NOEXEC, "")
		e.heal = func() { e.remount(0, "") }
	}},
	{name: "breaks off, size known", is: ErrUnreachable, most: 2, spoil: func(e *epidemic) { e.breaksOff(true) }},
	{name: "breaks off, size unknown", is: ErrUnreachable, most: 2, spoil: func(e *epidemic) { e.breaksOff(false) }},
	{name: "no such release", is: ErrNotFound, most: 0, spoil: func(e *epidemic) { e.src.status(http.StatusNotFound) }},
	{name: "forbidden", is: ErrUnauthorized, most: 0, spoil: func(e *epidemic) { e.src.status(http.StatusForbidden) }},
	{name: "forbidden archive", is: ErrUnauthorized, most: 0, spoil: func(e *epidemic) {
		e.src.answer(func(w http.ResponseWriter, r *http.Request) bool {
			if strings.HasSuffix(r.URL.Path, ".tgz") {
				w.WriteHeader(http.StatusForbidden)
			}
			return strings.HasSuffix(r.URL.Path, ".tgz")
		})
	}},
}

// everyDay are the causes that are tried without COORDINATOR_EXPLORE.
var everyDay = []string{
	"side file has another digest", "pinned digest differs from the side file", "a zip of 30 MB",
	"hostile entry at the start of 40 MB", "full volume, size known", "no inodes", "a mount in the store",
	"noexec", "breaks off, size known", "breaks off, size unknown",
}

// Whatever the cause, an hour of three units costs two archives at most. That the
// cause is gone is noticed within half a minute, by small requests.
func TestNoEndlessDownloads(t *testing.T) {
	t.Parallel()
	for _, c := range causes {
		if os.Getenv("COORDINATOR_EXPLORE") == "" && !slices.Contains(everyDay, c.name) {
			continue // all of them take four minutes
		}
		t.Run(c.name, func(t *testing.T) {
			e := newEpidemicOf(t, c.volume, c.spoil)
			size := e.archiveSize()
			hour := time.Hour
			if c.slow {
				hour = time.Minute
			}
			errs, _, installed := e.pass(hour, nil)
			require.False(t, installed, "nothing was wrong")
			for _, err := range errs {
				require.ErrorIs(t, err, c.is)
			}
			b := e.bill()
			t.Logf("| %s | %d | %.2f | %d | %d | %d |", c.name, b.bytes, float64(b.bytes)/float64(size), b.archives, b.looks, b.most)
			require.LessOrEqual(t, float64(b.bytes), c.most*float64(size)*1.01, "bytes of archives")
			require.Less(t, b.most, lookBytes, "bytes of the largest look")

			e.pass(rand.N(hour/3), nil)
			e.forget()
			e.heal()
			_, took, installed := e.pass(noticed, nil)
			require.True(t, installed, "%v", errs)
			after := e.bill()
			t.Logf("noticed after %s, by %d requests of up to %d bytes", took, after.looks, after.most)
			require.Less(t, after.most, lookBytes, "bytes of the largest look")
		})
	}
}

// Units that are started anew know nothing of the pauses. They find what is noted, and
// count anew.
func TestNoEndlessDownloadsOfUnitsThatRestart(t *testing.T) {
	t.Parallel()
	for _, c := range causes {
		if c.volume != nil || os.Getenv("COORDINATOR_EXPLORE") == "" && !slices.Contains(everyDay, c.name) {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			e := newEpidemicOf(t, c.volume, c.spoil)
			e.restart = 5 * time.Minute
			size := e.archiveSize()
			_, _, installed := e.pass(time.Hour, nil)
			require.False(t, installed, "nothing was wrong")
			b := e.bill()
			t.Logf("| %s, restarts | %d | %.2f | %d | %d | %d |", c.name, b.bytes, float64(b.bytes)/float64(size), b.archives, b.looks, b.most)
			require.LessOrEqual(t, float64(b.bytes), c.most*float64(size)*1.01, "bytes of archives")
			e.heal()
			_, _, installed = e.pass(noticed, nil)
			require.True(t, installed)
		})
	}
}

// A unit that asks for something else is not held up by what others have noted, nor
// does it let them off.
func TestPinnedDigestsThatDiffer(t *testing.T) {
	e := newEpidemic(t, t.TempDir())
	right, wrong := e.pinned(), "sha256:"+strings.Repeat("0", 64)
	e.options = func(unit int, o *Options) {
		if o.Digest = wrong; unit == 1 {
			o.Digest = right
		}
	}
	good, bad := 0, 0
	e.pass(time.Hour, func(unit int, err error) {
		if unit == 1 {
			require.NoError(t, err)
			good++
		} else {
			require.ErrorIs(t, err, ErrDigest)
			bad++
		}
	})
	b := e.bill()
	size := e.archiveSize()
	t.Logf("%d calls of the right digest, %d of the wrong one: %.2f archives, %d looks", good, bad, float64(b.bytes)/float64(size), b.looks)
	require.LessOrEqual(t, int64(b.bytes), 2*size)
}

// The pause of a cause is that of who asks for the same.
func TestOtherOptionsAreNotHeldUp(t *testing.T) {
	e := newEpidemic(t, t.TempDir())
	right, wrong := e.pinned(), "sha256:"+strings.Repeat("0", 64)
	_, err := e.with(wrong).Ensure(t.Context(), "7.14.3")
	require.ErrorIs(t, err, ErrDigest)
	r, err := e.with(right).Ensure(t.Context(), "7.14.3")
	require.NoError(t, err)
	require.True(t, r.Downloaded)
}

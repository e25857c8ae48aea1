package coordinator

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/fetch"
)

const testChunk = 1 << 20

func chunked(o *Options) { o.Chunk = testChunk }

// TestStagingProcess is a process of its own in the tests below.
func TestStagingProcess(t *testing.T) {
	root := os.Getenv("TEST_STAGING_ROOT")
	if root == "" {
		return
	}
	chunk, err := strconv.ParseInt(os.Getenv("TEST_STAGING_CHUNK"), 10, 64)
	require.NoError(t, err)
	c, err := Open(t.Context(), root, Options{Product: concourse,
		Unit: os.Getenv("TEST_STAGING_UNIT"), Source: os.Getenv("TEST_STAGING_SOURCE"), Chunk: chunk,
		Log: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
	require.NoError(t, err)
	_, err = c.Ensure(context.Background(), "7.14.3")
	require.NoError(t, err)
	// What the kernel tells the parent would include the parent's own.
	status, err := os.ReadFile("/proc/self/status")
	require.NoError(t, err)
	os.Stderr.Write(status)
}

func stagingProcess(root, unit, source string, chunk int, output *bytes.Buffer) *exec.Cmd {
	cmd := exec.Command(os.Args[0], "-test.run=^TestStagingProcess$")
	cmd.Env = append(os.Environ(), "TEST_STAGING_ROOT="+root, "TEST_STAGING_UNIT="+unit, "TEST_STAGING_SOURCE="+source,
		fmt.Sprintf("TEST_STAGING_CHUNK=%d", chunk))
	cmd.Stdout, cmd.Stderr = output, output
	return cmd
}

// sentUpTo makes a source go silent after so many bytes of archives, and returns
// a channel that is closed then, and what makes it talk again.
func (s *source) sentUpTo(limit int64) (reached chan struct{}, heal func()) {
	reached = make(chan struct{})
	var sent atomic.Int64
	var once sync.Once
	s.answer(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, ".tgz") {
			return false
		}
		if sent.Add(testChunk) > limit {
			once.Do(func() { close(reached) })
			<-r.Context().Done()
			return true
		}
		return false
	})
	return reached, func() { s.answer(nil) }
}

func partials(root string) []string {
	found, _ := filepath.Glob(filepath.Join(root, stagingDir, "*", "archive.partial"))
	return found
}

func TestSuccessorGoesOnWhereTheHolderDied(t *testing.T) {
	for name, heir := range map[string]string{"another unit": "concourse-ci/1", "the same unit": "concourse-ci/0"} {
		t.Run(name, func(t *testing.T) {
			src := newSource(t)
			archive := releaseArchive("7.14.3", 30*testChunk)
			src.publish("7.14.3", archive)
			reached, heal := src.sentUpTo(int64(len(archive)) * 9 / 10)
			root := t.TempDir()
			var log bytes.Buffer
			victim := stagingProcess(root, "concourse-ci/0", src.URL, testChunk, &log)
			require.NoError(t, victim.Start())
			t.Cleanup(func() { victim.Process.Kill() })
			<-reached
			var kept int64
			require.Eventually(t, func() bool {
				if p := partials(root); len(p) == 1 {
					kept = keptIn(p[0])
				}
				return kept > int64(len(archive))*8/10
			}, 10*time.Second, 5*time.Millisecond)
			time.Sleep(300 * time.Millisecond) // the digest is as far
			require.NoError(t, victim.Process.Kill())
			victim.Wait()
			kept = keptIn(partials(root)[0])
			require.Empty(t, listing(t, filepath.Join(root, releasesDir)))
			_, before := src.archives()
			heal()

			log.Reset()
			require.NoError(t, stagingProcess(root, heir, src.URL, testChunk, &log).Run(), log.String())
			_, after := src.archives()
			require.LessOrEqual(t, int64(after-before), int64(len(archive))-kept, "a chunk that was complete moved again")
			require.LessOrEqual(t, after, len(archive)+fetch.DefaultConnections*testChunk)
			fetched := regexp.MustCompile(`msg=fetched bytes=(\d+) reused=(\d+) hashed=(\d+)`).FindStringSubmatch(log.String())
			require.NotNil(t, fetched, log.String())
			require.Equal(t, fmt.Sprint(kept), fetched[2])
			hashed, err := strconv.ParseInt(fetched[3], 10, 64)
			require.NoError(t, err)
			// Of the chunks that were complete, those behind one that was not could
			// not be hashed yet: at most one for each other connection.
			require.LessOrEqual(t, hashed, int64(len(archive))-kept+fetch.DefaultConnections*testChunk, "bytes were hashed again")
			require.Equal(t, 1, strings.Count(log.String(), "Downloading Concourse binaries v7.14.3 from "))
			require.Empty(t, listing(t, filepath.Join(root, stagingDir)))
			c := open(t, root, "concourse-ci/2", src.URL)
			_, err = c.Installed(t.Context(), "7.14.3")
			require.NoError(t, err)
		})
	}
}

// keptIn returns how many bytes are kept of a partial archive.
func keptIn(partial string) int64 {
	root, err := os.OpenRoot(filepath.Dir(partial))
	if err != nil {
		return 0
	}
	defer root.Close()
	return fetch.Kept(root, ".")
}

// interrupted has the download of a release given up at about half of it.
func interrupted(t *testing.T, c *Coordinator, src *source, archive []byte) {
	reached, heal := src.sentUpTo(int64(len(archive)) / 2)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		<-reached
		for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
			if p := partials(c.dir); len(p) == 1 && keptIn(p[0]) > int64(len(archive))/3 {
				break
			}
		}
		cancel()
	}()
	_, err := c.Ensure(ctx, "7.14.3")
	require.ErrorIs(t, err, context.Canceled)
	heal()
}

// A service that is restarted should not pay for it.
func TestCancelledInstallIsGoneOnWith(t *testing.T) {
	src := newSource(t)
	archive := releaseArchive("7.14.3", 20*testChunk)
	src.publish("7.14.3", archive)
	root := t.TempDir()
	c := open(t, root, "concourse-ci/0", src.URL, chunked)
	interrupted(t, c, src, archive)
	require.Len(t, listing(t, filepath.Join(root, stagingDir)), 3, "the unit's directory, the partial archive and its journal")
	require.NoFileExists(t, filepath.Join(root, progressFile))
	_, err := c.Ensure(context.Background(), "7.14.3")
	require.NoError(t, err)
	_, moved := src.archives()
	require.Less(t, moved, len(archive)+fetch.DefaultConnections*testChunk)
	require.Empty(t, listing(t, filepath.Join(root, stagingDir)))
}

func TestDamagedRemainsAreNotInstalled(t *testing.T) {
	src := newSource(t)
	archive := releaseArchive("7.14.3", 20*testChunk)
	src.publish("7.14.3", archive)
	root := t.TempDir()
	var log bytes.Buffer
	c := open(t, root, "concourse-ci/0", src.URL, chunked, logTo(&log))
	interrupted(t, c, src, archive)
	f, err := os.OpenFile(partials(root)[0], os.O_WRONLY, 0)
	require.NoError(t, err)
	_, err = f.WriteAt(make([]byte, len(archive)), 0) // whatever part of it is there
	require.NoError(t, err)
	require.NoError(t, f.Close())
	// Not to be believed either: the journal says what the bytes were.
	journal := filepath.Join(filepath.Dir(partials(root)[0]), "archive.journal")
	text, err := os.ReadFile(journal)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(journal, regexp.MustCompile(`"hashed":\d+`).ReplaceAll(text, []byte(`"hashed":0`)), 0o600))
	r, err := c.Ensure(context.Background(), "7.14.3")
	require.NoError(t, err)
	require.Contains(t, log.String(), "starting again")
	content, err := os.ReadFile(filepath.Join(r.Dir, "bin/runc"))
	require.NoError(t, err)
	require.Len(t, content, 20*testChunk)
	require.Empty(t, listing(t, filepath.Join(root, stagingDir)))
}

func TestOnlyRemainsOfTheDeadAreTakenOver(t *testing.T) {
	src := newSource(t)
	archive := releaseArchive("7.14.3", 10*testChunk)
	src.publish("7.14.3", archive)
	v := inside(t, open(t, t.TempDir(), "concourse-ci/5", src.URL))
	remains := func(name string, chunk int64) {
		dir := path.Join(stagingDir, name)
		require.NoError(t, v.root.MkdirAll(path.Join(dir, treeName, "bin"), 0o755))
		s := fetch.Source{URL: src.URL, Archive: concourse.Archive, Client: fetch.NewClient(), Policy: fetch.DefaultPolicy, Chunk: chunk}
		d, err := s.Open(context.Background(), "7.14.3", v.root, dir, fetch.Digest{})
		require.NoError(t, err)
		require.NoError(t, d.Start())
		_, err = d.Wait()
		require.NoError(t, err)
		require.NoError(t, d.Close())
	}
	remains("7.14.3.9.concourse-ci-1", testChunk) // a later generation
	remains("7.14.2.3.concourse-ci-2", testChunk) // another version
	remains("7.14.3.3.concourse-ci-3", testChunk)
	require.NoError(t, v.root.Mkdir(path.Join(stagingDir, "7.14.3.4.concourse-ci-4"), 0o755)) // nothing in it
	require.NoError(t, v.root.Mkdir(claimsDir+"/7.14.3", 0o755))
	require.NoError(t, v.root.WriteFile(claimsDir+"/7.14.3/6", []byte("{}"), 0o644))
	require.NoError(t, v.root.WriteFile(claimsDir+"/7.14.3/6.beat", []byte("done"), 0o644))
	held, err := v.claims(t.Context(), "7.14.3").Try(t.Context(), v.holder("7.14.3"))
	require.NoError(t, err)
	defer held.Release()
	s := &stage{u: v, goal: goal{version: "7.14.3"}, held: held}
	require.NoError(t, s.adopt(t.Context()))
	require.EqualValues(t, len(archive), fetch.Kept(v.root, s.home()))
	require.Equal(t, []string{
		"7.14.2.3.concourse-ci-2",
		"7.14.3.7.concourse-ci-5", // without half a tree
		"7.14.3.7.concourse-ci-5/archive.journal",
		"7.14.3.7.concourse-ci-5/archive.partial",
		"7.14.3.9.concourse-ci-1",
		"7.14.3.9.concourse-ci-1/archive.journal",
		"7.14.3.9.concourse-ci-1/archive.partial",
		"7.14.3.9.concourse-ci-1/tree",
		"7.14.3.9.concourse-ci-1/tree/bin",
	}, slices.DeleteFunc(listing(t, filepath.Join(v.view.dir, stagingDir)), func(name string) bool {
		return strings.HasPrefix(name, "7.14.2.3.concourse-ci-2/")
	}))
}

// Its size must not matter, only how many things are done at a time.
func TestMemoryDoesNotGrowWithTheArchive(t *testing.T) {
	if testing.Short() {
		t.Skip("writes 400 MB")
	}
	const files, limit = 48, 96 << 20
	path := filepath.Join(t.TempDir(), "archive")
	sum, size := storeTo(t, path, files)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, ".sha256") {
			fmt.Fprintf(w, "%s  x\n", sum)
			return
		}
		http.ServeFile(w, r, path)
	}))
	defer server.Close()
	var log bytes.Buffer
	cmd := stagingProcess(t.TempDir(), "concourse-ci/0", server.URL, fetch.DefaultChunk, &log)
	require.NoError(t, cmd.Run(), log.String())
	peak := regexp.MustCompile(`VmHWM:\s+(\d+) kB`).FindStringSubmatch(log.String())
	require.NotNil(t, peak, log.String())
	kilobytes, err := strconv.ParseInt(peak[1], 10, 64)
	require.NoError(t, err)
	t.Logf("%d MiB for an archive of %d MiB", kilobytes>>10, size>>20)
	require.Less(t, kilobytes<<10, int64(limit))
}

// storeTo writes a tarball that is stored rather than compressed, of files of 4
// MiB each, and returns its sha256 and its size.
func storeTo(t *testing.T, path string, files int) (string, int64) {
	f, err := os.Create(path)
	require.NoError(t, err)
	defer f.Close()
	h := sha256.New()
	gz, err := gzip.NewWriterLevel(io.MultiWriter(f, h), gzip.NoCompression)
	require.NoError(t, err)
	tw := tar.NewWriter(gz)
	block := make([]byte, 4<<20)
	rand.NewChaCha8([32]byte{1}).Read(block)
	for i := range files {
		name, mode := fmt.Sprintf("concourse/resource-types/%d", i), int64(0o644)
		if i == 0 {
			name, mode = "concourse/bin/concourse", 0o755
		}
		require.NoError(t, tw.WriteHeader(&tar.Header{Name: name, Mode: mode, Size: int64(len(block)), Typeflag: tar.TypeReg}))
		_, err := tw.Write(block)
		require.NoError(t, err)
	}
	require.NoError(t, tw.Close())
	require.NoError(t, gz.Close())
	info, err := f.Stat()
	require.NoError(t, err)
	return hex.EncodeToString(h.Sum(nil)), info.Size()
}

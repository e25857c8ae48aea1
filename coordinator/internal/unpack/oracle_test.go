package unpack

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// sandbox is a directory to unpack into, beside something that no archive may
// reach.
type sandbox struct{ outer, dir, secret string }

func newSandbox(t *testing.T) sandbox {
	outer, err := filepath.EvalSymlinks(t.TempDir())
	require.NoError(t, err)
	s := sandbox{outer, filepath.Join(outer, "staging"), filepath.Join(outer, "secret")}
	require.NoError(t, os.Mkdir(s.dir, 0o755))
	require.NoError(t, os.WriteFile(s.secret, []byte("secret"), 0o640))
	return s
}

// unpack extracts an archive and judges what came of it, whatever it was.
func (s sandbox) unpack(t *testing.T, archive []byte, limits Limits) ([]File, error) {
	root, err := os.OpenRoot(s.dir)
	require.NoError(t, err)
	defer root.Close()
	files, err := extract(context.Background(), bytes.NewReader(archive), root, limits)
	around, readErr := os.ReadDir(s.outer)
	require.NoError(t, readErr)
	require.Len(t, around, 2, "something was written beside the tree")
	info, statErr := os.Stat(s.secret)
	require.NoError(t, statErr)
	require.Equal(t, fs.FileMode(0o640), info.Mode())
	require.EqualValues(t, 1, info.Sys().(*syscall.Stat_t).Nlink)
	content, readErr := os.ReadFile(s.secret)
	require.NoError(t, readErr)
	require.Equal(t, "secret", string(content))
	// A refused archive leaves a tree, too, until it is removed.
	s.nothingLeaves(t)
	require.NoFileExists(t, filepath.Join(s.dir, layout.Reserved))
	require.NoDirExists(t, filepath.Join(s.dir, layout.Reserved))
	if err != nil {
		require.ErrorIs(t, err, ErrNotArchive)
		require.Nil(t, files)
		return nil, err
	}
	s.isAsListed(t, files)
	return files, nil
}

// nothingLeaves has the kernel resolve every path in the tree, also those through
// its links, and asks it whether that left the tree. What Go makes of the path
// must be the same.
func (s sandbox) nothingLeaves(t *testing.T) {
	top, err := os.Open(s.dir)
	require.NoError(t, err)
	defer top.Close()
	const paths, parts = 500, 8
	todo := []string{"."}
	for i := 0; i < len(todo) && i < paths; i++ {
		name := todo[i]
		how := unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_MAGICLINKS}
		fd, err := unix.Openat2(int(top.Fd()), name, &how)
		for errors.Is(err, unix.EAGAIN) { // something else in the system was renamed
			fd, err = unix.Openat2(int(top.Fd()), name, &how)
		}
		seen, evalErr := filepath.EvalSymlinks(filepath.Join(s.dir, name))
		if evalErr == nil {
			require.True(t, seen == s.dir || strings.HasPrefix(seen, s.dir+"/"), "%s leads to %s", name, seen)
		}
		if err != nil {
			require.NotErrorIs(t, err, unix.EXDEV, "%s leaves the tree", name)
			require.True(t, errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) ||
				errors.Is(err, unix.ENAMETOOLONG), "%s: %v", name, err)
			continue
		}
		resolved, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
		require.NoError(t, err)
		require.NoError(t, unix.Close(fd))
		require.NoError(t, evalErr)
		require.Equal(t, resolved, seen, name)
		info, err := os.Lstat(resolved)
		require.NoError(t, err)
		if !info.IsDir() || strings.Count(name, "/") >= parts {
			continue
		}
		entries, err := os.ReadDir(resolved)
		require.NoError(t, err)
		for _, entry := range entries {
			todo = append(todo, path.Join(name, entry.Name()))
		}
	}
}

// isAsListed compares the tree with the files that were returned.
func (s sandbox) isAsListed(t *testing.T, files []File) {
	data, err := json.Marshal(files)
	require.NoError(t, err)
	var written []File
	require.NoError(t, json.Unmarshal(data, &written))
	want := map[string]File{}
	for i, file := range files {
		require.Equal(t, file, written[i], "the manifest would say something else")
		require.NotContains(t, want, file.Path)
		want[file.Path] = file
	}
	require.NoError(t, filepath.WalkDir(s.dir, func(name string, d fs.DirEntry, err error) error {
		require.NoError(t, err)
		info, err := d.Info()
		require.NoError(t, err)
		if d.IsDir() {
			require.Equal(t, fs.ModeDir|0o755, info.Mode(), name)
			return nil
		}
		rel, err := filepath.Rel(s.dir, name)
		require.NoError(t, err)
		got := File{Path: rel}
		if d.Type() == fs.ModeSymlink {
			got.Link, err = os.Readlink(name)
			require.NoError(t, err)
		} else {
			content, err := os.ReadFile(name)
			require.NoError(t, err)
			got.Size, got.Mode, got.SHA256 = info.Size(), info.Mode(), sha256.Sum256(content)
			require.Contains(t, []fs.FileMode{0o444, 0o555}, got.Mode)
		}
		require.Equal(t, want[rel], got)
		delete(want, rel)
		return nil
	}))
	require.Empty(t, want, "listed, but not there")
}

// choice returns a number from 0 to n-1.
type choice func(n int) int

func (c choice) of(texts ...string) string { return texts[c(len(texts))] }

// path joins some of these parts.
func (c choice) path(parts ...string) string {
	var path []string
	for range 1 + c(5) {
		path = append(path, c.of(parts...))
	}
	return strings.Join(path, "/")
}

// entries makes up an archive's entries. Names are few, so that they meet each
// other, and links are many.
func (c choice) entries() (entries []entry) {
	if c(2) == 0 {
		return c.links()
	}
	dots := []string{"a", "b", "...", "..", "a", "b", ".", "", "....", "..a", "..", ".."}
	for range 1 + c(8) {
		e := entry{name: "concourse/" + c.path("a", "b", "a", "b", "...", "....", "a", "b", "..a"), mode: int64(c(2)) * 0o111}
		switch c(16) {
		case 0:
			e.name = c.path(append(dots, "concourse", "/etc")...)
		case 1:
			e.name = "concourse/" + c.path(append(dots, "manifest.json", "\xff", "\\", "\x1b", "é", "A", strings.Repeat("n", 256))...)
		case 2:
			e.name = "./" + e.name + "/"
		case 3:
			e.mode = int64(c(0o10000))
		}
		switch c(8) {
		case 0, 1, 2, 3:
			e.kind, e.link = tar.TypeSymlink, c.path(dots...)
			switch c(32) {
			case 0:
				e.link = "/" + e.link
			case 1:
				e.link = strings.Repeat("../", c(6)) + c.of("secret", "staging/a", "..", "a/")
			case 2:
				e.link = c.of("", "a\xff", "a\nb", "a\\..\\b", strings.Repeat("x/", 100))
			}
		case 4:
			e.kind, e.link = tar.TypeLink, "concourse/"+c.path("a", "b", "...")
			if c(8) == 0 {
				e.link = c.path(append(dots, "secret")...)
			}
		case 5:
			e.kind = tar.TypeDir
		case 6:
			e.body = strings.Repeat("x", c(2000))
			if c(16) == 0 {
				e.kind = c.of("1234567xgS")[c(10)]
			}
		}
		entries = append(entries, e)
	}
	return entries
}

// links makes up links that climb, through each other where they can. Names of
// dots alone are easily taken for "..".
func (c choice) links() (entries []entry) {
	dir := c.of("", "a/", "a/b/", "a/b/.../", "a/b/a/")
	for range 2 + c(3) {
		through := c.of("", "", "./", ".../", "..../", ".../", "..../", "x/")
		entries = append(entries, entry{
			name: "concourse/" + dir + c.of("...", "....", "x"),
			kind: tar.TypeSymlink,
			link: through + strings.Repeat("../", c(4)) + c.of("", "", "x", "...", "."),
		})
	}
	return entries
}

// tarball writes entries as far as tar can, and returns those.
func tarball(entries []entry) (archive []byte, written []entry) {
	var data bytes.Buffer
	tw := tar.NewWriter(&data)
	for _, e := range entries {
		h := tar.Header{Name: e.name, Typeflag: e.kind, Linkname: e.link, Mode: e.mode, Size: int64(len(e.body))}
		if h.Typeflag == 0 {
			h.Typeflag = tar.TypeReg
		}
		if tw.WriteHeader(&h) == nil {
			tw.Write([]byte(e.body))
			written = append(written, e)
		}
	}
	tw.Close()
	return data.Bytes(), written
}

func zip(data []byte) []byte {
	var zipped bytes.Buffer
	gz, _ := gzip.NewWriterLevel(&zipped, gzip.BestSpeed)
	gz.Write(data)
	gz.Close()
	return zipped.Bytes()
}

var small = Limits{Entries: 30, Bytes: 1 << 20, Path: 150, Names: 2000, Depth: 6, Ratio: 100}

// unpackEntries also compares what was unpacked with what went in.
func unpackEntries(t *testing.T, entries []entry) error {
	defer func() {
		if t.Failed() {
			t.Logf("%+v", entries)
		}
	}()
	data, entries := tarball(entries)
	files, err := newSandbox(t).unpack(t, zip(data), small)
	if err != nil {
		return err
	}
	in := map[string]entry{}
	for _, e := range entries {
		if name := path.Clean(e.name); e.kind == tar.TypeLink {
			e.body, e.mode, e.link = in[path.Clean(e.link)].body, in[path.Clean(e.link)].mode, ""
			in[name] = e
		} else if e.kind != tar.TypeDir && e.kind != tar.TypeXGlobalHeader {
			in[name] = e
		}
	}
	require.Len(t, files, len(in))
	for _, f := range files {
		e, ok := in["concourse/"+f.Path]
		require.True(t, ok, f.Path)
		require.Equal(t, e.link, f.Link)
		if f.Link == "" {
			require.Equal(t, Sum(sha256.Sum256([]byte(e.body))), f.SHA256)
			require.Equal(t, e.mode&0o111 != 0, f.Mode == 0o555)
		}
	}
	return nil
}

// TestRandomArchives has fixed seeds: each is the same archive every time.
func TestRandomArchives(t *testing.T) {
	accepted := 0
	const seeds = 600
	for seed := range uint64(seeds) {
		random := rand.New(rand.NewPCG(seed, 0))
		entries := choice(random.IntN).entries()
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			if unpackEntries(t, entries) == nil {
				accepted++
			}
		})
	}
	require.Greater(t, accepted, seeds/20, "these archives prove little")
	require.Less(t, accepted, seeds)
}

// FuzzEntries lets the fuzzer choose the entries.
func FuzzEntries(f *testing.F) {
	for seed := range uint64(50) {
		random := rand.New(rand.NewPCG(seed, 1))
		data := make([]byte, 200)
		for i := range data {
			data[i] = byte(random.Uint32())
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		entries := choice(func(n int) int {
			if len(data) == 0 {
				return 0
			}
			k := int(data[0])
			data = data[1:]
			if n > 256 {
				k *= n / 256
			}
			return k % n
		}).entries()
		unpackEntries(t, entries)
	})
}

// FuzzTar feeds tarballs, compressed here: a mutation inside of gzip seldom gets
// past its checksum.
func FuzzTar(f *testing.F) {
	for _, entries := range [][]entry{
		{{name: "concourse/bin/concourse", mode: 0o755, body: "abc"}, {name: "concourse/bin/same", kind: tar.TypeLink, link: "concourse/bin/concourse"}},
		{{name: "concourse/a/b/up", kind: tar.TypeSymlink, link: "../../bin"}, {name: "concourse/a/b/up/x", body: "x"}},
		{{name: "concourse/a/...", kind: tar.TypeSymlink, link: ".."}, {name: "concourse/a/l", kind: tar.TypeSymlink, link: ".../../x"}},
		{{name: "concourse/l", kind: tar.TypeLink, link: "../../etc/passwd"}},
		{{name: "../x", body: "x"}}, {{name: "/x", body: "x"}}, {{name: "concourse/../../x", body: "x"}},
		{{name: "concourse", body: "x"}}, {{name: "concourse/", kind: tar.TypeDir}, {name: "concourse/", kind: tar.TypeSymlink, link: "."}},
		{{name: "concourse/d", kind: tar.TypeChar}}, {{name: "concourse/s", mode: 0o4755}},
		{{name: "concourse/" + strings.Repeat("n", 120)}}, {{name: "concourse/\xff\xfe"}}, {{name: "concourse/é"}},
	} {
		data, _ := tarball(entries)
		f.Add(data)
		f.Add(data[:len(data)/2])
		f.Add(append(data, "garbage"...))
	}
	f.Fuzz(func(t *testing.T, data []byte) { newSandbox(t).unpack(t, zip(data), small) })
}

// FuzzGzip feeds whole archives.
func FuzzGzip(f *testing.F) {
	data, _ := tarball([]entry{{name: "concourse/bin/concourse", mode: 0o755, body: "abc"}})
	good := zip(data)
	f.Add(good)
	f.Add(append(good, good...))
	f.Add(append(good, zip(nil)...))
	f.Fuzz(func(t *testing.T, data []byte) { newSandbox(t).unpack(t, data, small) })
}

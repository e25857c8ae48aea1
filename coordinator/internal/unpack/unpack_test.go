package unpack

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/needs"
)

type entry struct {
	name, link string
	kind       byte
	mode       int64
	body       string
}

func archive(t *testing.T, entries ...entry) []byte {
	var buf bytes.Buffer
	gz := gzip.NewWriter(&buf)
	tw := tar.NewWriter(gz)
	for _, e := range entries {
		if e.kind == 0 {
			e.kind = tar.TypeReg
		}
		require.NoError(t, tw.WriteHeader(&tar.Header{Name: e.name, Typeflag: e.kind, Linkname: e.link, Mode: e.mode, Size: int64(len(e.body)), Uid: 4711, Gid: 4711}))
		_, err := tw.Write([]byte(e.body))
		require.NoError(t, err)
	}
	require.NoError(t, tw.Close())
	require.NoError(t, gz.Close())
	return buf.Bytes()
}

// layout is that of all archives here.
var layout = Layout{Top: "concourse", Reserved: "manifest.json"}

func extract(ctx context.Context, r io.Reader, root *os.Root, limits Limits) ([]File, error) {
	return Tree(ctx, r, root, layout, limits)
}

func unpack(t *testing.T, r io.Reader, limits Limits) (dir string, files []File, err error) {
	outer := t.TempDir()
	dir = filepath.Join(outer, "staging")
	require.NoError(t, os.Mkdir(dir, 0o755))
	root, err := os.OpenRoot(dir)
	require.NoError(t, err)
	defer root.Close()
	files, err = extract(context.Background(), r, root, limits)
	around, readErr := os.ReadDir(outer)
	require.NoError(t, readErr)
	require.Len(t, around, 1, "something was written beside the tree")
	return dir, files, err
}

func TestSumIsHex(t *testing.T) {
	var s Sum
	text := strings.Repeat("0f", len(s))
	require.NoError(t, s.UnmarshalText([]byte(text)))
	got, err := s.MarshalText()
	require.NoError(t, err)
	require.Equal(t, text, string(got))
	for _, bad := range []string{"", text[1:], text[2:], text + "0f", "x" + text[1:]} {
		require.Error(t, s.UnmarshalText([]byte(bad)), bad)
	}
}

func TestTree(t *testing.T) {
	dir, files, err := unpack(t, bytes.NewReader(archive(t,
		entry{name: "concourse/", kind: tar.TypeDir, mode: 0o2700},
		entry{name: "./concourse/bin/concourse", mode: 0o700, body: "abc"},
		entry{name: "concourse/bin", kind: tar.TypeDir},
		entry{name: "concourse/readme", mode: 0o666},
		entry{name: "concourse/a/b/up", kind: tar.TypeSymlink, link: "../../bin/concourse"},
		entry{name: "concourse/bin/same", kind: tar.TypeLink, link: "concourse/bin/concourse"},
	)), DefaultLimits)
	require.NoError(t, err)
	var abc, nothing Sum
	require.NoError(t, abc.UnmarshalText([]byte("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")))
	require.NoError(t, nothing.UnmarshalText([]byte("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")))
	require.Equal(t, []File{
		{Path: "bin/concourse", Size: 3, Mode: 0o555, SHA256: abc},
		{Path: "readme", Mode: 0o444, SHA256: nothing},
		{Path: "a/b/up", Link: "../../bin/concourse"},
		{Path: "bin/same", Size: 3, Mode: 0o555, SHA256: abc},
	}, files)
	content, err := os.ReadFile(filepath.Join(dir, "a/b/up"))
	require.NoError(t, err)
	require.Equal(t, "abc", string(content))
	info, err := os.Stat(filepath.Join(dir, "bin/concourse"))
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o555), info.Mode())
}

func TestBrokenStreams(t *testing.T) {
	good := archive(t, entry{name: "concourse/bin/concourse", mode: 0o755, body: strings.Repeat("abcdefgh", 10000)})
	var padded bytes.Buffer
	gz := gzip.NewWriter(&padded)
	gz.Write(make([]byte, 3<<20))
	gz.Close()
	flipped := bytes.Clone(good)
	flipped[len(flipped)-6] ^= 1 // in the checksum
	for name, data := range map[string][]byte{
		"empty":          nil,
		"one byte":       good[:1],
		"half":           good[:len(good)/2],
		"no checksum":    good[:len(good)-8],
		"wrong checksum": flipped,
		"garbage after":  append(bytes.Clone(good), "garbage"...),
		"long padding":   append(bytes.Clone(good), padded.Bytes()...),
		"not a tar":      nottar(t),
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := unpack(t, bytes.NewReader(data), DefaultLimits)
			require.ErrorIs(t, err, ErrNotArchive)
		})
	}
	t.Run("the reason is the reader's", func(t *testing.T) {
		lost := errors.New("lost")
		_, _, err := unpack(t, io.MultiReader(bytes.NewReader(good[:len(good)/2]), failing{lost}), DefaultLimits)
		require.ErrorIs(t, err, lost)
		require.NotErrorIs(t, err, ErrNotArchive)
	})
}

// What the volume does not take says nothing of the archive.
func TestFullVolume(t *testing.T) {
	dir := t.TempDir()
	needs.Mount(t, "tmpfs", dir, "tmpfs", 0, "size=64k")
	root, err := os.OpenRoot(dir)
	require.NoError(t, err)
	defer root.Close()
	data := archive(t, entry{name: "concourse/large", body: strings.Repeat("x", 1<<20)})
	_, err = extract(t.Context(), bytes.NewReader(data), root, DefaultLimits)
	require.ErrorIs(t, err, syscall.ENOSPC)
	require.NotErrorIs(t, err, ErrNotArchive)
}

func nottar(t *testing.T) []byte {
	var buf bytes.Buffer
	gz := gzip.NewWriter(&buf)
	_, err := gz.Write([]byte(strings.Repeat("hello", 1000)))
	require.NoError(t, err)
	require.NoError(t, gz.Close())
	return buf.Bytes()
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

package unpack

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// A few kilobytes of zeros must not fill a volume.
func TestBomb(t *testing.T) {
	piped, w := io.Pipe()
	go func() {
		gz := gzip.NewWriter(w)
		tw := tar.NewWriter(gz)
		tw.WriteHeader(&tar.Header{Name: "concourse/zeros", Typeflag: tar.TypeReg, Mode: 0o644, Size: 4 << 30})
		io.Copy(tw, zeros{})
		w.Close()
	}()
	dir, _, err := unpack(t, piped, DefaultLimits)
	piped.Close()
	require.ErrorIs(t, err, ErrNotArchive)
	require.ErrorContains(t, err, "times its size")
	info, err := os.Stat(filepath.Join(dir, "zeros"))
	require.NoError(t, err)
	require.Less(t, info.Size(), int64(2*ratioFloor))
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

func TestModesWhateverTheUmask(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0o077))
	dir, _, err := unpack(t, bytes.NewReader(archive(t,
		entry{name: "concourse/bin/concourse", mode: 0o700, body: "x"}, entry{name: "concourse/readme", mode: 0o600})), DefaultLimits)
	require.NoError(t, err)
	for name, mode := range map[string]fs.FileMode{"bin/concourse": 0o555, "readme": 0o444} {
		info, err := os.Stat(filepath.Join(dir, name))
		require.NoError(t, err)
		require.Equal(t, mode, info.Mode(), name)
	}
}

// FuzzTree feeds tarballs, compressed here: a mutation inside of gzip seldom gets
// past its checksum. Whatever comes, nothing may be written outside of the tree,
// and what is returned must be what is there.
func FuzzTree(f *testing.F) {
	for _, entries := range [][]entry{
		{{name: "concourse/bin/concourse", mode: 0o755, body: "abc"}, {name: "concourse/bin/same", kind: tar.TypeLink, link: "concourse/bin/concourse"}},
		{{name: "concourse/a/b/up", kind: tar.TypeSymlink, link: "../../bin"}, {name: "concourse/a/b/up/x", body: "x"}},
		{{name: "concourse/l", kind: tar.TypeSymlink, link: "/etc"}, {name: "concourse/l/passwd", body: "x"}},
		{{name: "concourse/l", kind: tar.TypeSymlink, link: "a/../../x"}},
		{{name: "concourse/l", kind: tar.TypeLink, link: "../../etc/passwd"}},
		{{name: "../x", body: "x"}}, {{name: "/x", body: "x"}}, {{name: "concourse/../../x", body: "x"}},
		{{name: "concourse/x", body: "1"}, {name: "concourse/./x", body: "2"}},
		{{name: "concourse", body: "x"}}, {{name: "concourse/", kind: tar.TypeDir}, {name: "concourse/", kind: tar.TypeSymlink, link: "."}},
		{{name: "concourse/d", kind: tar.TypeChar}}, {{name: "concourse/d", kind: tar.TypeBlock}}, {{name: "concourse/d", kind: tar.TypeFifo}},
		{{name: "concourse/s", mode: 0o4755}}, {{name: "concourse/manifest.json", body: "{}"}},
		{{name: "concourse/" + strings.Repeat("n", 2000)}}, {{name: "concourse/a\nb"}}, {{name: "concourse/\xff\xfe"}},
	} {
		var data bytes.Buffer
		tw := tar.NewWriter(&data)
		for _, e := range entries {
			if e.kind == 0 {
				e.kind = tar.TypeReg
			}
			if err := tw.WriteHeader(&tar.Header{Name: e.name, Typeflag: e.kind, Linkname: e.link, Mode: e.mode, Size: int64(len(e.body))}); err != nil {
				f.Fatal(err)
			}
			tw.Write([]byte(e.body))
		}
		tw.Flush()
		f.Add(data.Bytes())
		f.Add(data.Bytes()[:data.Len()/2])
		tw.Close()
		f.Add(append(data.Bytes(), "garbage"...))
	}
	limits := Limits{Entries: 50, Bytes: 1 << 20, Path: 200, Ratio: 100}
	f.Fuzz(func(t *testing.T, data []byte) {
		var zipped bytes.Buffer
		gz := gzip.NewWriter(&zipped)
		gz.Write(data)
		gz.Close()
		outer := t.TempDir()
		dir := filepath.Join(outer, "staging")
		require.NoError(t, os.Mkdir(dir, 0o755))
		root, err := os.OpenRoot(dir)
		require.NoError(t, err)
		defer root.Close()
		files, err := Tree(context.Background(), &zipped, root, limits)
		around, readErr := os.ReadDir(outer)
		require.NoError(t, readErr)
		require.Len(t, around, 1, "something was written beside the tree")
		if err != nil {
			// A name may be one that the file system refuses.
			require.True(t, errors.Is(err, ErrNotArchive) || errors.As(err, new(syscall.Errno)), "%v", err)
			require.Nil(t, files)
			return
		}
		there := 0
		require.NoError(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err == nil && !d.IsDir() {
				there++
			}
			return err
		}))
		require.Len(t, files, there)
		for _, file := range files {
			info, err := root.Lstat(file.Path)
			require.NoError(t, err)
			if file.Link != "" {
				_, err := root.Stat(file.Path)
				require.True(t, err == nil || !strings.Contains(err.Error(), "escapes"), "%s leaves the tree", file.Path)
				continue
			}
			require.Equal(t, file.Mode, info.Mode())
			require.Equal(t, file.Size, info.Size())
		}
	})
}

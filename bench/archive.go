package bench

import (
	"archive/tar"
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/klauspost/pgzip"
)

// archive is a made-up release. The same one is made everywhere.
type archive struct {
	Kind     string `json:"kind"`
	Files    int    `json:"files"`
	MB       int    `json:"mb"`   // size aimed at
	Size     int64  `json:"size"` // of the archive
	Unpacked int64  `json:"unpacked"`
	SHA256   string `json:"sha256"`
	kind     kind
	path     string
}

// archive returns the release with so many files, made up unless it is cached.
func (r *run) archive(ctx context.Context, k kind, files, mb int) (archive, error) {
	a := archive{Kind: k.name, Files: files, MB: mb, kind: k}
	path := filepath.Join(r.Cache, a.name())
	if err := a.load(path); err == nil {
		return a, nil
	}
	r.Say("making up a %s release of %d files, archive of %d MB", k.name, files, mb)
	err := a.make(ctx, path)
	return a, err
}

// Where the number of files matters, and not their sizes, they are few bytes.
const (
	smallFiles = 800
	smallMB    = 64
)

// small is such a release; with a smaller one asked for, it is that.
func (r *run) small(ctx context.Context) (archive, error) {
	return r.archive(ctx, compressible, smallFiles, min(smallMB, r.MB))
}

// version names the archive to the coordinator: 2.800.600 is recipe 2, 800
// files, 600 MB.
func (a *archive) version() string { return fmt.Sprintf("%d.%d.%d", a.kind.recipe, a.Files, a.MB) }

func (a *archive) name() string { return archiveName(a.version()) }

func (a *archive) load(path string) error {
	data, err := os.ReadFile(path + ".json")
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, a); err != nil {
		return err
	}
	info, err := os.Stat(path)
	if err == nil && info.Size() != a.Size {
		err = errors.New("the archive has another size than it was made with")
	}
	a.path = path
	return err
}

// make writes the archive, its .sha256 and, last, what load reads.
func (a *archive) make(ctx context.Context, path string) error {
	a.path = path
	if err := a.write(ctx, path+".tmp"); err != nil {
		return errors.Join(fmt.Errorf("cannot make up a release: %w", err), os.Remove(path+".tmp"))
	}
	data, err := json.Marshal(a)
	if err != nil {
		return err
	}
	return errors.Join(
		os.WriteFile(path+".sha256", []byte(a.SHA256+"  "+a.name()+"\n"), 0o644),
		os.Rename(path+".tmp", path),
		os.WriteFile(path+".json", data, 0o644),
	)
}

func (a *archive) write(ctx context.Context, path string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	sum := sha256.New()
	out := bufio.NewWriterSize(io.MultiWriter(f, sum), 1<<20)
	// A fast level: with these contents, others make an archive that is hardly
	// smaller.
	gz, err := pgzip.NewWriterLevel(out, 2)
	if err != nil {
		return err
	}
	tw := tar.NewWriter(gz)
	contents := a.contents()
	a.Unpacked = 0
	for _, e := range a.entries() {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := tw.WriteHeader(&tar.Header{Name: "concourse/" + e.name, Typeflag: tar.TypeReg, Mode: e.mode, Size: e.size}); err != nil {
			return err
		}
		a.Unpacked += e.size
		if err := fill(tw, e.size, contents.of(e)); err != nil {
			return err
		}
	}
	if err := errors.Join(tw.Close(), gz.Close(), out.Flush()); err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		return err
	}
	a.Size, a.SHA256 = info.Size(), hex.EncodeToString(sum.Sum(nil))
	return f.Close()
}

// fill writes so many bytes: content again and again.
func fill(w io.Writer, bytes int64, content []byte) error {
	for bytes > 0 {
		n, err := w.Write(content[:min(int64(len(content)), bytes)])
		if err != nil {
			return err
		}
		bytes -= int64(n)
	}
	return nil
}

// Package unpack extracts a release archive from a stream nobody trusts yet.
//
// It writes into a private tree only, and refuses whatever a release has no
// reason to contain, so that a bad archive harms nothing before its digest is
// known to be wrong.
package unpack

import (
	"archive/tar"
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/klauspost/pgzip"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// ErrNotArchive: the bytes are no release tarball, or one that must be refused.
var ErrNotArchive = errors.New("not a release archive")

// Reserved is the one name in the top of a release that an archive may not
// use: the manifest gets it.
const Reserved = "manifest.json"

const (
	// top is the directory that all of a release lies in.
	top = "concourse"
	// buffer is the size of each copy: smaller ones cost system calls, larger
	// ones fall out of the processor's cache.
	buffer = 1 << 20
	// early is the size from which a file is written out by itself. Below it,
	// that costs more than the file: 60,000 times 0.2 ms of a processor on ext4.
	early = 1 << 20
	// closers is how many files are closed at a time: where that waits for the
	// disk, enough to keep it busy.
	closers = 8
)

// Limits bound what an archive may become.
type Limits struct {
	Entries int   // files, directories and links
	Bytes   int64 // sum of the files' sizes
	Path    int   // length of a name
	Ratio   int64 // bytes unpacked for each byte of the archive, beyond the first 64 MiB
}

// DefaultLimits leave a factor of about seven above the largest releases known
// (1.2 GB, 68,000 entries). Releases unpack to two to four times their size; what
// gzip makes of zeros is a thousand times.
var DefaultLimits = Limits{Entries: 500_000, Bytes: 8 << 30, Path: 1024, Ratio: 100}

// ratioFloor is what any archive may unpack to: small ones prove nothing.
const ratioFloor = 64 << 20

// File is one file or symbolic link of an unpacked release.
type File struct {
	Path   string      `json:"path"` // slash separated, below the release
	Size   int64       `json:"size"`
	Mode   fs.FileMode `json:"mode"`            // 0444 or 0555
	SHA256 Sum         `json:"sha256,omitzero"` // of the content
	Link   string      `json:"link,omitempty"`  // target, for a symbolic link
}

// Sum is a SHA-256 digest. Its text is in hex.
type Sum [sha256.Size]byte

// MarshalText never fails.
func (s Sum) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, s[:]), nil }

// UnmarshalText takes 64 digits.
func (s *Sum) UnmarshalText(text []byte) error {
	if n, err := hex.Decode(s[:], text[:min(len(text), 2*len(s))]); err != nil || n != len(s) || len(text) != 2*n {
		return fmt.Errorf("%q is no SHA-256 digest", text)
	}
	return nil
}

// Tree extracts the gzipped tar stream r into root, without the directory
// "concourse" that everything in it lies in. It reads r to its end, and returns
// what it wrote, of which nothing is synced. Owners and times in the archive are
// ignored. What must be refused is ErrNotArchive.
func Tree(ctx context.Context, r io.Reader, root *os.Root, limits Limits) ([]File, error) {
	src := &source{r: r}
	files, err := unpackFrom(ctx, src, root, limits)
	if srcErr := src.failure(); err != nil && srcErr != nil {
		// Whatever gzip and tar make of a stream that broke off, this is why.
		return nil, srcErr
	}
	return files, err
}

func unpackFrom(ctx context.Context, src *source, root *os.Root, limits Limits) ([]File, error) {
	in := bufio.NewReaderSize(src, buffer)
	if head, err := in.Peek(2); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	} else if string(head) != "\x1f\x8b" {
		return nil, fmt.Errorf("%w: it does not begin like gzip", ErrNotArchive)
	}
	// Inflating runs ahead in goroutines of its own, beside the writing here.
	gz, err := pgzip.NewReaderN(in, buffer, 8)
	if err != nil {
		return nil, malformed(err)
	}
	defer gz.Close()

	x := &tree{
		root:   root,
		src:    src,
		limits: limits,
		names:  map[string]int32{".": isDir},
		copied: make([]byte, buffer),
		dirs:   root,
		dir:    ".",
	}
	x.written.SetLimit(closers)
	err = x.extract(ctx, tar.NewReader(gz))
	// Always wait: no writer may be left when the caller removes the tree.
	if closeErr := x.written.Wait(); err == nil {
		err = closeErr
	}
	x.leave()
	if err != nil {
		return nil, err
	}
	// The rest of the stream holds the gzip checksum, and only padding else.
	padding, err := io.Copy(io.Discard, io.LimitReader(gz, buffer+1))
	if err != nil {
		return nil, malformed(err)
	}
	if padding > buffer {
		return nil, fmt.Errorf("%w: data after its end", ErrNotArchive)
	}
	return x.files, nil
}

// What a name stands for that no file has.
const (
	isDir int32 = -1 - iota
	isLink
)

type tree struct {
	root   *os.Root
	src    *source
	limits Limits
	names  map[string]int32 // every name so far: index in files, or what it is else
	files  []File
	bytes  int64 // announced
	// unpacked is what was really written.
	unpacked int64
	copied   []byte
	// Files are closed beside the writing of the next ones.
	written errgroup.Group

	// A Root walks to a name from its top. Archives list directories one after
	// another, so the directory of the last file is kept.
	dirs *os.Root
	dir  string
}

func (x *tree) extract(ctx context.Context, tr *tar.Reader) error {
	for entries := 0; ; entries++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		h, err := tr.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return malformed(err)
		}
		if h.Typeflag == tar.TypeXGlobalHeader {
			continue
		}
		if entries >= x.limits.Entries {
			return fmt.Errorf("%w: more than %d entries", ErrNotArchive, x.limits.Entries)
		}
		name, err := x.name(h.Name)
		if err != nil {
			return err
		}
		if name == "." {
			if h.Typeflag != tar.TypeDir {
				return refuse(h.Name, "is not a directory")
			}
			continue
		}
		if err := x.parents(h.Name, path.Dir(name)); err != nil {
			return err
		}
		if is, ok := x.names[name]; ok && (is != isDir || h.Typeflag != tar.TypeDir) {
			return refuse(h.Name, "is there twice")
		}
		switch h.Typeflag {
		case tar.TypeDir:
			err = x.mkdir(name)
		case tar.TypeReg:
			err = x.file(name, h, tr)
		case tar.TypeSymlink:
			err = x.symlink(name, h)
		case tar.TypeLink:
			err = x.link(name, h)
		default:
			err = refuse(h.Name, fmt.Sprintf("is neither file, directory nor link (type %q)", h.Typeflag))
		}
		if err != nil {
			return err
		}
	}
}

// name checks a name in the archive and returns it relative to the release.
func (x *tree) name(raw string) (string, error) {
	if len(raw) > x.limits.Path {
		return "", refuse(raw[:64]+"...", "has a name that is too long")
	}
	if path.IsAbs(raw) || strings.ContainsAny(raw, "\x00\n") {
		return "", refuse(raw, "has an unusable name")
	}
	for part := range strings.SplitSeq(raw, "/") {
		if part == ".." {
			return "", refuse(raw, "leaves the release")
		}
	}
	clean := path.Clean(raw)
	if clean == top || clean == "." {
		return ".", nil
	}
	name, ok := strings.CutPrefix(clean, top+"/")
	if !ok {
		return "", refuse(raw, "is outside of "+top+"/")
	}
	if name == Reserved {
		return "", refuse(raw, "has a name that publishing needs")
	}
	return name, nil
}

// parents makes the directories above a name that the archive did not list. A
// name below a link or a file is refused.
func (x *tree) parents(raw, dir string) error {
	if is, ok := x.names[dir]; ok {
		if is != isDir {
			return refuse(raw, "lies below something that is no directory")
		}
		return nil
	}
	if err := x.parents(raw, path.Dir(dir)); err != nil {
		return err
	}
	return x.mkdir(dir)
}

func (x *tree) mkdir(name string) error {
	if is, ok := x.names[name]; ok && is == isDir {
		return nil
	}
	err := x.root.Mkdir(name, 0o755)
	if err == nil {
		// What became of the mode depends on the umask.
		var info fs.FileInfo
		if info, err = x.root.Lstat(name); err == nil && info.Mode().Perm() != 0o755 {
			err = x.root.Chmod(name, 0o755)
		}
	}
	if err != nil {
		return fmt.Errorf("cannot unpack: %w", err)
	}
	x.names[name] = isDir
	return nil
}

func (x *tree) file(name string, h *tar.Header, content io.Reader) error {
	if h.Mode&0o7000 != 0 {
		return refuse(h.Name, "has a setuid, setgid or sticky bit")
	}
	if x.bytes += h.Size; x.bytes > x.limits.Bytes {
		return fmt.Errorf("%w: more than %d bytes unpacked", ErrNotArchive, x.limits.Bytes)
	}
	mode := fs.FileMode(0o444)
	if h.Mode&0o111 != 0 {
		mode = 0o555
	}
	if err := x.enter(path.Dir(name)); err != nil {
		return err
	}
	f, err := x.dirs.OpenFile(path.Base(name), os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	if err != nil {
		return fmt.Errorf("cannot unpack: %w", err)
	}
	hash := sha256.New()
	for err != io.EOF {
		var n int
		if n, err = content.Read(x.copied); err != nil && err != io.EOF {
			f.Close()
			return malformed(err)
		}
		hash.Write(x.copied[:n])
		if x.unpacked += int64(n); x.unpacked > ratioFloor && x.unpacked/x.limits.Ratio > x.src.read.Load() {
			f.Close()
			return fmt.Errorf("%w: it unpacks to more than %d times its size", ErrNotArchive, x.limits.Ratio)
		}
		if _, err := f.Write(x.copied[:n]); err != nil {
			f.Close()
			return fmt.Errorf("cannot unpack %s: %w", name, err)
		}
	}
	x.add(File{Path: name, Size: h.Size, Mode: mode, SHA256: Sum(hash.Sum(nil))})
	x.written.Go(func() error {
		err := settle(f, mode)
		// Network file systems report a full disk here at the latest.
		if closeErr := f.Close(); err == nil {
			err = closeErr
		}
		if err != nil {
			return fmt.Errorf("cannot unpack %s: %w", name, err)
		}
		return nil
	})
	return nil
}

// settle gives a written file its mode, whatever the umask made of it, and has the
// kernel begin to write a large one out, so that the disk is not idle until all is
// synced. It waits for nothing itself.
func settle(f *os.File, mode fs.FileMode) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if info.Mode() != mode {
		if err := f.Chmod(mode); err != nil {
			return err
		}
	}
	if info.Size() >= early {
		// Where that is unknown, syncing has more to do.
		_ = unix.SyncFileRange(int(f.Fd()), 0, 0, unix.SYNC_FILE_RANGE_WRITE)
	}
	return nil
}

func (x *tree) symlink(name string, h *tar.Header) error {
	// Only leading dots may climb: then a target is inside if it is inside by
	// its text, whatever other links it leads through.
	target := path.Clean(h.Linkname)
	down := strings.TrimLeft(h.Linkname, "./")
	if h.Linkname == "" || path.IsAbs(h.Linkname) || strings.ContainsAny(h.Linkname, "\x00\n") ||
		strings.Contains("/"+down+"/", "/../") || !fs.ValidPath(path.Join(path.Dir(name), target)) {
		return refuse(h.Name, fmt.Sprintf("links to %q, out of the release", h.Linkname))
	}
	if err := x.root.Symlink(h.Linkname, name); err != nil {
		return fmt.Errorf("cannot unpack: %w", err)
	}
	x.names[name] = isLink
	x.files = append(x.files, File{Path: name, Link: h.Linkname})
	return nil
}

func (x *tree) link(name string, h *tar.Header) error {
	old, err := x.name(h.Linkname)
	if err != nil {
		return err
	}
	i, ok := x.names[old]
	if !ok || i < 0 {
		return refuse(h.Name, fmt.Sprintf("links to %q, which is no file before it", h.Linkname))
	}
	if err := x.root.Link(old, name); err != nil {
		return fmt.Errorf("cannot unpack: %w", err)
	}
	linked := x.files[i]
	linked.Path = name
	x.add(linked)
	return nil
}

func (x *tree) add(f File) {
	x.names[f.Path] = int32(len(x.files))
	x.files = append(x.files, f)
}

// enter makes dir the directory that files are created in.
func (x *tree) enter(dir string) error {
	if dir == x.dir {
		return nil
	}
	x.leave()
	if dir == "." {
		return nil
	}
	sub, err := x.root.OpenRoot(dir)
	if err != nil {
		return fmt.Errorf("cannot unpack: %w", err)
	}
	x.dirs, x.dir = sub, dir
	return nil
}

func (x *tree) leave() {
	if x.dirs != x.root {
		x.dirs.Close()
	}
	x.dirs, x.dir = x.root, "."
}

func refuse(name, why string) error {
	return fmt.Errorf("%w: entry %q %s", ErrNotArchive, name, why)
}

func malformed(err error) error {
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("%w: %w", ErrNotArchive, err)
}

// source remembers why a stream ended early. The inflating goroutine reads it.
type source struct {
	r    io.Reader
	read atomic.Int64
	mu   sync.Mutex
	err  error
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	s.read.Add(int64(n))
	if err != nil && err != io.EOF {
		s.mu.Lock()
		s.err = err
		s.mu.Unlock()
	}
	return n, err
}

func (s *source) failure() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

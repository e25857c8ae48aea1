package unpack

import (
	"archive/tar"
	"cmp"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

const (
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

// What a name stands for that no file has.
const (
	isDir int32 = -1 - iota
	isLink
)

// tree is a release that is being written.
type tree struct {
	layout  Layout
	limits  Limits
	names   map[string]int32 // every name so far: index in files, or what it is else
	files   []File
	entries int
	length  int   // of all names and targets
	bytes   int64 // announced
	hash    hash.Hash
	copied  []byte
	// Files are closed beside the writing of the next ones.
	written errgroup.Group
	// A Root walks to a name from its top. Archives list directories one after
	// another, so the way to the last one is kept open. The top is the first.
	way []directory
}

type directory struct {
	*os.Root
	name string
}

func (x *tree) extract(tr *tar.Reader) error {
	for {
		h, err := tr.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return malformed(err)
		}
		if err := x.entry(h, tr); errors.Is(err, ErrNotArchive) {
			return err
		} else if err != nil {
			return fmt.Errorf("cannot unpack %s: %w", h.Name, err)
		}
	}
}

// count counts a header, or a directory.
func (x *tree) count() error {
	if x.entries++; x.entries > x.limits.Entries {
		return fmt.Errorf("%w: more than %d entries", ErrNotArchive, x.limits.Entries)
	}
	return nil
}

func (x *tree) entry(h *tar.Header, content io.Reader) error {
	if err := x.count(); err != nil || h.Typeflag == tar.TypeXGlobalHeader {
		return err
	}
	name, err := x.name(h.Name)
	if err != nil {
		return err
	}
	if x.length += len(name) + len(h.Linkname); x.length > x.limits.Names {
		return fmt.Errorf("%w: more than %d bytes of names", ErrNotArchive, x.limits.Names)
	}
	if name == "." && h.Typeflag != tar.TypeDir {
		return refuse(h.Name, "is not a directory")
	}
	if is, ok := x.names[name]; ok && (is != isDir || h.Typeflag != tar.TypeDir) {
		return refuse(h.Name, "is there twice")
	}
	if h.Typeflag == tar.TypeDir {
		_, err := x.dir(h.Name, name)
		return err
	}
	dir, err := x.dir(h.Name, path.Dir(name))
	if err != nil {
		return err
	}
	switch h.Typeflag {
	case tar.TypeReg:
		return x.file(dir, name, h, content)
	case tar.TypeSymlink:
		return x.symlink(dir, name, h)
	case tar.TypeLink:
		return x.link(name, h)
	}
	return refuse(h.Name, fmt.Sprintf("is neither file, directory nor link (type %q)", h.Typeflag))
}

// dir opens a directory of the release, and makes what is missing of it. A name below
// a link or a file is refused.
func (x *tree) dir(raw, name string) (*os.Root, error) {
	if i := slices.IndexFunc(x.way, func(d directory) bool { return d.name == name }); i >= 0 {
		x.leave(i + 1)
		return x.way[i].Root, nil
	}
	parent, err := x.dir(raw, path.Dir(name))
	if err != nil {
		return nil, err
	}
	base := path.Base(name)
	if is, ok := x.names[name]; !ok {
		err = x.mkdir(parent, base, name)
	} else if is != isDir {
		err = refuse(raw, "lies below something that is no directory")
	}
	if err != nil {
		return nil, err
	}
	dir, err := parent.OpenRoot(base)
	if err == nil {
		x.way = append(x.way, directory{dir, name})
	}
	return dir, err
}

// leave closes the way but for its first n directories.
func (x *tree) leave(n int) {
	for _, dir := range x.way[n:] {
		dir.Close()
	}
	x.way = x.way[:n]
}

func (x *tree) mkdir(parent *os.Root, base, name string) error {
	if err := x.count(); err != nil {
		return err
	}
	if err := parent.Mkdir(base, 0o755); err != nil {
		return err
	}
	x.names[name] = isDir
	// What became of the mode depends on the umask.
	info, err := parent.Lstat(base)
	if err == nil && info.Mode().Perm() != 0o755 {
		err = parent.Chmod(base, 0o755)
	}
	return err
}

func (x *tree) file(dir *os.Root, name string, h *tar.Header, content io.Reader) error {
	if h.Mode&0o7000 != 0 {
		return refuse(h.Name, "has a setuid, setgid or sticky bit")
	}
	for key := range h.PAXRecords {
		// Tar would fill it with zeros that the archive does not have. The limits on what
		// is read do not see them.
		if strings.HasPrefix(key, "GNU.sparse.") {
			return refuse(h.Name, "is sparse")
		}
	}
	if err := x.announce(h.Size); err != nil {
		return err
	}
	mode := fs.FileMode(0o444)
	if h.Mode&0o111 != 0 {
		mode = 0o555
	}
	f, err := dir.OpenFile(path.Base(name), os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	x.hash.Reset()
	if _, err := io.CopyBuffer(io.MultiWriter(x.hash, f), content, x.copied); err != nil {
		f.Close()
		if errors.As(err, new(*fs.PathError)) { // of writing; those of the source end ctx
			return err
		}
		return malformed(err)
	}
	x.add(File{Path: name, Size: h.Size, Mode: mode, SHA256: Sum(x.hash.Sum(nil))})
	x.written.Go(func() error {
		// Network file systems report a full disk by Close, at the latest.
		if err := cmp.Or(settle(f, mode), f.Close()); err != nil {
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

func (x *tree) symlink(dir *os.Root, name string, h *tar.Header) error {
	if err := x.checkTarget(name, h); err != nil {
		return err
	}
	if err := dir.Symlink(h.Linkname, path.Base(name)); err != nil {
		return err
	}
	x.names[name] = isLink
	x.files = append(x.files, File{Path: name, Link: strings.Clone(h.Linkname)})
	return nil
}

// link makes a hard link. The manifest lists it as a file of its own.
func (x *tree) link(name string, h *tar.Header) error {
	old, err := x.name(h.Linkname)
	if err != nil {
		return err
	}
	i, ok := x.names[old]
	if !ok || i < 0 {
		return refuse(h.Name, fmt.Sprintf("links to %.100q, which is no file before it", h.Linkname))
	}
	linked := x.files[i]
	if err := x.announce(linked.Size); err != nil {
		return err
	}
	if err := x.way[0].Link(old, name); err != nil {
		return err
	}
	linked.Path = name
	x.add(linked)
	return nil
}

// announce counts the size that a header gives a file.
func (x *tree) announce(size int64) error {
	if size > x.limits.Bytes-x.bytes {
		return fmt.Errorf("%w: more than %d bytes unpacked", ErrNotArchive, x.limits.Bytes)
	}
	x.bytes += size
	return nil
}

func (x *tree) add(f File) {
	x.names[f.Path] = int32(len(x.files))
	x.files = append(x.files, f)
}

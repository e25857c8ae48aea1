// Package unpack extracts a release archive from a stream nobody trusts yet.
//
// It writes into a private tree only, and refuses whatever a release has no
// reason to contain, so that a bad archive harms nothing before its digest is
// known to be wrong.
package unpack

import (
	"archive/tar"
	"bufio"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/klauspost/pgzip"
)

// ErrNotArchive: the bytes are no release tarball, or one that must be refused.
var ErrNotArchive = errors.New("not a release archive")

// Layout is where a release lies in its archive.
type Layout struct {
	Top      string // the directory that all of it lies in
	Reserved string // a name in there that the archive may not use
}

// Limits bound what an archive may become.
type Limits struct {
	Entries int   // headers, and directories
	Bytes   int64 // inflated archive, and sum of the files' sizes, hard links included
	Path    int   // length of a name, and of a link's target
	Names   int   // sum of these lengths: they stay in memory
	Depth   int   // parts of a name below the top
	Ratio   int64 // bytes inflated for each byte of the archive, beyond the first 64 MiB
}

// DefaultLimits leave a factor of about six above the largest releases known
// (1.2 GB, 68,000 entries). Releases unpack to two to four times their size; what
// gzip makes of zeros is a thousand times. Root file systems are about 20 levels
// deep; each level costs a system call whenever a file is opened by name, and a
// descriptor here.
var DefaultLimits = Limits{Entries: 500_000, Bytes: 8 << 30, Path: 1024, Names: 64 << 20, Depth: 64, Ratio: 100}

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
// layout.Top. It reads r to its end, and returns what it wrote, of which nothing
// is synced. Owners and times in the archive are ignored. No path in the tree
// leads out of root, whatever links it goes through. What must be refused is
// ErrNotArchive. Tree hears ctx between two reads of r; a read that waits must
// hear it by itself.
func Tree(ctx context.Context, r io.Reader, root *os.Root, layout Layout, limits Limits) ([]File, error) {
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	files, err := unpackFrom(&source{ctx: ctx, fail: fail, r: r}, root, layout, limits)
	if err != nil && ctx.Err() != nil {
		// Whatever gzip and tar make of a stream that broke off, this is why.
		return nil, context.Cause(ctx)
	}
	return files, err
}

func unpackFrom(src *source, root *os.Root, layout Layout, limits Limits) ([]File, error) {
	// Inflating runs ahead in goroutines of its own, beside the writing here.
	gz, err := pgzip.NewReaderN(bufio.NewReaderSize(src, buffer), buffer, 8)
	if err != nil {
		return nil, malformed(err)
	}
	defer gz.Close()
	content := &inflated{r: gz, src: src, limits: limits}
	x := tree{
		layout: layout,
		limits: limits,
		names:  map[string]int32{},
		hash:   sha256.New(),
		copied: make([]byte, buffer),
		way:    []directory{{root, "."}},
	}
	x.written.SetLimit(closers)
	// No writer may be left when the caller removes the tree.
	err = cmp.Or(x.extract(tar.NewReader(content)), x.written.Wait())
	x.leave(1)
	if err != nil {
		return nil, err
	}
	// The rest of the stream holds the gzip checksum, and else only padding, whose
	// content POSIX leaves open.
	padding, err := io.Copy(io.Discard, io.LimitReader(content, buffer+1))
	if err != nil {
		return nil, malformed(err)
	}
	if padding > buffer {
		return nil, fmt.Errorf("%w: data after its end", ErrNotArchive)
	}
	return x.files, nil
}

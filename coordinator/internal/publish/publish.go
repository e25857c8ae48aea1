// Package publish makes a staged tree a release, once and durably, and tells
// later whether it still is one.
package publish

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"

	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/durable"
	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/unpack"
)

var (
	// ErrNotInstalled: there is no such release.
	ErrNotInstalled = errors.New("release is not installed")
	// ErrCorrupt: the release differs from its manifest.
	ErrCorrupt = errors.New("release is corrupt")
	// ErrFragile: the release is published, but a power cut may undo that.
	ErrFragile = errors.New("release may not survive a power cut")
)

// ManifestName is the file in the top of a release that describes the rest.
const ManifestName = "manifest.json"

// maxManifest is more than a release of as many files as can be unpacked has.
const maxManifest = 256 << 20

// Manifest describes a release. It is written last, so that a tree with one is
// complete.
type Manifest struct {
	Version     string        `json:"version"`
	Arch        string        `json:"arch,omitempty"` // of its programs, as Go names it
	Digest      string        `json:"digest"`         // of the archive, "sha256:HEX"
	InstalledBy string        `json:"installed_by"`
	Generation  int           `json:"generation"` // of the activation that was current then
	Bytes       int64         `json:"bytes"`      // sum of the files' sizes
	Files       []unpack.File `json:"files"`
}

// Contents is a digest of what the release consists of, whoever has installed it and when:
// of its files' names, sizes, modes and contents.
func (m Manifest) Contents() string {
	h := sha256.New()
	for _, f := range m.Files {
		fmt.Fprintf(h, "%q %d %o %x %q\n", f.Path, f.Size, f.Mode, f.SHA256, f.Link)
	}
	return fmt.Sprintf("sha256:%x", h.Sum(nil))
}

// Complete writes the manifest into a staged tree, which is a release then.
func Complete(root *os.Root, tree string, m Manifest) error {
	f, err := root.OpenFile(path.Join(tree, ManifestName), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err == nil {
		err = errors.Join(m.write(f), f.Chmod(0o444), f.Close())
	}
	if err != nil {
		return fmt.Errorf("cannot write the manifest: %w", err)
	}
	return nil
}

// write does not make a second copy of what 60,000 files are described by.
func (m Manifest) write(f *os.File) error {
	files := m.Files
	m.Files = []unpack.File{}
	head, err := json.Marshal(m)
	if err != nil {
		return err
	}
	out := bufio.NewWriterSize(f, 1<<16)
	out.Write(bytes.TrimSuffix(head, []byte("]}")))
	separator := "\n"
	for _, file := range files {
		line, err := json.Marshal(file)
		if err != nil {
			return err
		}
		out.WriteString(separator)
		out.Write(line)
		separator = ",\n"
	}
	out.WriteString("]}\n")
	return out.Flush() // with the first error of all before
}

// Rename gives a release that is synced its place, which is free; both are names below
// root. After success a power cut cannot undo it; where that could not be made sure, the
// error is ErrFragile.
func Rename(root *os.Root, tree, dir string) error {
	if err := durable.Rename(root, tree, dir); err != nil {
		return fmt.Errorf("cannot publish %s: %w", full(root, dir), err)
	}
	if err := durable.SyncDir(root, path.Dir(dir)); err != nil {
		return fmt.Errorf("%s: %w: %w", full(root, dir), ErrFragile, err)
	}
	return nil
}

// Read returns the manifest of the release of a version in dir, below root.
func Read(root *os.Root, dir, version string) (Manifest, error) {
	r, err := open(root, dir)
	if err != nil {
		return Manifest{}, err
	}
	defer r.Close()
	return read(r, version)
}

// Check compares names, sizes and modes in dir, below root, with its manifest.
// It reads no contents, so that it is fit to run before every start.
func Check(root *os.Root, dir, version string) (Manifest, error) {
	for {
		r, err := open(root, dir)
		if err != nil {
			return Manifest{}, err
		}
		var m Manifest
		seen, err := r.Stat(".")
		if err == nil {
			m, err = read(r, version)
		}
		if err == nil {
			err = compare(r, m, func(d Difference) error { return corrupt(r, "%s", d) })
		}
		r.Close()
		if !errors.Is(err, ErrCorrupt) {
			return m, err
		}
		// Or was it taken away while it was looked at?
		now, lookErr := root.Lstat(dir)
		switch {
		case errors.Is(lookErr, fs.ErrNotExist):
			return Manifest{}, fmt.Errorf("%s: %w", full(root, dir), ErrNotInstalled)
		case lookErr != nil || os.SameFile(seen, now):
			return m, err
		}
	}
}

// open holds the directory, and the rest is looked at through it: what appears
// between two looks by name is a release just published, not one that lacks
// something.
func open(root *os.Root, dir string) (*os.Root, error) {
	r, err := durable.OpenRoot(root, dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w", full(root, dir), ErrNotInstalled)
	}
	if info, statErr := root.Lstat(dir); err != nil && statErr == nil && !info.IsDir() {
		return nil, fmt.Errorf("%s: %w: it is no directory: %w", full(root, dir), ErrCorrupt, err)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot open the release %s: %w", full(root, dir), err)
	}
	return r, nil
}

func read(release *os.Root, version string) (Manifest, error) {
	var m Manifest
	data, err := durable.Read(release, ManifestName, maxManifest)
	if errors.Is(err, fs.ErrNotExist) {
		return m, corrupt(release, "it has no %s", ManifestName)
	}
	if errors.Is(err, durable.ErrUnusable) {
		return m, corrupt(release, "%v", err)
	}
	if err != nil {
		return m, fmt.Errorf("cannot read the manifest: %w", err)
	}
	if err := json.Unmarshal(data, &m); err != nil {
		return m, corrupt(release, "%s is unreadable: %v", ManifestName, err)
	}
	if m.Version != version {
		return m, corrupt(release, "%s is that of version %q", ManifestName, m.Version)
	}
	return m, nil
}

// compare calls differs for everything in a release that is not as the manifest
// says, and stops with the first error that it returns.
func compare(release *os.Root, m Manifest, differs func(Difference) error) error {
	want := make(map[string]int32, len(m.Files))
	for i, f := range m.Files {
		want[f.Path] = int32(i)
	}
	err := fs.WalkDir(release.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || name == ManifestName {
			return err
		}
		i, ok := want[name]
		if !ok {
			return differs(Difference{name, "does not belong to it"})
		}
		delete(want, name)
		f := m.Files[i]
		if f.Link != "" {
			if target, err := release.Readlink(name); err != nil || target != f.Link {
				return differs(Difference{name, "is no link to " + f.Link})
			}
			return nil
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if info.Size() != f.Size || info.Mode() != f.Mode {
			return differs(Difference{name, fmt.Sprintf("has %d bytes and mode %v instead of %d and %v", info.Size(), info.Mode(), f.Size, f.Mode)})
		}
		return nil
	})
	switch {
	case errors.Is(err, fs.ErrNotExist):
		// Taken away while it was looked at.
		return fmt.Errorf("%s: %w", release.Name(), ErrNotInstalled)
	case err != nil:
		return err
	}
	for _, f := range m.Files {
		if _, missing := want[f.Path]; missing {
			if err := differs(Difference{f.Path, "is missing"}); err != nil {
				return err
			}
		}
	}
	return nil
}

func corrupt(release *os.Root, format string, args ...any) error {
	return fmt.Errorf("%s: %w: %s", release.Name(), ErrCorrupt, fmt.Sprintf(format, args...))
}

// full is a name for people.
func full(root *os.Root, name string) string { return filepath.Join(root.Name(), name) }

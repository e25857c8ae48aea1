// Package publish makes a staged tree a release, once and durably, and tells
// later whether it still is one.
package publish

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/durable"
	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/unpack"
)

var (
	// ErrNotInstalled: there is no such release.
	ErrNotInstalled = errors.New("release is not installed")
	// ErrCorrupt: the release differs from its manifest.
	ErrCorrupt = errors.New("release is corrupt")
	// ErrExist: another unit published the release first.
	ErrExist = errors.New("release is published already")
)

// ManifestName is the file in the top of a release that describes the rest.
const ManifestName = unpack.Reserved

// Manifest describes a release. It is written last, so that a tree with one is
// complete.
type Manifest struct {
	Version     string        `json:"version"`
	Digest      string        `json:"digest"` // of the archive, "sha256:HEX"
	InstalledBy string        `json:"installed_by"`
	Generation  int           `json:"generation"` // of the activation that was current then
	Bytes       int64         `json:"bytes"`      // sum of the files' sizes
	Files       []unpack.File `json:"files"`
}

// Release turns the tree at staging into dir. If dir is there already, it
// changes nothing and returns ErrExist. After success a power cut cannot undo it.
func Release(staging, dir string, m Manifest) error {
	data, err := json.Marshal(m)
	if err != nil {
		return err
	}
	if err := writeManifest(filepath.Join(staging, ManifestName), data); err != nil {
		return err
	}
	err = filepath.WalkDir(staging, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		// The mode of a directory that was made depends on the umask.
		if err := os.Chmod(path, 0o755); err != nil {
			return err
		}
		return durable.SyncDir(path)
	})
	if err != nil {
		return fmt.Errorf("cannot sync the staged release: %w", err)
	}
	err = durable.Rename(staging, dir)
	if errors.Is(err, syscall.ENOTEMPTY) || errors.Is(err, syscall.EEXIST) {
		return fmt.Errorf("%s: %w", dir, ErrExist)
	}
	if err != nil {
		return fmt.Errorf("cannot publish %s: %w", dir, err)
	}
	return errors.Join(durable.SyncDir(filepath.Dir(dir)), durable.SyncDir(filepath.Dir(staging)))
}

func writeManifest(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("cannot write the manifest: %w", err)
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Chmod(0o444)
	}
	if err == nil {
		err = f.Sync()
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return fmt.Errorf("cannot write the manifest: %w", err)
	}
	return nil
}

// Read returns the manifest of the release in dir.
func Read(dir string) (Manifest, error) {
	var m Manifest
	// The directory first, and the manifest through it: one that appears between
	// two looks by name is a release just published, not one without a manifest.
	root, err := os.OpenRoot(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return m, fmt.Errorf("%s: %w", dir, ErrNotInstalled)
	}
	if err != nil {
		return m, fmt.Errorf("cannot open the release: %w", err)
	}
	defer root.Close()
	data, err := root.ReadFile(ManifestName)
	if errors.Is(err, fs.ErrNotExist) {
		return m, corrupt(dir, "it has no %s", ManifestName)
	}
	if err != nil {
		return m, fmt.Errorf("cannot read the manifest: %w", err)
	}
	if err := json.Unmarshal(data, &m); err != nil {
		return m, corrupt(dir, "%s is unreadable: %v", ManifestName, err)
	}
	if m.Version != filepath.Base(dir) {
		return m, corrupt(dir, "%s is that of version %q", ManifestName, m.Version)
	}
	return m, nil
}

// Check compares names, sizes and modes in dir with its manifest. It reads no
// contents, so that it is fit to run before every start.
func Check(dir string) (Manifest, error) {
	m, err := Read(dir)
	if err != nil {
		return m, err
	}
	return m, compare(dir, m, func(d Difference) error { return corrupt(dir, "%s", d) })
}

// compare calls differs for everything in dir that is not as the manifest says,
// and stops with the first error that it returns.
func compare(dir string, m Manifest, differs func(Difference) error) error {
	want := make(map[string]unpack.File, len(m.Files))
	for _, f := range m.Files {
		want[f.Path] = f
	}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name := filepath.ToSlash(strings.TrimPrefix(path, dir+string(filepath.Separator)))
		if name == ManifestName {
			return nil
		}
		f, ok := want[name]
		if !ok {
			return differs(Difference{name, "does not belong to it"})
		}
		delete(want, name)
		if f.Link != "" {
			if target, err := os.Readlink(path); err != nil || target != f.Link {
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
		return fmt.Errorf("%s: %w", dir, ErrNotInstalled)
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

// Quarantine moves a corrupt release out of the way, to below dir, and returns
// where it is now. Processes that run from it keep their files.
func Quarantine(release, dir string) (string, error) {
	place, err := os.MkdirTemp(dir, filepath.Base(release)+".")
	if err != nil {
		return "", fmt.Errorf("cannot quarantine %s: %w", release, err)
	}
	if err := durable.Rename(release, place); err != nil {
		return "", errors.Join(fmt.Errorf("cannot quarantine %s: %w", release, err), os.Remove(place))
	}
	return place, errors.Join(durable.SyncDir(filepath.Dir(release)), durable.SyncDir(dir))
}

func corrupt(dir, format string, args ...any) error {
	return fmt.Errorf("%s: %w: %s", dir, ErrCorrupt, fmt.Sprintf(format, args...))
}

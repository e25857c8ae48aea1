// Package pack makes a machine charm in Go into a .charm file without
// charmcraft, which needs a snap and a container for what is a zip of few files.
package pack

import (
	"archive/zip"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"
)

// ErrNoMetadata is returned for a directory that has no metadata.yaml.
var ErrNoMetadata = errors.New("no metadata.yaml")

// Spec says what is packed and where it goes.
type Spec struct {
	// Dir holds metadata.yaml and, where the charm has them, config.yaml,
	// actions.yaml, lxd-profile.yaml, icon.svg, README.md and LICENSE.
	Dir string
	// Main is the Go main package that becomes the charm's dispatch: an
	// import path, or a directory that starts with ./ or /.
	Main string
	// Out is the file to write. It is replaced only when the charm is whole.
	Out string
}

// manifest is what Juju reads to choose a base; charmcraft writes the same
// facts from charmcraft.yaml.
const manifest = `bases:
- name: ubuntu
  channel: "24.04"
  architectures:
  - amd64
`

// optional are the files of a charm that Juju and Charmhub know by name.
var optional = []string{"config.yaml", "actions.yaml", "lxd-profile.yaml", "icon.svg", "README.md", "LICENSE"}

// modified is every entry's time: the earliest that zip can express, so that
// equal sources give equal bytes.
var modified = time.Date(1980, 1, 1, 0, 0, 0, 0, time.UTC)

type entry struct {
	name string
	mode fs.FileMode
	data []byte
}

// Charm builds s.Main for linux/amd64 and writes the charm to s.Out. The same
// sources and Go version give the same bytes. It fails with ErrNoMetadata, or
// with the compiler's output.
func Charm(ctx context.Context, s Spec) error {
	entries, err := files(s.Dir)
	if err != nil {
		return err
	}
	dispatch, err := build(ctx, s.Main)
	if err != nil {
		return err
	}
	// No hooks directory: Juju runs dispatch for every hook and action.
	entries = append(entries, entry{"dispatch", 0o755, dispatch})
	slices.SortFunc(entries, func(a, b entry) int { return cmp.Compare(a.name, b.name) })

	out, err := os.CreateTemp(filepath.Dir(s.Out), ".charm-*")
	if err != nil {
		return fmt.Errorf("cannot write charm: %w", err)
	}
	defer os.Remove(out.Name())
	defer out.Close()
	if err := archive(out, entries); err != nil {
		return fmt.Errorf("cannot write charm %s: %w", s.Out, err)
	}
	if err := errors.Join(out.Chmod(0o644), out.Close()); err != nil {
		return fmt.Errorf("cannot write charm %s: %w", s.Out, err)
	}
	if err := os.Rename(out.Name(), s.Out); err != nil {
		return fmt.Errorf("cannot write charm: %w", err)
	}
	return nil
}

func files(dir string) ([]entry, error) {
	metadata, err := os.ReadFile(filepath.Join(dir, "metadata.yaml"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("cannot pack %s: %w: is this the charm's directory?", dir, ErrNoMetadata)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot pack %s: %w", dir, err)
	}
	entries := []entry{
		{"metadata.yaml", 0o644, metadata},
		{"manifest.yaml", 0o644, []byte(manifest)},
	}
	for _, name := range optional {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("cannot pack %s: %w", dir, err)
		}
		entries = append(entries, entry{name, 0o644, data})
	}
	return entries, nil
}

func build(ctx context.Context, main string) ([]byte, error) {
	dir, err := os.MkdirTemp("", "charm-")
	if err != nil {
		return nil, fmt.Errorf("cannot build %s: %w", main, err)
	}
	defer os.RemoveAll(dir)
	binary := filepath.Join(dir, "dispatch")
	// Without the revision of the work tree and the build id, two check-outs
	// of the same sources give the same binary.
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w -buildid=", "-o", binary, main)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64")
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("cannot build %s: %w\n%s", main, err, bytes.TrimSpace(out))
	}
	return os.ReadFile(binary)
}

func archive(w io.Writer, entries []entry) error {
	z := zip.NewWriter(w)
	for _, e := range entries {
		h := &zip.FileHeader{Name: e.name, Method: zip.Deflate, Modified: modified}
		h.SetMode(e.mode)
		f, err := z.CreateHeader(h)
		if err != nil {
			return err
		}
		if _, err := f.Write(e.data); err != nil {
			return err
		}
	}
	return z.Close()
}

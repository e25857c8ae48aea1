package suite

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/klauspost/compress/gzip"

	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/fixtures/release"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/scenarios"
)

// describe reads through a release's archive once: it adds up the files and writes this
// machine's fly to a file.
func describe(a release.Archive, fly string) (scenarios.Release, error) {
	r := scenarios.Release{Version: a.Version, Fly: fly}
	f, err := os.Open(a.Path)
	if err != nil {
		return r, fmt.Errorf("cannot read release %s: %w", a.Version, err)
	}
	defer f.Close()
	found := false
	err = eachFile(f, func(h *tar.Header, content io.Reader) error {
		r.Installed += h.Size
		if !strings.HasSuffix(h.Name, "fly-assets/fly-linux-amd64.tgz") {
			return nil
		}
		return eachFile(content, func(h *tar.Header, content io.Reader) error {
			if filepath.Base(h.Name) != "fly" {
				return nil
			}
			found = true
			out, err := os.OpenFile(fly, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o755)
			if err != nil {
				return err
			}
			_, err = io.Copy(out, content)
			return errors.Join(err, out.Close())
		})
	})
	if err == nil && !found {
		err = errors.New("it has no fly for this machine")
	}
	if err != nil {
		return r, fmt.Errorf("cannot read release %s: %w", a.Version, err)
	}
	return r, nil
}

// eachFile calls do for every regular file of a gzipped tarball.
func eachFile(tgz io.Reader, do func(*tar.Header, io.Reader) error) error {
	z, err := gzip.NewReader(tgz)
	if err != nil {
		return err
	}
	t := tar.NewReader(z)
	for {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if h.Typeflag != tar.TypeReg {
			continue
		}
		if err := do(h, t); err != nil {
			return err
		}
	}
}

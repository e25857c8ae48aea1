package e2e

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/klauspost/compress/gzip"

	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/cluster"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/fixtures/mirror"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/fixtures/release"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/scenarios"
)

// source is the mirror fixture as scenarios see it.
type source struct{ m *mirror.Mirror }

func (s source) URL() string { return s.m.URL() }

func (s source) Transfer(version string) cluster.Transfer {
	ledger := s.m.Ledger()
	c := ledger.Coverage(version)
	return cluster.Transfer{
		Size: c.Size, Sent: c.Sent, Distinct: c.Distinct, Clients: c.Clients,
		Requests: len(ledger.Downloads(version)),
	}
}

func (s source) Break(version string, fault cluster.MirrorFault) {
	s.m.Fault(version, map[cluster.MirrorFault]mirror.Fault{
		cluster.NotFound:    {Status: 404},
		cluster.WebPage:     {HTML: true},
		cluster.WrongDigest: {WrongDigest: true},
	}[fault])
}

func (s source) Repair(version string) { s.m.Fault(version, mirror.Fault{}) }

// unpacked reads through an archive: it adds up the files and takes out fly.
func unpacked(a release.Archive, dir string) (scenarios.Release, error) {
	r := scenarios.Release{Version: a.Version, Fly: filepath.Join(dir, "fly")}
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
			out, err := os.OpenFile(r.Fly, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o755)
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

package certify

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/product"
	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/cluster"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/fixtures/mirror"
)

// version is that of the made-up release. Concourse has none of it.
const version = "0.0.1"

// madeUp is Concourse as a product. The release has nothing that depends on a machine's
// architecture, and the mirror knows one only.
func madeUp() coordinator.Product {
	p := product.Concourse
	p.Name = "a made-up release"
	p.Archive = func(version, _ string) string { return product.Concourse.Archive(version, "amd64") }
	return p
}

// releaseFiles and fileBytes make a release of 2 MB, which does not get smaller.
const (
	releaseFiles = 16
	fileBytes    = 128 << 10
)

// source serves the made-up release over loopback.
type source struct {
	*mirror.Mirror
	dir string
}

// serve makes up a release and serves it. The same seed makes the same release.
func serve(seed string) (source, error) {
	dir, err := os.MkdirTemp("", "ccbench-certify-")
	if err != nil {
		return source{}, harness(err)
	}
	path := filepath.Join(dir, "concourse-"+version+"-linux-amd64.tgz")
	err = makeUp(path, sha256.Sum256([]byte(seed)))
	var m *mirror.Mirror
	if err == nil {
		m, err = mirror.Start("127.0.0.1:0", path)
	}
	if err != nil {
		return source{}, harness(errors.Join(err, os.RemoveAll(dir)))
	}
	return source{m, dir}, nil
}

func (s source) close() {
	s.Fault(version, cluster.MirrorFault{})
	s.Close() // whoever asks still was killed
	os.RemoveAll(s.dir)
}

// hold sends the first part of the release only, until resume.
func (s source) hold() {
	s.Fault(version, cluster.MirrorFault{Name: "held", Hold: releaseFiles * fileBytes / 2})
}

func (s source) resume() { s.Fault(version, cluster.MirrorFault{}) }

// held waits until a unit has got the first part.
func (s source) held(ctx context.Context) error {
	for s.Ledger().Transfer(version).Sent < releaseFiles*fileBytes/2 {
		select {
		case <-ctx.Done():
			return fmt.Errorf("no unit downloads: %w", ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
	return nil
}

// begun counts downloads from the first byte.
func (s source) begun() int {
	n := 0
	for _, e := range s.Ledger().Downloads(version) {
		if e.Offset == 0 {
			n++
		}
	}
	return n
}

func makeUp(path string, seed [32]byte) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	gz := gzip.NewWriter(f)
	tw := tar.NewWriter(gz)
	add := func(name string, mode, size int64, from io.Reader) {
		if err == nil {
			err = tw.WriteHeader(&tar.Header{Name: "concourse/" + name, Typeflag: tar.TypeReg, Mode: mode, Size: size})
		}
		if err == nil {
			_, err = io.CopyN(tw, from, size)
		}
	}
	contents := rand.NewChaCha8(seed)
	add("bin/concourse", 0o755, fileBytes, contents)
	for i := range releaseFiles - 1 {
		add(fmt.Sprintf("fly-assets/%d", i), 0o644, fileBytes, contents)
	}
	return errors.Join(err, tw.Close(), gz.Close(), f.Close())
}

package bench

import (
	"context"
	"os"
	"path"
	"path/filepath"
	"runtime"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/product"
	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator"
)

// All that this package asks of the coordinator is in this file.

// chunkBytes is what a crash may cost of a download, at most.
const chunkBytes = coordinator.DefaultChunk

// archiveName is how a source has to name the archive of a release.
func archiveName(version string) string {
	return path.Base(product.Concourse.Archive(version, runtime.GOARCH))
}

// releaseDir is where a release appears on the volume at root.
func releaseDir(root, version string) string { return filepath.Join(root, "releases", version) }

// member is one unit of a volume.
type member struct {
	root string
	c    *coordinator.Coordinator
}

// join opens the volume at root, which is made unless it is there. Where nothing
// is fetched the source may be empty.
func join(root, unit, source string) (member, error) {
	c, err := coordinator.Open(context.Background(), root, coordinator.Options{Unit: unit, Product: product.Concourse, Source: source})
	return member{root, c}, err
}

// ensure installs a release, or waits for it.
func (m member) ensure(ctx context.Context, version string) (coordinator.Release, error) {
	return m.c.Ensure(ctx, version)
}

// settle makes a release that is installed the one that this unit runs.
func (m member) settle(ctx context.Context, version string) error {
	if _, err := m.c.Activate(ctx, version); err != nil {
		return err
	}
	_, err := m.c.Pin(ctx, version)
	return err
}

// check is the quick check of an installed release.
func (m member) check(ctx context.Context, version string) error {
	_, err := m.c.Installed(ctx, version)
	return err
}

// claim takes a claim and releases it. Collect is the one method that takes one and
// has next to nothing else to do: to remove what a unit has left that is no more.
func (m member) claim(ctx context.Context) error {
	if err := os.Mkdir(filepath.Join(m.root, "staging", "0.0.1.1.gone-0"), 0o755); err != nil {
		return err
	}
	_, err := m.c.Collect(ctx)
	return err
}

package bench

import (
	"context"
	"path/filepath"

	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator"
)

// All that this package asks of the coordinator is in this file.

// chunkBytes is what a crash may cost of a download, at most.
const chunkBytes = coordinator.DefaultChunk

// archiveName is how a source has to name the archive of a release.
func archiveName(version string) string { return "concourse-" + version + "-linux-amd64.tgz" }

// releaseDir is where a release appears on the volume at root.
func releaseDir(root, version string) string { return filepath.Join(root, "releases", version) }

// member is one unit of a volume.
type member struct{ c *coordinator.Coordinator }

// join opens the volume at root, which is made unless it is there. Where nothing
// is fetched the source may be empty.
func join(root, unit, source string) (member, error) {
	c, err := coordinator.Open(root, coordinator.Options{Unit: unit, Source: source})
	return member{c}, err
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
	return m.c.Pin(version)
}

// check is the quick check of an installed release.
func (m member) check(_ context.Context, version string) error {
	_, err := m.c.Installed(version)
	return err
}

// claim takes the claim and releases it: Collect is the one method that takes
// it and has next to nothing to do on a fresh volume.
func (m member) claim(ctx context.Context) error {
	_, err := m.c.Collect(ctx)
	return err
}

package suite

import (
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/fixtures/environment"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/fixtures/release"
)

// Releases that are named are deployed, and none is built in place of one that is missing.
func TestNamedReleases(t *testing.T) {
	dir := t.TempDir()
	archive := filepath.Join(dir, "concourse-"+release.To+"-linux-amd64.tgz")
	for _, suffix := range []string{"", ".sha1", ".sha256"} {
		require.NoError(t, os.WriteFile(archive+suffix, []byte("5ab0"), 0o644))
	}
	j := NewJuju(&environment.Environment{CacheDir: t.TempDir()}, JujuOptions{Releases: dir})
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // a build would end here, after it has said that it begins
	log := func(text string) { t.Errorf("it builds: %s", text) }
	a, err := j.release(ctx, release.To, log)
	require.NoError(t, err)
	require.Equal(t, archive, a.Path)
	_, err = j.release(ctx, release.From, log)
	require.ErrorIs(t, err, fs.ErrNotExist)
}

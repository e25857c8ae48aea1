package suite

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/fixtures/release"
)

// tarball makes a .tgz with files by name and content, in pairs.
func tarball(t *testing.T, files ...string) []byte {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	w := tar.NewWriter(z)
	for i := 0; i < len(files); i += 2 {
		require.NoError(t, w.WriteHeader(&tar.Header{Name: files[i], Mode: 0o755, Size: int64(len(files[i+1]))}))
		_, err := w.Write([]byte(files[i+1]))
		require.NoError(t, err)
	}
	require.NoError(t, w.Close())
	require.NoError(t, z.Close())
	return b.Bytes()
}

func TestDescribe(t *testing.T) {
	dir := t.TempDir()
	nested := string(tarball(t, "./fly", "the command"))
	archive := release.Archive{Version: "7.14.3", Path: filepath.Join(dir, "a.tgz")}
	require.NoError(t, os.WriteFile(archive.Path, tarball(t,
		"concourse/bin/concourse", "12345", "concourse/fly-assets/fly-linux-amd64.tgz", nested), 0o644))
	for range 2 { // A build that was interrupted is made again.
		r, err := describe(archive, filepath.Join(dir, "fly"))
		require.NoError(t, err)
		require.Equal(t, "7.14.3", r.Version)
		require.Equal(t, int64(5+len(nested)), r.Installed)
		require.Equal(t, "the command", read(t, r.Fly))
	}

	require.NoError(t, os.WriteFile(archive.Path, tarball(t, "concourse/bin/concourse", "12345"), 0o644))
	_, err := describe(archive, filepath.Join(dir, "fly"))
	require.ErrorContains(t, err, "release 7.14.3: it has no fly")
}

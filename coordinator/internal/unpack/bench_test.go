package unpack

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
)

// BenchmarkTree unpacks what costs most for its size: 20,000 small files in 1,000
// directories. Run it on tmpfs (TMPDIR=/dev/shm), where no disk decides.
func BenchmarkTree(b *testing.B) {
	const files, size = 20_000, 2 << 10
	random := rand.NewChaCha8([32]byte{})
	body := make([]byte, size)
	var data bytes.Buffer
	gz := gzip.NewWriter(&data)
	tw := tar.NewWriter(gz)
	for i := range files {
		random.Read(body[:size/2])
		require.NoError(b, tw.WriteHeader(&tar.Header{
			Name:     fmt.Sprintf("concourse/resource-types/t%02d/rootfs/usr/share/d%d/f%d", i/400, i/20, i),
			Typeflag: tar.TypeReg, Mode: 0o644, Size: size,
		}))
		_, err := tw.Write(body)
		require.NoError(b, err)
	}
	require.NoError(b, tw.Close())
	require.NoError(b, gz.Close())
	b.SetBytes(files * size)
	for b.Loop() {
		b.StopTimer()
		dir := b.TempDir()
		root, err := os.OpenRoot(dir)
		require.NoError(b, err)
		b.StartTimer()
		got, err := extract(context.Background(), bytes.NewReader(data.Bytes()), root, DefaultLimits)
		b.StopTimer()
		require.NoError(b, err)
		require.Len(b, got, files)
		require.NoError(b, root.Close())
		require.NoError(b, os.RemoveAll(dir))
		b.StartTimer()
	}
}

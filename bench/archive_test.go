package bench

import (
	"archive/tar"
	"compress/flate"
	"compress/gzip"
	"io"
	"os"
	"path"
	"testing"

	"github.com/stretchr/testify/require"
)

// madeUp returns a release that was made with a cache of its own.
func madeUp(t *testing.T, k kind, files, mb int) archive {
	r, err := newRun(options(t))
	require.NoError(t, err)
	t.Cleanup(func() { r.source.Close() })
	a, err := r.archive(t.Context(), k, files, mb)
	require.NoError(t, err)
	cached, err := r.archive(t.Context(), k, files, mb)
	require.NoError(t, err)
	require.Equal(t, a, cached)
	return a
}

func TestArchiveIsTheSameEverywhere(t *testing.T) {
	sums := map[string]string{}
	for _, k := range []kind{realLike, compressible} {
		a, b := madeUp(t, k, 50, 2), madeUp(t, k, 50, 2)
		require.Equal(t, a.SHA256, b.SHA256)
		require.NotContains(t, sums, a.SHA256)
		sums[a.SHA256] = k.name
		other := madeUp(t, k, 51, 2)
		require.NotEqual(t, a.name(), other.name())
	}
	one, other := archive{kind: realLike}, archive{kind: compressible}
	require.NotEqual(t, one.name(), other.name(), "one kind is not taken from the cache for the other")
}

// composition is what an archive consists of, found out by compressing each of
// its files by itself with another compressor than made it.
type composition struct {
	stored      int64 // bytes of files that do not compress
	deflated    int64 // bytes of the other ones
	deflatedTo  int64 // what those become
	executables int
}

func composed(t *testing.T, a archive) composition {
	f, err := os.Open(a.path)
	require.NoError(t, err)
	defer f.Close()
	gz, err := gzip.NewReader(f)
	require.NoError(t, err)
	var c composition
	for tr := tar.NewReader(gz); ; {
		h, err := tr.Next()
		if err == io.EOF {
			return c
		}
		require.NoError(t, err)
		var size lengthWriter
		w, err := flate.NewWriter(&size, flate.DefaultCompression)
		require.NoError(t, err)
		_, err = io.Copy(w, tr)
		require.NoError(t, err)
		require.NoError(t, w.Close())
		if h.Mode&0o111 != 0 {
			c.executables++
		}
		if path.Ext(h.Name) == ".tgz" {
			require.GreaterOrEqual(t, int64(size), h.Size, "%s is an archive already", h.Name)
			c.stored += h.Size
			continue
		}
		c.deflated += h.Size
		c.deflatedTo += int64(size)
	}
}

type lengthWriter int64

func (l *lengthWriter) Write(p []byte) (int, error) {
	*l += lengthWriter(len(p))
	return len(p), nil
}

// TestRealLikeInflatesFaster proves it by what there is to inflate, not by time:
// stored bytes are copied, all others are decoded one by one.
func TestRealLikeInflatesFaster(t *testing.T) {
	published, hard := madeUp(t, realLike, 100, 4), madeUp(t, compressible, 100, 4)
	is, was := composed(t, published), composed(t, hard)

	t.Logf("%+v of %d bytes, %+v of %d bytes", is, published.Size, was, hard.Size)
	require.InDelta(t, 0.75, float64(is.stored)/float64(published.Size), 0.03, "three quarters of the archive are stored")
	require.InEpsilon(t, 1./3, float64(is.deflatedTo)/float64(is.deflated), 0.1, "executables compress to a third")
	require.InEpsilon(t, 1.5, float64(published.Unpacked)/float64(published.Size), 0.05)
	require.Equal(t, 25, is.executables)

	require.Zero(t, was.stored)
	require.InEpsilon(t, 2, float64(hard.Unpacked)/float64(hard.Size), 0.15, "all of it compresses to a half")

	decoded := func(c composition, a archive) float64 { return float64(c.deflated) / float64(a.Size) }
	require.Less(t, decoded(is, published), decoded(was, hard)/2, "bytes to decode for each byte of the archive")
}

func TestSizesAddUp(t *testing.T) {
	for _, k := range []kind{realLike, compressible} {
		a := archive{kind: k, Files: 800, MB: 10}
		var sum int64
		names := map[string]bool{}
		for _, e := range a.entries() {
			sum += e.size
			require.False(t, names[e.name], "%s is there twice", e.name)
			names[e.name] = true
		}
		require.Len(t, names, a.Files)
		require.InEpsilon(t, k.growth*10e6, float64(sum), 0.001)
	}
}

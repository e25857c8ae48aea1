package bench

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestBytesWritten(t *testing.T) {
	dir := t.TempDir()
	d := device(filepath.Join(dir, "stat"))
	count := func(line string) { require.NoError(t, os.WriteFile(string(d), []byte(line), 0o644)) }
	// reads merged sectors ticks writes merged sectors ticks ...
	count("  11 0 100 5   7 0  1000 9 0 3 4\n")
	n, err := d.written(&place{dir: dir}, func() error {
		count("  99 9 999 9  17 1  1200 9 0 3 4\n")
		return nil
	})
	require.NoError(t, err)
	require.EqualValues(t, 200*512, n, "sectors written, neither those read nor the number of writes")
	count("1 2 3\n")
	_, err = d.sectors()
	require.ErrorContains(t, err, "has 3 fields")
}

func TestDeviceOf(t *testing.T) {
	_, why, err := deviceOf(&place{name: "disk", dir: "/proc", fs: "proc"})
	require.NoError(t, err)
	require.Contains(t, why, "/proc is on proc without a block device of its own")
	_, why, err = deviceOf(&place{name: "disk", dir: "/dev/shm", fs: "tmpfs"})
	require.NoError(t, err)
	require.Contains(t, why, "--cache")
	_, _, err = deviceOf(&place{name: "disk", dir: filepath.Join(t.TempDir(), "none")})
	require.ErrorContains(t, err, "cannot find the device")
}

// TestDeviceCounts writes to the disk of the temporary directory.
func TestDeviceCounts(t *testing.T) {
	p := &place{name: "disk", dir: t.TempDir()}
	var err error
	p.fs, err = fileSystem(p.dir)
	require.NoError(t, err)
	d, why, err := deviceOf(p)
	require.NoError(t, err)
	if why != "" {
		t.Skip(why)
	}
	const size = 4 << 20
	n, err := d.written(p, func() error {
		return os.WriteFile(filepath.Join(p.dir, "file"), noiseBytes(1)[:size], 0o644)
	})
	require.NoError(t, err)
	require.GreaterOrEqual(t, n, int64(size), "others may write too, but not less")
}

package supervisor_test

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// The web server's user could have put a link where a directory is expected.
func TestLinksAreNotGivenAway(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root gives files away")
	}
	c := newCharm(t)
	c.system.IDs = [2]int{4711, 4711}
	target := t.TempDir()
	require.NoError(t, os.Symlink(target, filepath.Join(string(c.files), "web")))
	c.run(t)
	eventually(t, "the worker's key", func() bool {
		status, err := c.files.Status()
		return err == nil && status.WorkerKey != ""
	})
	info, err := os.Stat(target)
	require.NoError(t, err)
	require.EqualValues(t, 0, info.Sys().(*syscall.Stat_t).Uid)
	info, err = os.Stat(string(c.files))
	require.NoError(t, err)
	require.EqualValues(t, 4711, info.Sys().(*syscall.Stat_t).Gid)
}

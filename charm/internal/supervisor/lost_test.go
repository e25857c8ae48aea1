package supervisor_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/supervisor"
	"github.com/concourse-ci-machine/concourse-ci-machine/charm/product"
	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator"
)

// A shared volume needs a mount; that of a test is a directory.
func onADirectory(s *supervisor.Supervisor) {
	open := s.Open
	s.Open = func(ctx context.Context, root string, o coordinator.Options) (supervisor.Volume, error) {
		o.Marker = ""
		return open(ctx, root, o)
	}
}

// What a lost unit has left is removed once a hook, which the status wakes, has confirmed
// that it is gone for a while. Before that it may be a unit that has just joined.
func TestForgetsLostUnits(t *testing.T) {
	root := t.TempDir()
	dirs := map[string]string{}
	for _, unit := range []string{"ci/1", "ci/2", "ci/3", "other/1"} {
		c, err := coordinator.Open(t.Context(), root, coordinator.Options{Unit: unit, Product: product.Concourse})
		require.NoError(t, err)
		dirs[unit], err = c.WorkerDir(t.Context())
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(root, "pins", filepath.Base(dirs[unit])), []byte("7.14.2.1\n"), 0o644))
	}
	spec := supervisor.Spec{
		Unit: "ci/0", Root: root, Shared: true, Activate: true, Members: []string{"ci/0", "ci/1", "ci/2"},
	}
	c := newCharm(t)
	c.setBusy(true) // no hook confirms anything
	var looks atomic.Int32
	c.run(t, onADirectory, counting(&looks), func(s *supervisor.Supervisor) { s.Gone = 50 * time.Millisecond })
	require.NoError(t, c.files.PutSpec(spec)) // after the start: it is no stale one
	eventually(t, "the lost unit to be said", func() bool {
		status, err := c.files.Status()
		return err == nil && status.Lost == "ci/3"
	})
	some := looks.Load() + 3
	eventually(t, "more looks", func() bool { return looks.Load() >= some })
	require.DirExists(t, dirs["ci/3"], "no hook has confirmed that it is gone")
	c.setBusy(false)
	eventually(t, "the lost unit's directory to go", func() bool { return !exists(dirs["ci/3"]) })
	require.NoFileExists(t, filepath.Join(root, "pins", "ci-3"))
	for _, unit := range []string{"ci/1", "ci/2", "other/1"} {
		require.DirExists(t, dirs[unit], unit)
		require.FileExists(t, filepath.Join(root, "pins", filepath.Base(dirs[unit])))
	}
	eventually(t, "no lost unit", c.saw(func(f supervisor.Status) bool { return f.Lost == "" }))
	eventually(t, "a line in the log", func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return strings.Contains(strings.Join(c.log, "\n"), "Removed what ci/3, which is gone, has left on the volume")
	})
}

// counting counts how often the units of a volume are listed.
func counting(looks *atomic.Int32) func(*supervisor.Supervisor) {
	return func(s *supervisor.Supervisor) {
		open := s.Open
		s.Open = func(ctx context.Context, root string, o coordinator.Options) (supervisor.Volume, error) {
			v, err := open(ctx, root, o)
			return counted{v, looks}, err
		}
	}
}

type counted struct {
	supervisor.Volume
	looks *atomic.Int32
}

func (v counted) Units(ctx context.Context) ([]string, error) {
	v.looks.Add(1)
	return v.Volume.Units(ctx)
}

func exists(name string) bool {
	_, err := os.Lstat(name)
	return err == nil
}

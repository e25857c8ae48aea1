package coordinator

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// everyCall is what a unit can ask for, each for itself.
var everyCall = map[string]func(t *testing.T, c *Coordinator) error{
	"Check":   func(t *testing.T, c *Coordinator) error { return c.Check(t.Context()) },
	"Current": func(t *testing.T, c *Coordinator) error { _, err := c.Current(t.Context()); return err },
	"Executable": func(t *testing.T, c *Coordinator) error {
		return c.Executable(t.Context(), "7.14.3", os.Getuid(), os.Getgid())
	},
	"Recheck":   func(t *testing.T, c *Coordinator) error { _, err := c.Recheck(t.Context(), "7.14.3"); return err },
	"Installed": func(t *testing.T, c *Coordinator) error { _, err := c.Installed(t.Context(), "7.14.3"); return err },
	"Verify":    func(t *testing.T, c *Coordinator) error { return c.Verify(t.Context(), "7.14.3", nil) },
	"Inspect":   func(t *testing.T, c *Coordinator) error { _, err := c.Inspect(t.Context()); return err },
	"Ensure":    func(t *testing.T, c *Coordinator) error { _, err := c.Ensure(t.Context(), "7.14.3"); return err },
	"Reinstall": func(t *testing.T, c *Coordinator) error { _, err := c.Reinstall(t.Context(), "7.14.3"); return err },
	"Use":       func(t *testing.T, c *Coordinator) error { _, err := c.Use(t.Context(), "7.14.2"); return err },
	"Pin":       func(t *testing.T, c *Coordinator) error { return pin(t, c, "7.14.3") },
	"Activate":  func(t *testing.T, c *Coordinator) error { _, err := c.Activate(t.Context(), "7.14.2"); return err },
	"Rollback":  func(t *testing.T, c *Coordinator) error { _, err := c.Rollback(t.Context()); return err },
	"Collect":   func(t *testing.T, c *Coordinator) error { _, err := c.Collect(t.Context()); return err },
	"WorkerDir": func(t *testing.T, c *Coordinator) error { _, err := c.WorkerDir(t.Context()); return err },
	"WorkerDirBelow": func(t *testing.T, c *Coordinator) error {
		_, err := c.WorkerDirBelow(t.Context(), t.TempDir(), nil)
		return err
	},
	"RemoveWorkerDir": func(t *testing.T, c *Coordinator) error { return c.RemoveWorkerDir(t.Context()) },
	"Leave":           func(t *testing.T, c *Coordinator) error { return c.Leave(t.Context()) },
	"Forget":          func(t *testing.T, c *Coordinator) error { return c.Forget(t.Context(), "concourse-ci/1") },
	"Units":           func(t *testing.T, c *Coordinator) error { _, err := c.Units(t.Context()); return err },
	"Probe":           func(t *testing.T, c *Coordinator) error { _, err := c.Probe(t.Context()); return err },
}

// changed rewrites volume.json.
func changed(t *testing.T, root string, change func(*identity)) {
	name := filepath.Join(root, volumeFile)
	data, err := os.ReadFile(name)
	require.NoError(t, err)
	var v identity
	require.NoError(t, json.Unmarshal(data, &v))
	change(&v)
	data, err = json.Marshal(v)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(name, data, 0o644))
}

// snapshot describes all that is on a volume, and when it was changed.
func snapshot(t *testing.T, root string) (all []string) {
	require.NoError(t, filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err == nil {
			all = append(all, fmt.Sprint(name, info.Mode(), info.Size(), info.ModTime().UnixNano()))
		}
		return err
	}))
	return all
}

// Whom a volume is not for, or who does not know its layout, is refused by each call
// with a sentence, and writes nothing; also one that was there before.
func TestRefusedVolume(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(*identity)
		want   string
		kind   error
	}{
		"a newer layout": {func(v *identity) { v.Layout = layout + 1 }, fmt.Sprintf("has layout %d, this program knows %d to %d: run a newer one here", layout+1, firstLayout, layout), ErrNewerLayout},
		"another owner":  {func(v *identity) { v.Owner = "theirs" }, "belongs to theirs, this unit to ours: attach a volume of its own", ErrOtherOwner},
		"another id":     {func(v *identity) { v.ID = "X" }, "is volume X, but this unit knows ", ErrForeignVolume},
	} {
		t.Run(name, func(t *testing.T) {
			src := newSource(t, "7.14.1", "7.14.2", "7.14.3")
			root := t.TempDir()
			c := open(t, root, "concourse-ci/0", src.URL, func(o *Options) { o.Owner = "ours" })
			installed(t, c, "7.14.1", "7.14.2", "7.14.3")
			changed(t, root, tt.change)
			before := snapshot(t, root)
			o := c.options
			o.VolumeID = c.VolumeID()
			calls := map[string]func(*testing.T, *Coordinator) error{
				"Open": func(t *testing.T, _ *Coordinator) error { _, err := Open(t.Context(), root, o); return err },
			}
			for name, call := range everyCall {
				calls[name] = call
			}
			for name, call := range calls {
				err := call(t, c)
				var e *Error
				require.ErrorAs(t, err, &e, name)
				require.Equal(t, tt.kind, e.Kind, name)
				require.ErrorIs(t, err, ErrForeignVolume, name)
				require.False(t, e.Retry, name)
				require.ErrorContains(t, err, tt.want, name)
			}
			require.Equal(t, before, snapshot(t, root), "something was written")
		})
	}
}

// No call is missing above.
func TestEveryCallIsRefused(t *testing.T) {
	methods := reflect.TypeFor[*Coordinator]()
	for i := range methods.NumMethod() {
		name := methods.Method(i).Name
		require.True(t, everyCall[name] != nil || name == "VolumeID", name)
	}
}

// A layout before the first is no layout.
func TestImpossibleLayout(t *testing.T) {
	root := t.TempDir()
	c := open(t, root, "concourse-ci/0", "")
	for _, n := range []int{0, -1} {
		changed(t, root, func(v *identity) { v.Layout = n })
		require.ErrorIs(t, c.Check(t.Context()), ErrDamaged)
	}
	changed(t, root, func(v *identity) { v.Layout = firstLayout })
	require.NoError(t, c.Check(t.Context()))
}

// Who opens a new volume first owns it.
func TestOwner(t *testing.T) {
	owned := func(owner string) func(*Options) { return func(o *Options) { o.Owner = owner } }
	root := t.TempDir()
	c := open(t, root, "concourse-ci/0", "", owned("ours"))
	open(t, root, "concourse-ci/1", "", owned("ours"))
	open(t, root, "machine/0", "") // asks for nothing
	i, err := c.Inspect(t.Context())
	require.NoError(t, err)
	require.Equal(t, "ours", i.Owner)
	before := snapshot(t, root)
	_, err = Open(t.Context(), root, Options{Product: concourse, Unit: "concourse-ci/0", Owner: "theirs"})
	require.ErrorIs(t, err, ErrForeignVolume)
	require.ErrorContains(t, err, "belongs to ours, this unit to theirs")
	require.Equal(t, before, snapshot(t, root))

	// A volume of nobody is anybody's, and stays nobody's.
	root = t.TempDir()
	open(t, root, "machine/0", "")
	c = open(t, root, "concourse-ci/0", "", owned("ours"))
	open(t, root, "concourse-ci/0", "", owned("theirs"))
	i, err = c.Inspect(t.Context())
	require.NoError(t, err)
	require.Empty(t, i.Owner)

	// Of many that open a new volume at once, one owns it; the others are refused.
	root = t.TempDir()
	var all sync.WaitGroup
	var errs [8]error
	for n := range errs {
		all.Go(func() {
			_, errs[n] = Open(t.Context(), root, Options{Product: concourse, Unit: "concourse-ci/0", Owner: fmt.Sprint(n)})
		})
	}
	all.Wait()
	own := 0
	for _, err := range errs {
		if err == nil {
			own++
		} else {
			require.ErrorIs(t, err, ErrForeignVolume)
		}
	}
	require.Equal(t, 1, own)
}

// A volume of the first layout, in which a release is a directory, is used as it is,
// and repaired.
func TestFirstLayout(t *testing.T) {
	src := newSource(t, "7.14.3", "7.14.4")
	root := t.TempDir()
	c := open(t, root, "concourse-ci/0", src.URL)
	r, err := c.Ensure(t.Context(), "7.14.3")
	require.NoError(t, err)
	link := filepath.Join(root, releasesDir, "7.14.3")
	require.NoError(t, os.Remove(link))
	require.NoError(t, os.Rename(r.Dir, link))
	require.NoError(t, os.Remove(filepath.Join(root, storeDir)))
	id := `{"id":"` + c.VolumeID() + `","layout":1}`
	require.NoError(t, os.WriteFile(filepath.Join(root, volumeFile), []byte(id), 0o644))

	c = open(t, root, "concourse-ci/1", src.URL)
	r, err = c.Use(t.Context(), "7.14.3")
	require.NoError(t, err)
	require.False(t, r.Downloaded)
	require.Equal(t, link, r.Dir)
	_, err = c.Activate(t.Context(), "7.14.3")
	require.NoError(t, err)
	require.NoError(t, os.Remove(filepath.Join(link, "bin/runc")))
	_, err = c.Ensure(t.Context(), "7.14.3")
	require.NoError(t, err)
	_, err = c.Collect(t.Context())
	require.NoError(t, err)
	require.FileExists(t, filepath.Join(root, storeDir, "7.14.3.0/bin/concourse"), "this unit has it pinned")
	require.NoError(t, pin(t, c, "7.14.3"))
	removed, err := c.Collect(t.Context())
	require.NoError(t, err)
	require.Equal(t, []string{"store/7.14.3.0"}, removed)
}

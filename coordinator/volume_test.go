package coordinator

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func shared(o *Options) { o.Marker = marker }

func TestUnmountedVolume(t *testing.T) {
	t.Run("no directory", func(t *testing.T) {
		_, err := Open(t.Context(), filepath.Join(t.TempDir(), "x"), Options{Product: concourse, Unit: "concourse-ci/0", Marker: marker})
		require.ErrorIs(t, err, ErrNotMounted)
	})
	t.Run("plain directory with a marker", func(t *testing.T) {
		root := t.TempDir()
		require.NoError(t, os.WriteFile(filepath.Join(root, marker), nil, 0o644))
		_, err := Open(t.Context(), root, Options{Product: concourse, Unit: "concourse-ci/0", Marker: marker})
		require.ErrorIs(t, err, ErrNotMounted)
		require.Equal(t, []string{marker}, listing(t, root), "something was written underneath")
	})
	t.Run("mount without a marker", func(t *testing.T) {
		root := tmpfs(t, "4m")
		_, err := Open(t.Context(), root, Options{Product: concourse, Unit: "concourse-ci/0", Marker: marker})
		require.ErrorIs(t, err, ErrNotMounted)
		require.ErrorIs(t, err, ErrUnmarked)
		require.ErrorContains(t, err, "touch ")
		require.Empty(t, listing(t, root))
	})
	t.Run("bind mount within one file system", func(t *testing.T) {
		tmpfs(t, "4k") // skips where nothing can be mounted
		volume, root := t.TempDir(), t.TempDir()
		require.NoError(t, os.WriteFile(filepath.Join(volume, marker), nil, 0o644))
		require.NoError(t, syscall.Mount(volume, root, "", syscall.MS_BIND, ""))
		t.Cleanup(func() { syscall.Unmount(root, syscall.MNT_DETACH) })
		open(t, root, "concourse-ci/0", "", shared)
	})
}

func TestVolumeLostInMidDownload(t *testing.T) {
	root := tmpfs(t, "16m")
	require.NoError(t, os.WriteFile(filepath.Join(root, marker), nil, 0o644))
	src := newSource(t)
	src.publish("7.14.3", releaseArchive("7.14.3", 4<<20))
	src.answer(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, ".tgz") {
			return false
		}
		data := src.files[filepath.Base(r.URL.Path)]
		w.Write(data[:len(data)/2])
		http.NewResponseController(w).Flush()
		time.Sleep(200 * time.Millisecond)
		if err := syscall.Unmount(root, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
		w.Write(data[len(data)/2:])
		return true
	})
	c := open(t, root, "concourse-ci/0", src.URL, shared)
	_, err := c.Ensure(context.Background(), "7.14.3")
	require.ErrorIs(t, err, ErrNotMounted)
	require.Empty(t, listing(t, root), "something was written underneath")
	for name, err := range map[string]error{
		"Check":  c.Check(t.Context()),
		"Pin":    pin(t, c, "7.14.3"),
		"Leave":  c.Leave(t.Context()),
		"Ensure": func() error { _, err := c.Ensure(context.Background(), "7.14.3"); return err }(),
		"Activate": func() error {
			_, err := c.Activate(context.Background(), "7.14.3")
			return err
		}(),
		"Collect":   func() error { _, err := c.Collect(context.Background()); return err }(),
		"WorkerDir": func() error { _, err := c.WorkerDir(t.Context()); return err }(),
	} {
		require.ErrorIs(t, err, ErrNotMounted, name)
	}
	require.Empty(t, listing(t, root), "something was written underneath")
}

func TestForeignVolume(t *testing.T) {
	root := t.TempDir()
	c := open(t, root, "concourse-ci/0", "")
	same := open(t, root, "concourse-ci/1", "", func(o *Options) { o.VolumeID = c.VolumeID() })
	require.Equal(t, c.VolumeID(), same.VolumeID())

	_, err := Open(t.Context(), t.TempDir(), Options{Product: concourse, Unit: "concourse-ci/0", VolumeID: c.VolumeID()})
	require.ErrorIs(t, err, ErrForeignVolume, "an empty volume is another one")
	other := t.TempDir()
	open(t, other, "concourse-ci/5", "")
	_, err = Open(t.Context(), other, Options{Product: concourse, Unit: "concourse-ci/0", VolumeID: c.VolumeID()})
	require.ErrorIs(t, err, ErrForeignVolume)
	require.ErrorContains(t, err, c.VolumeID())

	data, err := os.ReadFile(filepath.Join(other, volumeFile))
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(root, volumeFile), data, 0o644))
	require.ErrorIs(t, c.Check(t.Context()), ErrForeignVolume)
	require.ErrorIs(t, pin(t, c, "7.14.3"), ErrForeignVolume)
}

func TestOneIDForAll(t *testing.T) {
	root := t.TempDir()
	var ids [16]string
	var all sync.WaitGroup
	for i := range ids {
		all.Go(func() {
			if c, err := Open(t.Context(), root, Options{Product: concourse, Unit: "concourse-ci/0"}); err == nil {
				ids[i] = c.VolumeID()
			}
		})
	}
	all.Wait()
	require.NotEmpty(t, ids[0])
	for _, id := range ids {
		require.Equal(t, ids[0], id)
	}
}

func TestUnitNames(t *testing.T) {
	for _, bad := range []string{"", "a-0", "../x", "a/b/c", "a.b/0", "A/0", "/0"} {
		_, err := Open(t.Context(), t.TempDir(), Options{Product: concourse, Unit: bad})
		require.Error(t, err, bad)
	}
}

func installed(t *testing.T, c *Coordinator, versions ...string) {
	for _, v := range versions {
		_, err := c.Ensure(context.Background(), v)
		require.NoError(t, err)
		_, err = c.Activate(context.Background(), v)
		require.NoError(t, err)
	}
}

func derived(t *testing.T, root string) (bin, marker string) {
	bin, err := os.Readlink(filepath.Join(root, concourse.Link))
	require.NoError(t, err)
	data, err := os.ReadFile(filepath.Join(root, installedFile))
	require.NoError(t, err)
	return bin, string(data)
}

func TestActivateAndRollBack(t *testing.T) {
	ctx := context.Background()
	src := newSource(t, "7.14.2", "7.14.3")
	root := t.TempDir()
	c := open(t, root, "concourse-ci/0", src.URL)
	_, err := c.Current(t.Context())
	require.ErrorIs(t, err, ErrNotActivated)
	_, err = c.Rollback(ctx)
	require.ErrorIs(t, err, ErrNotActivated)
	_, err = c.Activate(ctx, "7.14.2")
	require.ErrorIs(t, err, ErrNotInstalled)

	installed(t, c, "7.14.2")
	_, err = c.Rollback(ctx)
	require.ErrorIs(t, err, ErrNotActivated, "nothing before the first")
	installed(t, c, "7.14.3")
	a, err := c.Current(t.Context())
	require.NoError(t, err)
	require.Equal(t, Activation{Generation: 2, Version: "7.14.3", Unit: "concourse-ci/0"}, a)

	require.NoError(t, os.Remove(filepath.Join(root, concourse.Link)))
	require.NoError(t, os.WriteFile(filepath.Join(root, installedFile), []byte("7.14.2\n"), 0o644))
	again, err := open(t, root, "concourse-ci/1", src.URL).Activate(ctx, "7.14.3")
	require.NoError(t, err)
	require.Equal(t, a, again, "no new generation")
	bin, marker := derived(t, root)
	require.Equal(t, "releases/7.14.3/bin", bin)
	require.Equal(t, "7.14.3\n", marker)

	back, err := c.Rollback(ctx)
	require.NoError(t, err)
	require.Equal(t, Activation{Generation: 3, Version: "7.14.2", Unit: "concourse-ci/0", Restores: 1}, back)
	bin, marker = derived(t, root)
	require.Equal(t, "releases/7.14.2/bin", bin)
	require.Equal(t, "7.14.2\n", marker)
	requests, _ := src.archives()
	require.Len(t, requests, 2, "a rollback downloads nothing")
}

func TestActivationRace(t *testing.T) {
	ctx := context.Background()
	src := newSource(t, "7.14.2", "7.14.3")
	root := t.TempDir()
	installed(t, open(t, root, "concourse-ci/0", src.URL), "7.14.2")
	_, err := open(t, root, "concourse-ci/0", src.URL).Ensure(ctx, "7.14.3")
	require.NoError(t, err)
	const units, rounds = 6, 10
	var all sync.WaitGroup
	won := make(chan Activation, units*rounds)
	for i := range units {
		c := open(t, root, "concourse-ci/"+string(rune('0'+i)), src.URL)
		all.Go(func() {
			for n := range rounds {
				a, err := c.Activate(ctx, []string{"7.14.2", "7.14.3"}[(i+n)%2])
				if errors.Is(err, ErrOvertaken) {
					continue
				}
				if err != nil {
					t.Error(err)
				} else if a.Unit == c.options.Unit {
					won <- a
				}
			}
		})
	}
	all.Wait()
	close(won)
	c := open(t, root, "concourse-ci/0", src.URL)
	last, err := c.Current(t.Context())
	require.NoError(t, err)
	require.Len(t, listing(t, filepath.Join(root, activationsDir)), last.Generation, "generations have no gaps and no leftovers")
	before := ""
	v := inside(t, c)
	for n := 1; n <= last.Generation; n++ {
		a, err := v.activation(n)
		require.NoError(t, err)
		require.Equal(t, n, a.Generation)
		require.NotEqual(t, before, a.Version, "an activation that changes nothing")
		before = a.Version
	}
	for a := range won {
		logged, err := v.activation(a.Generation)
		require.NoError(t, err)
		require.Equal(t, logged, a, "a generation was promised twice")
	}
	bin, marker := derived(t, root)
	require.Equal(t, filepath.Join("releases", last.Version, "bin"), bin)
	require.Equal(t, last.Version+"\n", marker)
}

// A unit that slept since it read the log knows nothing of what was activated.
func TestOvertakenActivationDoesNothing(t *testing.T) {
	ctx := context.Background()
	src := newSource(t, "7.14.1", "7.14.2", "7.14.3")
	root := t.TempDir()
	other := open(t, root, "concourse-ci/1", src.URL)
	installed(t, other, "7.14.1")
	for _, version := range []string{"7.14.2", "7.14.3"} {
		_, err := other.Ensure(ctx, version)
		require.NoError(t, err)
	}
	for _, tt := range []struct {
		meanwhile string
		err       error
	}{{"7.14.2", ErrOvertaken}, {"7.14.3", nil}} {
		sleeper := open(t, root, "concourse-ci/0", src.URL)
		sleeper.memory.at = func(point string, _ int) {
			if point == "activate" {
				_, err := other.Activate(ctx, tt.meanwhile)
				require.NoError(t, err)
			}
		}
		_, err := sleeper.Activate(ctx, "7.14.3")
		require.ErrorIs(t, err, tt.err)
		current, err := other.Current(t.Context())
		require.NoError(t, err)
		require.Equal(t, Activation{Generation: current.Generation, Version: tt.meanwhile, Unit: "concourse-ci/1"}, current)
	}
}

// What is to be taken back is decided by what was current at the beginning.
func TestOvertakenRollback(t *testing.T) {
	ctx := context.Background()
	src := newSource(t, "7.14.1", "7.14.2", "7.14.3")
	root := t.TempDir()
	other := open(t, root, "concourse-ci/1", src.URL)
	installed(t, other, "7.14.1", "7.14.2")
	_, err := other.Ensure(ctx, "7.14.3")
	require.NoError(t, err)
	for _, meanwhile := range []func() error{
		func() error { _, err := other.Activate(ctx, "7.14.3"); return err },
		func() error { _, err := other.Rollback(ctx); return err }, // to 7.14.2, as wished
	} {
		sleeper := open(t, root, "concourse-ci/0", src.URL)
		sleeper.memory.at = func(point string, _ int) {
			if point == "activate" {
				require.NoError(t, meanwhile())
			}
		}
		before, err := other.Current(t.Context())
		require.NoError(t, err)
		a, err := sleeper.Rollback(ctx)
		current, currentErr := other.Current(t.Context())
		require.NoError(t, currentErr)
		require.Equal(t, before.Generation+1, current.Generation, "activated after it was overtaken")
		if current.Version == "7.14.3" {
			require.ErrorIs(t, err, ErrOvertaken)
		} else {
			require.NoError(t, err)
			require.Equal(t, current, a)
		}
	}
}

// A release that a unit comes to need while another one collects it is kept, or
// the unit is told; at whatever point that happens.
func TestPinDuringCollection(t *testing.T) {
	ctx := context.Background()
	for _, point := range []string{"collecting", "collect", "held"} {
		for name, need := range map[string]func(c *Coordinator) error{
			"pin": func(c *Coordinator) error { return pin(t, c, "7.14.0") },
			"activate": func(c *Coordinator) error {
				_, err := c.Activate(ctx, "7.14.0")
				return err
			},
		} {
			t.Run(name+" at "+point, func(t *testing.T) {
				src := newSource(t, "7.14.0", "7.14.1", "7.14.2", "7.14.3")
				root := t.TempDir()
				collector, unit := open(t, root, "concourse-ci/0", src.URL), open(t, root, "concourse-ci/1", src.URL)
				installed(t, collector, "7.14.0", "7.14.1", "7.14.2", "7.14.3")
				met := 0
				meet := func(at string, do func()) func(string, int) {
					return func(point string, _ int) {
						if point == at && met == 0 {
							met++
							do()
						}
					}
				}
				var removed []string
				var err error
				if point == "held" {
					unit.memory.at = meet(point, func() { removed, err = collector.Collect(ctx) })
					require.NoError(t, need(unit))
				} else {
					collector.memory.at = meet(point, func() { require.NoError(t, need(unit)) })
					removed, err = collector.Collect(ctx)
				}
				require.NoError(t, err)
				require.Equal(t, 1, met)
				want := []string{"releases/7.14.1", "store/7.14.1.1"}
				if name == "activate" && point != "held" {
					want = append(want, "releases/7.14.2", "store/7.14.2.1") // which is no longer the previous one
				}
				require.Equal(t, want, removed)
				_, err = unit.Installed(t.Context(), "7.14.0")
				require.NoError(t, err)
				require.Empty(t, listing(t, filepath.Join(root, stagingDir)))
				for _, name := range listing(t, filepath.Join(root, pinsDir)) {
					require.Equal(t, "concourse-ci-1", name, "the pin of a call is left")
				}
			})
		}
	}
}

// A unit that could not get another release still runs the one before.
func TestFailedPinChangesNothing(t *testing.T) {
	src := newSource(t, "7.14.2")
	root := t.TempDir()
	c := open(t, root, "concourse-ci/0", src.URL)
	installed(t, c, "7.14.2")
	require.NoError(t, pin(t, c, "7.14.2"))
	require.ErrorIs(t, pin(t, c, "7.14.3"), ErrNotInstalled)
	report, err := c.Inspect(context.Background())
	require.NoError(t, err)
	require.Equal(t, map[string]string{"concourse-ci-0": "7.14.2.1"}, report.Pins)
	require.Equal(t, []string{"concourse-ci-0"}, listing(t, filepath.Join(root, pinsDir)))
}

// While a collector reads the pins, a pin gets another name. The one look finds it
// under neither.
func TestPinIsSeenOnTheMove(t *testing.T) {
	src := newSource(t, "7.14.0", "7.14.1", "7.14.2")
	root := t.TempDir()
	c := open(t, root, "concourse-ci/0", src.URL)
	installed(t, c, "7.14.0", "7.14.1", "7.14.2")
	v := inside(t, c)
	name := pinsDir + "/concourse-ci-1"
	looks := 0
	c.memory.at = func(point string, _ int) {
		if point == "pins" && looks == 0 { // the first look is over: the name came too late for it
			looks++
			require.NoError(t, v.root.WriteFile(name, []byte("7.14.0.1\n"), 0o644))
		}
	}
	doomed, err := v.doomed("7.14.0")
	require.NoError(t, err)
	require.Empty(t, doomed)
}

// A collector that slept finds its directory gone, and moves nothing.
func TestSleepingCollectorIsFenced(t *testing.T) {
	ctx := context.Background()
	src := newSource(t, "7.14.0", "7.14.1", "7.14.2")
	root := t.TempDir()
	sleeper, other := open(t, root, "concourse-ci/0", src.URL), open(t, root, "concourse-ci/1", src.URL)
	installed(t, sleeper, "7.14.0", "7.14.1", "7.14.2")
	sleeper.memory.at = func(point string, _ int) {
		if point != "collect" {
			return
		}
		// What the next holder does.
		require.NoError(t, inside(t, other).sweep(t.Context(), func(staged) bool { return true }))
		require.NoError(t, pin(t, other, "7.14.0"))
	}
	removed, err := sleeper.Collect(ctx)
	require.NoError(t, err)
	require.Empty(t, removed)
	_, err = other.Installed(t.Context(), "7.14.0")
	require.NoError(t, err)
}

func TestCollect(t *testing.T) {
	ctx := context.Background()
	src := newSource(t, "7.14.0", "7.14.1", "7.14.2", "7.14.3", "7.14.4")
	root := t.TempDir()
	c := open(t, root, "concourse-ci/0", src.URL)
	installed(t, c, "7.14.0")
	worker := open(t, root, "concourse-ci/1", src.URL)
	installed(t, c, "7.14.1", "7.14.2", "7.14.3")
	require.NoError(t, pin(t, worker, "7.14.0"))
	_, err := c.Ensure(ctx, "7.14.4")
	require.NoError(t, err)
	require.NoError(t, os.Mkdir(filepath.Join(root, stagingDir, "7.14.9.3.concourse-ci-9"), 0o755))

	removed, err := c.Collect(ctx)
	require.NoError(t, err)
	require.ElementsMatch(t, []string{"staging/7.14.9.3.concourse-ci-9", "releases/7.14.1", "store/7.14.1.1"}, removed,
		"pinned 7.14.0, previous 7.14.2, current 7.14.3 and the coming 7.14.4 stay")
	report, err := c.Inspect(ctx)
	require.NoError(t, err)
	require.Len(t, report.Releases, 4)
	require.Equal(t, map[string]string{"concourse-ci-1": "7.14.0.1"}, report.Pins)
	require.Positive(t, report.Free)

	require.ErrorIs(t, pin(t, worker, "7.14.1"), ErrNotInstalled)
	require.NoError(t, worker.Leave(t.Context()))
	removed, err = c.Collect(ctx)
	require.NoError(t, err)
	require.Equal(t, []string{"releases/7.14.0", "store/7.14.0.1"}, removed)
}

func TestCollectBesideADownload(t *testing.T) {
	ctx := context.Background()
	src := newSource(t)
	src.publish("7.14.3", releaseArchive("7.14.3", 4<<20))
	root := t.TempDir()
	collector := open(t, root, "concourse-ci/1", src.URL)
	src.answer(func(w http.ResponseWriter, r *http.Request) bool {
		if strings.HasSuffix(r.URL.Path, ".tgz") {
			removed, err := collector.Collect(ctx)
			if !errors.Is(err, ErrHeld) || len(removed) > 0 {
				t.Error("collected beside a download", removed, err)
			}
		}
		return false
	})
	_, err := open(t, root, "concourse-ci/0", src.URL).Ensure(ctx, "7.14.3")
	require.NoError(t, err)
}

func TestLogOfReuse(t *testing.T) {
	src := newSource(t, "7.14.3")
	root := t.TempDir()
	var first, second bytes.Buffer
	a := open(t, root, "concourse-ci/0", src.URL, logTo(&first))
	b := open(t, root, "concourse-ci/1", src.URL, logTo(&second))
	for range 2 {
		installed(t, a, "7.14.3")
		installed(t, b, "7.14.3")
	}
	require.Equal(t, 3, strings.Count(first.String(), "level=INFO"), first.String())
	require.Contains(t, first.String(), "Acquired the download lock for v7.14.3 (generation 1)")
	require.Contains(t, first.String(), "Released the download lock for v7.14.3")
	require.Contains(t, first.String(), "Downloading Concourse binaries v7.14.3 from "+src.URL)
	require.Equal(t, 1, strings.Count(second.String(), "level=INFO"), second.String())
	require.Contains(t, second.String(), "Reusing Concourse binaries v7.14.3 installed by concourse-ci/0")
}

package coordinator

import (
	"errors"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/durable"
)

// watched opens a file of a release by its path without a pause until stop, and
// reports that it was ever missing.
func watched(t *testing.T, root string) (stop func()) {
	name := filepath.Join(root, releasesDir, "7.14.3", "bin/concourse")
	done := make(chan struct{})
	var all sync.WaitGroup
	all.Go(func() {
		for n := 0; ; n++ {
			select {
			case <-done:
				t.Logf("opened %d times", n)
				return
			default:
			}
			f, err := os.Open(name)
			if err != nil {
				t.Errorf("missing at look %d: %v", n, err)
				return
			}
			f.Close()
		}
	})
	return func() { close(done); all.Wait() }
}

// damaged installs a release and damages it as the quick check sees.
func damaged(t *testing.T, c *Coordinator) Release {
	r, err := c.Ensure(t.Context(), "7.14.3")
	require.NoError(t, err)
	require.NoError(t, os.Chmod(filepath.Join(r.Dir, "bin/runc"), 0o444))
	return r
}

func TestCorruptReleaseIsInstalledAgain(t *testing.T) {
	damage := map[string]func(t *testing.T, dir string){
		"file missing": func(t *testing.T, dir string) { require.NoError(t, os.Remove(filepath.Join(dir, "bin/runc"))) },
		"file cut":     func(t *testing.T, dir string) { require.NoError(t, os.Truncate(filepath.Join(dir, "bin/runc"), 5)) },
		"mode changed": func(t *testing.T, dir string) { require.NoError(t, os.Chmod(filepath.Join(dir, "bin/runc"), 0o444)) },
		"file added": func(t *testing.T, dir string) {
			require.NoError(t, os.WriteFile(filepath.Join(dir, "bin/extra"), nil, 0o555))
		},
		"no manifest": func(t *testing.T, dir string) { require.NoError(t, os.Remove(filepath.Join(dir, "manifest.json"))) },
	}
	for name, f := range damage {
		t.Run(name, func(t *testing.T) {
			src := newSource(t, "7.14.3")
			root := t.TempDir()
			c := open(t, root, "concourse-ci/0", src.URL)
			old, err := c.Use(t.Context(), "7.14.3")
			require.NoError(t, err)
			f(t, old.Dir)
			_, err = c.Installed(t.Context(), "7.14.3")
			require.ErrorIs(t, err, ErrCorrupt)
			stop := watched(t, root)
			r, err := c.Ensure(t.Context(), "7.14.3")
			stop()
			require.NoError(t, err)
			require.True(t, r.Downloaded)
			require.NotEqual(t, old.Dir, r.Dir)
			require.FileExists(t, filepath.Join(old.Dir, "bin/concourse"), "somebody runs from it")
			now, err := c.Installed(t.Context(), "7.14.3")
			require.NoError(t, err)
			require.Equal(t, r.Dir, now.Dir)

			_, err = c.Collect(t.Context())
			require.NoError(t, err)
			require.DirExists(t, old.Dir, "it is pinned")
			require.NoError(t, pin(t, c, "7.14.3"))
			removed, err := c.Collect(t.Context())
			require.NoError(t, err)
			require.Equal(t, []string{"store/7.14.3.1"}, removed)
		})
	}
}

// A link that leads nowhere, elsewhere, or is none: nobody follows it, and it is
// replaced.
func TestStrangeLinks(t *testing.T) {
	for name, spoil := range map[string]func(t *testing.T, link string){
		"dangling":  func(t *testing.T, link string) { require.NoError(t, os.Symlink("../store/7.14.3.77", link)) },
		"out":       func(t *testing.T, link string) { require.NoError(t, os.Symlink("../../../etc", link)) },
		"absolute":  func(t *testing.T, link string) { require.NoError(t, os.Symlink("/etc", link)) },
		"another":   func(t *testing.T, link string) { require.NoError(t, os.Symlink("../store/7.14.2.1", link)) },
		"a file":    func(t *testing.T, link string) { require.NoError(t, os.WriteFile(link, []byte("x"), 0o644)) },
		"directory": func(t *testing.T, link string) { require.NoError(t, os.MkdirAll(filepath.Join(link, "bin"), 0o755)) },
	} {
		t.Run(name, func(t *testing.T) {
			src := newSource(t, "7.14.2", "7.14.3")
			root := t.TempDir()
			c := open(t, root, "concourse-ci/0", src.URL)
			_, err := c.Ensure(t.Context(), "7.14.2")
			require.NoError(t, err)
			link := filepath.Join(root, releasesDir, "7.14.3")
			spoil(t, link)
			_, err = c.Installed(t.Context(), "7.14.3")
			require.True(t, absent(err), err)
			r, err := c.Ensure(t.Context(), "7.14.3")
			require.NoError(t, err)
			text, err := os.Readlink(link)
			require.NoError(t, err)
			require.Equal(t, "../store/"+filepath.Base(r.Dir), text)
		})
	}
}

// Units run from what is damaged; most of it may be as good as ever. Whatever goes
// wrong with the new one, it stays.
func TestCorruptReleaseStaysUntilThereIsANewOne(t *testing.T) {
	src := newSource(t, "7.14.3")
	root := t.TempDir()
	c := open(t, root, "concourse-ci/0", src.URL)
	damaged(t, c)
	stop := watched(t, root)
	defer stop()
	src.answer(func(w http.ResponseWriter, r *http.Request) bool {
		w.WriteHeader(http.StatusBadGateway)
		return true
	})
	_, err := c.Ensure(t.Context(), "7.14.3")
	require.ErrorIs(t, err, ErrUnreachable)
	src.answer(nil)
	_, err = c.Ensure(t.Context(), "7.14.3")
	require.NoError(t, err)
}

// A volume that holds one release and its archive, but not two releases, keeps the one
// that it has.
func TestCorruptReleaseMakesNoRoom(t *testing.T) {
	for _, size := range []string{"6m", "7m"} { // too small before the download, and while it is unpacked
		root := tmpfs(t, size)
		src := newSource(t)
		src.publish("7.14.3", releaseArchive("7.14.3", 5<<19))
		c := open(t, root, "concourse-ci/0", src.URL)
		damaged(t, c)
		stop := watched(t, root)
		_, err := c.Ensure(t.Context(), "7.14.3")
		stop()
		require.ErrorIs(t, err, ErrNoSpace)
	}
}

// What was replaced and is pinned by nobody makes room for the next repair.
func TestReplacedReleaseMakesRoom(t *testing.T) {
	root := tmpfs(t, "12m")
	src := newSource(t)
	src.publish("7.14.3", releaseArchive("7.14.3", 5<<19))
	c := open(t, root, "concourse-ci/0", src.URL)
	for range 4 {
		damaged(t, c)
	}
	_, err := c.Ensure(t.Context(), "7.14.3")
	require.NoError(t, err)
}

// Deep corruption is mended by Reinstall, once for all who ask.
func TestReinstall(t *testing.T) {
	src := newSource(t, "7.14.3")
	root := t.TempDir()
	c := open(t, root, "concourse-ci/0", src.URL)
	r, err := c.Ensure(t.Context(), "7.14.3")
	require.NoError(t, err)
	name := filepath.Join(r.Dir, "bin/runc")
	data, err := os.ReadFile(name)
	require.NoError(t, err)
	data[1000] ^= 1
	require.NoError(t, os.Remove(name))
	require.NoError(t, os.WriteFile(name, data, 0o555))
	require.NoError(t, os.Chmod(name, 0o555))
	_, err = c.Ensure(t.Context(), "7.14.3")
	require.NoError(t, err, "the quick check sees nothing")
	require.ErrorIs(t, c.Verify(t.Context(), "7.14.3", nil), ErrCorrupt)

	const units = 4
	var all sync.WaitGroup
	var errs [units]error
	begun := make(chan struct{})
	src.answer(func(w http.ResponseWriter, r *http.Request) bool {
		if strings.HasSuffix(r.URL.Path, ".tgz") {
			<-begun
		}
		return false
	})
	var reading sync.WaitGroup
	reading.Add(units)
	for i := range units {
		u := open(t, root, "concourse-ci/"+string(rune('1'+i)), src.URL)
		var once sync.Once
		u.memory.at = func(point string, _ int) {
			if point == "claim" {
				once.Do(reading.Done)
			}
		}
		all.Go(func() { _, errs[i] = u.Reinstall(t.Context(), "7.14.3") })
	}
	reading.Wait()
	stop := watched(t, root)
	close(begun)
	all.Wait()
	stop()
	require.NoError(t, errors.Join(errs[:]...))
	requests, _ := src.archives()
	require.Len(t, requests, 2, "the first installation, and one repair")
	require.NoError(t, c.Verify(t.Context(), "7.14.3", nil))
}

// A release that was published again under its version takes the place of the old one.
func TestReinstallOfAnotherArchive(t *testing.T) {
	src := newSource(t, "7.14.3")
	root := t.TempDir()
	c := open(t, root, "concourse-ci/0", src.URL)
	old, err := c.Ensure(t.Context(), "7.14.3")
	require.NoError(t, err)
	src.publish("7.14.3", releaseArchive("7.14.3", 2<<20))
	_, err = c.Reinstall(t.Context(), "7.14.3")
	require.NoError(t, err)
	now, err := c.Installed(t.Context(), "7.14.3")
	require.NoError(t, err)
	require.NotEqual(t, old.Digest, now.Digest)
}

// Who slept before it linked its entry links nothing: a later holder has taken what
// it would link with.
func TestSleeperLinksNothing(t *testing.T) {
	for _, first := range []bool{true, false} {
		src := newSource(t, "7.14.3")
		root := t.TempDir()
		other := open(t, root, "concourse-ci/1", src.URL)
		if !first {
			damaged(t, other)
		}
		sleeper := open(t, root, "concourse-ci/0", src.URL)
		var published Release
		sleeper.memory.at = func(point string, generation int) {
			if point != "link" || published.Dir != "" {
				return
			}
			// What the next holder does, and then a collector.
			u := inside(t, other)
			next := filepath.Join(root, claimsDir, "7.14.3")
			require.NoError(t, os.WriteFile(filepath.Join(next, string(rune('1'+generation))), []byte(`{"unit":"concourse-ci/1"}`), 0o644))
			require.NoError(t, u.sweep(t.Context(), func(staged) bool { return true }))
			require.NoError(t, u.discard(t.Context(), entry{version: "7.14.3", generation: generation}.dir()))
			e := entry{version: "7.14.3", generation: generation + 1}
			made, err := open(t, t.TempDir(), "concourse-ci/2", src.URL).Ensure(t.Context(), "7.14.3")
			require.NoError(t, err)
			require.NoError(t, os.CopyFS(filepath.Join(root, e.dir()), os.DirFS(made.Dir)))
			require.NoError(t, filepath.WalkDir(made.Dir, func(p string, d fs.DirEntry, err error) error {
				info, infoErr := d.Info()
				rel, _ := filepath.Rel(made.Dir, p)
				return errors.Join(err, infoErr, os.Chmod(filepath.Join(root, e.dir(), rel), info.Mode()))
			}))
			require.NoError(t, durable.Symlink(u.root, storeLink(e), releaseLink("7.14.3")))
			published = made
		}
		_, err := sleeper.Ensure(t.Context(), "7.14.3")
		require.NoError(t, err)
		require.NotEmpty(t, published.Dir)
		text, err := os.Readlink(filepath.Join(root, releasesDir, "7.14.3"))
		require.NoError(t, err)
		require.Regexp(t, `^\.\./store/7\.14\.3\.[23]$`, text)
		require.Empty(t, listing(t, filepath.Join(root, stagingDir)))
	}
}

// A directory comes back where a release's link was, by a unit that knows the first
// layout only or from a backup, while the one before is still in use.
func TestDirectoryComesBack(t *testing.T) {
	src := newSource(t, "7.14.3")
	root := t.TempDir()
	c := open(t, root, "concourse-ci/0", src.URL)
	link := filepath.Join(root, releasesDir, "7.14.3")
	for _, dir := range []string{"store/7.14.3.0", "store/7.14.3.2"} {
		require.NoError(t, os.RemoveAll(link))
		require.NoError(t, os.MkdirAll(filepath.Join(link, "bin"), 0o755))
		r, err := c.Ensure(t.Context(), "7.14.3")
		require.NoError(t, err)
		require.True(t, r.Downloaded)
		require.DirExists(t, filepath.Join(root, dir, "bin"), "somebody may run from it")
	}
}

// A disk may fail to read what the others are told by: a directory stands for that.
func TestReleaseThatCannotBeRead(t *testing.T) {
	for name, spoil := range map[string]func(t *testing.T, r Release){
		"manifest": func(t *testing.T, r Release) {
			require.NoError(t, os.Remove(filepath.Join(r.Dir, "manifest.json")))
			require.NoError(t, os.Mkdir(filepath.Join(r.Dir, "manifest.json"), 0o755))
		},
		"all of it": func(t *testing.T, r Release) {
			require.NoError(t, os.RemoveAll(r.Dir))
			require.NoError(t, os.WriteFile(r.Dir, nil, 0o444))
		},
	} {
		t.Run(name, func(t *testing.T) {
			src := newSource(t, "7.14.3", "7.14.4")
			c := open(t, t.TempDir(), "concourse-ci/0", src.URL)
			r, err := c.Ensure(t.Context(), "7.14.3")
			require.NoError(t, err)
			spoil(t, r)
			i, err := c.Inspect(t.Context())
			require.NoError(t, err)
			require.Contains(t, i.Damaged, "7.14.3")
			_, err = c.Ensure(t.Context(), "7.14.4")
			require.NoError(t, err)
			_, err = c.Activate(t.Context(), "7.14.4")
			require.NoError(t, err)
			_, err = c.Collect(t.Context())
			require.NoError(t, err)
			r, err = c.Reinstall(t.Context(), "7.14.3")
			require.NoError(t, err)
			require.True(t, r.Downloaded)
			_, err = c.Installed(t.Context(), "7.14.3")
			require.NoError(t, err)
		})
	}
}

// What cannot be collected is no reason to refuse what fits.
func TestReleaseThatFitsIsInstalledThoughNothingCanBeCollected(t *testing.T) {
	src := newSource(t, "7.14.3")
	root := tmpfs(t, "3m")
	c := open(t, root, "concourse-ci/0", src.URL)
	require.NoError(t, os.WriteFile(filepath.Join(root, pinsDir, "concourse-ci-1"), []byte("x"), 0o644))
	_, err := c.Ensure(t.Context(), "7.14.2")
	require.ErrorIs(t, err, ErrNotFound)
	_, err = c.Ensure(t.Context(), "7.14.3")
	require.NoError(t, err)
}

// Machines of two kinds must not share releases: what one has installed the other
// cannot run, and must not replace.
func TestReleaseOfAnotherArchitecture(t *testing.T) {
	src := newSource(t, "7.14.3")
	c := open(t, t.TempDir(), "concourse-ci/0", src.URL)
	r, err := c.Ensure(t.Context(), "7.14.3")
	require.NoError(t, err)
	name := filepath.Join(r.Dir, "manifest.json")
	data, err := os.ReadFile(name)
	require.NoError(t, err)
	require.Contains(t, string(data), `"arch":"`+runtime.GOARCH+`"`)
	data = []byte(strings.Replace(string(data), `"arch":"`+runtime.GOARCH+`"`, `"arch":"other"`, 1))
	require.NoError(t, os.Remove(name))
	require.NoError(t, os.WriteFile(name, data, 0o444))
	for _, call := range []func() error{
		func() error { _, err := c.Installed(t.Context(), "7.14.3"); return err },
		func() error { _, err := c.Ensure(t.Context(), "7.14.3"); return err },
		func() error { return pin(t, c, "7.14.3") },
		func() error { _, err := c.Activate(t.Context(), "7.14.3"); return err },
	} {
		err := call()
		require.ErrorIs(t, err, ErrArchitecture)
		require.ErrorContains(t, err, "it is for other, this machine is "+runtime.GOARCH)
	}
	requests, _ := src.archives()
	require.Len(t, requests, 1)
}

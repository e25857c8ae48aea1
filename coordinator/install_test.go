package coordinator

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// unitProcess is a process of the test binary that installs and activates a release.
func unitProcess(t *testing.T, root, name, source, version string, output io.Writer) *exec.Cmd {
	exe, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), "TEST_UNIT_ROOT="+root, "TEST_UNIT="+name, "TEST_UNIT_SOURCE="+source, "TEST_UNIT_VERSION="+version)
	cmd.Stdout, cmd.Stderr = output, output
	return cmd
}

func TestManyProcessesDownloadOnce(t *testing.T) {
	const units = 8
	src := newSource(t)
	archive := releaseArchive("7.14.3", 8<<20)
	src.publish("7.14.3", archive)
	root := t.TempDir()
	var logs [units]bytes.Buffer
	var cmds [units]*exec.Cmd
	for i := range units {
		cmds[i] = unitProcess(t, root, fmt.Sprintf("concourse-ci/%d", i), src.URL, "7.14.3", &logs[i])
		require.NoError(t, cmds[i].Start())
	}
	all := ""
	for i, cmd := range cmds {
		require.NoError(t, cmd.Wait(), logs[i].String())
		all += logs[i].String()
	}
	requests, moved := src.archives()
	require.Len(t, requests, 1)
	require.Equal(t, len(archive), moved)
	require.Equal(t, 1, strings.Count(all, "Downloading Concourse binaries v7.14.3 from "+src.URL))
	require.Equal(t, units-1, strings.Count(all, "Reusing Concourse binaries v7.14.3 installed by concourse-ci/"))

	require.Empty(t, listing(t, filepath.Join(root, stagingDir)))
	require.NoFileExists(t, filepath.Join(root, progressFile))
	out, err := exec.Command(filepath.Join(root, "bin", "concourse")).Output()
	require.NoError(t, err)
	require.Equal(t, "7.14.3\n", string(out))
	marker, err := os.ReadFile(filepath.Join(root, installedFile))
	require.NoError(t, err)
	require.Equal(t, "7.14.3\n", string(marker))
	require.Equal(t, []string{"1"}, listing(t, filepath.Join(root, activationsDir)))
}

func TestHolderKilledInMidDownload(t *testing.T) {
	src := newSource(t)
	src.publish("7.14.3", releaseArchive("7.14.3", 8<<20))
	halfway := make(chan struct{})
	var first atomic.Bool
	src.answer(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, ".tgz") || !first.CompareAndSwap(false, true) {
			return false
		}
		data := src.files[filepath.Base(r.URL.Path)]
		w.Header().Set("Content-Length", fmt.Sprint(len(data)))
		w.Write(data[:len(data)/2])
		http.NewResponseController(w).Flush()
		close(halfway)
		<-r.Context().Done()
		return true
	})
	root := t.TempDir()
	victim := unitProcess(t, root, "concourse-ci/0", src.URL, "7.14.3", io.Discard)
	require.NoError(t, victim.Start())
	t.Cleanup(func() { victim.Process.Kill() })
	<-halfway

	var waited []Progress
	heir := open(t, root, "concourse-ci/1", src.URL, func(o *Options) {
		o.Progress = func(p Progress) { waited = append(waited, p) }
	})
	done := make(chan error, 1)
	go func() {
		_, err := heir.Ensure(context.Background(), "7.14.3")
		done <- err
	}()
	require.Eventually(t, func() bool {
		report, err := heir.Inspect(context.Background())
		return err == nil && len(report.Claims) == 1 && report.Claims[0].Unit == "concourse-ci/0" && report.Progress != nil && report.Progress.Total > 0
	}, 10*time.Second, 10*time.Millisecond, "the holder is named")
	require.Eventually(t, func() bool { return len(listing(t, filepath.Join(root, stagingDir))) > 2 },
		10*time.Second, 10*time.Millisecond, "something is staged")
	select {
	case err := <-done:
		t.Fatalf("did not wait for the holder: %v", err)
	case <-time.After(300 * time.Millisecond):
	}
	require.Empty(t, listing(t, filepath.Join(root, releasesDir)), "half a release is visible")
	_, err := heir.Installed(t.Context(), "7.14.3")
	require.ErrorIs(t, err, ErrNotInstalled)

	require.NoError(t, victim.Process.Kill())
	killed := time.Now()
	victim.Wait()
	require.NoError(t, <-done)
	require.Less(t, time.Since(killed), 5*time.Second)
	r, err := heir.Installed(t.Context(), "7.14.3")
	require.NoError(t, err)
	require.Equal(t, "concourse-ci/1", r.InstalledBy)
	require.Empty(t, listing(t, filepath.Join(root, stagingDir)), "what the dead unit staged")
	require.Equal(t, Waiting, waited[0].State)
	require.Equal(t, "concourse-ci/0", waited[0].Unit)
	require.Equal(t, Installed, waited[len(waited)-1].State)
}

func TestBadSources(t *testing.T) {
	const name = "concourse-7.14.3-linux-amd64.tgz"
	tests := []struct {
		name   string
		spoil  func(*source)
		change func(*Options)
		want   error
		text   string
	}{
		{"no such release", func(s *source) { clear(s.files) }, nil, ErrNotFound, "release not found"},
		{"another digest", func(s *source) {
			s.files[name+".sha256"] = []byte(strings.Repeat("0", 64) + "  " + name + "\n")
		}, nil, ErrDigest, "expected is"},
		{"a byte changed", func(s *source) { s.files[name][len(s.files[name])/2] ^= 1 }, nil, ErrDigest, name},
		{"cut short", func(s *source) { s.files[name] = s.files[name][:len(s.files[name])/2] }, nil, ErrDigest, name},
		{"cut short and unverified", func(s *source) {
			s.files[name] = s.files[name][:len(s.files[name])/2]
			delete(s.files, name+".sha256")
		}, func(o *Options) { o.AllowUnverified = true }, ErrNotArchive, name},
		{"pinned digest differs", func(s *source) {}, func(o *Options) { o.Digest = "sha256:" + strings.Repeat("0", 64) }, ErrDigest, "expected"},
		{"no digest", func(s *source) { delete(s.files, name+".sha256") }, nil, ErrNoDigest, ".sha256"},
		{"digest file is nonsense", func(s *source) { s.files[name+".sha256"] = []byte("see the wiki\n") }, nil, ErrNoDigest, "no sha256 sum"},
		{"a page for everything", func(s *source) {
			s.answer(func(w http.ResponseWriter, r *http.Request) bool {
				fmt.Fprint(w, "<!DOCTYPE html><html>log in</html>")
				return true
			})
		}, nil, ErrNotArchive, "/releases/download/v7.14.3/" + name},
		{"no gzip", func(s *source) { s.publish("7.14.3", []byte("PK\x03\x04 this is a zip")) }, nil, ErrNotArchive, name},
		{"no binary", func(s *source) {
			s.publish("7.14.3", tarball(member{name: "concourse/README", body: "soon"}))
		}, nil, ErrNotArchive, "bin/concourse"},
		{"hostile", func(s *source) {
			s.publish("7.14.3", tarball(member{name: "concourse/bin/concourse", mode: 0o755}, member{name: "concourse/../../x"}))
		}, nil, ErrNotArchive, "leaves the release"},
		{"server errors", func(s *source) {
			s.answer(func(w http.ResponseWriter, r *http.Request) bool {
				w.WriteHeader(http.StatusBadGateway)
				return true
			})
		}, nil, ErrUnreachable, "502"},
		{"forbidden", func(s *source) {
			s.answer(func(w http.ResponseWriter, r *http.Request) bool {
				w.WriteHeader(http.StatusForbidden)
				return true
			})
		}, nil, ErrUnauthorized, "403"},
		{"nobody listens", func(s *source) { s.Close() }, nil, ErrUnreachable, "refused"},
		{"breaks off each time", func(s *source) {
			s.answer(func(w http.ResponseWriter, r *http.Request) bool {
				if !strings.HasSuffix(r.URL.Path, ".tgz") {
					return false
				}
				data := s.files[name]
				w.Header().Set("Content-Length", fmt.Sprint(len(data)))
				w.Write(data[:len(data)/2])
				return true
			})
		}, nil, ErrUnreachable, "broke off after"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			src := newSource(t, "7.14.3")
			tt.spoil(src)
			root := t.TempDir()
			change := tt.change
			if change == nil {
				change = func(*Options) {}
			}
			c := open(t, root, "concourse-ci/0", src.URL, change)
			_, err := c.Ensure(context.Background(), "7.14.3")
			require.ErrorIs(t, err, tt.want)
			require.ErrorContains(t, err, "cannot install Concourse 7.14.3: ")
			require.ErrorContains(t, err, tt.text)
			require.NotContains(t, err.Error(), "\n")
			nothingLeft(t, root)
			report, err := c.Inspect(context.Background())
			require.NoError(t, err)
			require.Empty(t, report.Claims)
		})
	}
}

func TestRecoversWhenTheSourceDoes(t *testing.T) {
	src := newSource(t)
	c := open(t, t.TempDir(), "concourse-ci/0", src.URL)
	_, err := c.Ensure(context.Background(), "7.14.3")
	require.ErrorIs(t, err, ErrNotFound)
	src.publish("7.14.3", releaseArchive("7.14.3", 100))
	r, err := c.Ensure(context.Background(), "v7.14.3")
	require.NoError(t, err)
	require.True(t, r.Downloaded)
}

func TestBrokenConnectionIsTakenUpAgain(t *testing.T) {
	src := newSource(t, "7.14.3")
	var broken atomic.Bool
	src.answer(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, ".tgz") || !broken.CompareAndSwap(false, true) {
			return false
		}
		data := src.files[filepath.Base(r.URL.Path)]
		w.Header().Set("ETag", `"`+fmt.Sprint(len(data))+`"`)
		w.Header().Set("Content-Length", fmt.Sprint(len(data)))
		w.Write(data[:len(data)/2])
		return true
	})
	c := open(t, t.TempDir(), "concourse-ci/0", src.URL)
	_, err := c.Ensure(context.Background(), "7.14.3")
	require.NoError(t, err)
	requests, moved := src.archives()
	require.Len(t, requests, 2)
	require.Equal(t, http.StatusPartialContent, requests[1].status)
	require.Equal(t, len(src.files["concourse-7.14.3-linux-amd64.tgz"]), moved, "a byte moved twice")
}

func TestCancelledInstallLeavesNothing(t *testing.T) {
	src := newSource(t, "7.14.3")
	ctx, cancel := context.WithCancel(context.Background())
	src.answer(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, ".tgz") {
			return false
		}
		data := src.files[filepath.Base(r.URL.Path)]
		w.Header().Set("Content-Length", fmt.Sprint(len(data)))
		w.Write(data[:len(data)/2])
		http.NewResponseController(w).Flush()
		cancel()
		<-r.Context().Done()
		return true
	})
	root := t.TempDir()
	c := open(t, root, "concourse-ci/0", src.URL)
	_, err := c.Ensure(ctx, "7.14.3")
	require.ErrorIs(t, err, context.Canceled)
	nothingLeft(t, root)
}

func TestFullVolume(t *testing.T) {
	compressible := tarball(
		member{name: "concourse/bin/concourse", mode: 0o755, body: "x"},
		member{name: "concourse/bin/zeros", mode: 0o755, body: strings.Repeat("\x00", 8<<20)},
	)
	for name, archive := range map[string][]byte{
		"known before":   releaseArchive("7.14.3", 8<<20),
		"while unpacked": compressible,
	} {
		t.Run(name, func(t *testing.T) {
			root := tmpfs(t, "4m")
			src := newSource(t)
			src.publish("7.14.3", archive)
			c := open(t, root, "concourse-ci/0", src.URL)
			_, err := c.Ensure(context.Background(), "7.14.3")
			require.ErrorIs(t, err, ErrNoSpace)
			require.ErrorContains(t, err, "MB")
			require.NotContains(t, err.Error(), "\n")
			require.Empty(t, listing(t, filepath.Join(root, releasesDir)))
			require.Empty(t, listing(t, filepath.Join(root, storeDir)))
			for _, left := range listing(t, filepath.Join(root, stagingDir)) {
				require.NotContains(t, left, treeName, "only the archive is worth keeping")
			}

			src.publish("7.14.3", releaseArchive("7.14.3", 1<<20))
			_, err = c.Ensure(context.Background(), "7.14.3")
			require.NoError(t, err, "what the failure took is free again")
		})
	}
	t.Run("full of what a dead unit staged", func(t *testing.T) {
		root := tmpfs(t, "4m")
		src := newSource(t, "7.14.3")
		c := open(t, root, "concourse-ci/0", src.URL)
		dead := filepath.Join(root, stagingDir, "7.14.2.9.concourse-ci-7")
		require.NoError(t, os.Mkdir(dead, 0o755))
		err := os.WriteFile(filepath.Join(dead, "x"), make([]byte, 8<<20), 0o644)
		require.ErrorContains(t, err, "no space")
		_, err = c.Ensure(context.Background(), "7.14.3")
		require.NoError(t, err)
	})
}

// Who removes what looks like rubbish on a volume does no harm to it.
func TestTidiedVolumeIsLaidOutAgain(t *testing.T) {
	src := newSource(t, "7.14.3")
	root := t.TempDir()
	c := open(t, root, "concourse-ci/0", src.URL)
	for _, dir := range []string{stagingDir, storeDir, releasesDir} {
		require.NoError(t, os.RemoveAll(filepath.Join(root, dir)))
	}
	claims := 0
	c.memory.at = func(point string, _ int) {
		if point == "claimed" {
			claims++
		}
	}
	_, err := c.Ensure(t.Context(), "7.14.3")
	require.NoError(t, err)
	require.Equal(t, 1, claims)
}

// What is staged is taken away by one that held an earlier claim and slept: that
// is no reason to fail.
func TestStolenInstallBeginsAgain(t *testing.T) {
	src := newSource(t, "7.14.3")
	root := t.TempDir()
	c := open(t, root, "concourse-ci/0", src.URL)
	stolen := 0
	c.memory.at = func(point string, _ int) {
		if point == "staged" && stolen == 0 {
			stolen++
			require.NoError(t, inside(t, c).sweep(t.Context(), func(staged) bool { return true }))
		}
	}
	r, err := c.Ensure(t.Context(), "7.14.3")
	require.NoError(t, err)
	require.True(t, r.Downloaded)
	require.Equal(t, 1, stolen)
	require.Empty(t, listing(t, filepath.Join(root, stagingDir)))
}

func TestPinnedDigestOfAReleaseThatIsThere(t *testing.T) {
	src := newSource(t, "7.14.3")
	root := t.TempDir()
	r, err := open(t, root, "concourse-ci/0", src.URL).Ensure(context.Background(), "7.14.3")
	require.NoError(t, err)
	same := open(t, root, "concourse-ci/1", src.URL, func(o *Options) { o.Digest = r.Digest })
	_, err = same.Ensure(context.Background(), "7.14.3")
	require.NoError(t, err)

	pin := "sha256:" + strings.Repeat("0", 64)
	other := open(t, root, "concourse-ci/1", src.URL, func(o *Options) { o.Digest = pin })
	_, err = other.Ensure(context.Background(), "7.14.3")
	require.ErrorIs(t, err, ErrDigest)
	require.ErrorContains(t, err, pin)
	require.ErrorContains(t, err, r.Digest)
	require.DirExists(t, r.Dir, "others want it")
	requests, _ := src.archives()
	require.Len(t, requests, 1)
}

// Who waits on a file system of this kernel need not wait for its next look.
func TestWaitersAreWoken(t *testing.T) {
	v := inside(t, open(t, t.TempDir(), "concourse-ci/0", ""))
	require.NoError(t, v.root.Mkdir(claimsDir+"/7.14.3", 0o755))
	changed, enough := v.changes("7.14.3")
	require.NotNil(t, changed)
	require.Empty(t, changed)
	for _, change := range []func() error{
		func() error { return v.root.Mkdir(releaseLink("7.14.3"), 0o755) },
		func() error { return v.root.WriteFile(claimsDir+"/7.14.3/1.beat", []byte("done"), 0o644) },
	} {
		require.NoError(t, change())
		select {
		case <-changed:
		case <-time.After(5 * time.Second):
			t.Fatal("nobody tells of a change")
		}
		for len(changed) > 0 {
			<-changed
		}
	}
	enough()
}

// A unit that sweeps while another publishes, which worthless locks allow.
func TestSweptTreeIsPublishedWholeOrNotAtAll(t *testing.T) {
	v := inside(t, open(t, t.TempDir(), "concourse-ci/0", ""))
	const files = 200
	for round := range 40 {
		staging, dir := filepath.Join(v.view.dir, stagingDir, "7.14.3.1.concourse-ci-1"), filepath.Join(v.view.dir, releasesDir, "7.14.3")
		require.NoError(t, os.Mkdir(staging, 0o755))
		for i := range files {
			require.NoError(t, os.WriteFile(filepath.Join(staging, fmt.Sprint(i)), nil, 0o444))
		}
		swept := make(chan error)
		go func() { swept <- v.sweep(t.Context(), func(staged) bool { return true }) }()
		time.Sleep(time.Duration(round) * 50 * time.Microsecond)
		published := os.Rename(staging, dir)
		require.NoError(t, <-swept)
		if published == nil {
			require.Len(t, listing(t, dir), files)
			require.NoError(t, os.RemoveAll(dir))
		}
		require.Empty(t, listing(t, filepath.Join(v.view.dir, stagingDir)))
	}
}

// A lock file that was removed is another lock, which everybody gets.
func TestWorthlessLocksCostNothing(t *testing.T) {
	src := newSource(t, "7.14.3")
	root := t.TempDir()
	begun, finish := make(chan struct{}), make(chan struct{})
	src.answer(func(w http.ResponseWriter, r *http.Request) bool {
		if strings.HasSuffix(r.URL.Path, ".tgz") {
			close(begun)
			<-finish
		}
		return false
	})
	errs := make(chan error, 2)
	for i := range 2 {
		c := open(t, root, fmt.Sprintf("concourse-ci/%d", i), src.URL)
		go func() {
			_, err := c.Ensure(context.Background(), "7.14.3")
			errs <- err
		}()
		if i == 0 {
			<-begun
			require.NoError(t, os.Remove(filepath.Join(root, claimsDir, "7.14.3", "lock")))
		}
	}
	time.Sleep(500 * time.Millisecond)
	close(finish)
	require.NoError(t, <-errs)
	require.NoError(t, <-errs)
	requests, _ := src.archives()
	require.Len(t, requests, 1)
	_, err := open(t, root, "concourse-ci/2", src.URL).Installed(t.Context(), "7.14.3")
	require.NoError(t, err)
	require.Empty(t, listing(t, filepath.Join(root, stagingDir)))
}

func TestReleaseOnTheVolume(t *testing.T) {
	src := newSource(t, "7.14.3")
	root := t.TempDir()
	c := open(t, root, "concourse-ci/0", src.URL)
	r, err := c.Ensure(context.Background(), "7.14.3")
	require.NoError(t, err)
	for name, mode := range map[string]os.FileMode{
		"bin": os.ModeDir | 0o755, "bin/concourse": 0o555, "bin/runc": 0o555, "manifest.json": 0o444,
		"resource-types/mock/resource_metadata.json": 0o444,
	} {
		info, err := os.Lstat(filepath.Join(r.Dir, name))
		require.NoError(t, err)
		require.Equal(t, mode, info.Mode(), name)
	}
	require.Regexp(t, "^sha256:[0-9a-f]{64}$", r.Digest)
	for _, name := range listing(t, root) {
		require.False(t, strings.HasSuffix(name, "amd64.tgz") && !strings.Contains(name, "fly-assets"), "the archive stays on the volume: %s", name)
	}
}

func TestVersions(t *testing.T) {
	for _, good := range []string{"7.14.3", "v7.14.3", "0.0.1"} {
		v, err := concourse.ParseVersion(good)
		require.NoError(t, err)
		require.Equal(t, strings.TrimPrefix(good, "v"), v)
	}
	c := open(t, t.TempDir(), "concourse-ci/0", "")
	for _, bad := range []string{"", "7.14", "7.14.3.1", "latest", "vv7.14.3", "7.14.3\n", "../../etc", "7.014.3", "7.14.3-rc.1", " 7.14.3"} {
		_, err := c.Ensure(context.Background(), bad)
		require.ErrorIs(t, err, ErrVersion, "%q", bad)
	}
}

func TestNewest(t *testing.T) {
	src := newSource(t)
	src.answer(func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path != "/api/v3/repos/concourse/concourse/releases/latest" {
			return false
		}
		fmt.Fprint(w, `{"tag_name":"v7.14.3"}`)
		return true
	})
	v, err := Newest(context.Background(), nil, concourse, src.URL+"/concourse/concourse", "")
	require.NoError(t, err)
	require.Equal(t, "7.14.3", v)
	_, err = Newest(context.Background(), nil, concourse, src.URL+"/other/repository", "")
	require.ErrorIs(t, err, ErrNotFound)
	_, err = Newest(context.Background(), nil, concourse, "nonsense", "")
	require.ErrorIs(t, err, ErrUnreachable)
}

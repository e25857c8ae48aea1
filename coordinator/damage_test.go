package coordinator

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestDamage damages each file of a volume in each way. The calls of a unit that was
// there before end, tell the truth and name what somebody has to do; when that is done,
// or at once if there is nothing to do, all is well again.
func TestDamage(t *testing.T) {
	t.Parallel()
	base := tmpfs(t, "512m")
	whole := filepath.Join(base, "whole")
	require.NoError(t, os.Mkdir(whole, 0o755))
	u := newUsed(t, whole)
	listed, remove := u.copy(t, filepath.Join(base, "listed"))
	defer remove()
	files := listing(t, listed.dir)
	t.Run("cases", func(t *testing.T) {
		turn := make(chan struct{}, 16) // most of it is waiting
		for i, file := range files {
			info, err := os.Lstat(filepath.Join(listed.dir, file))
			require.NoError(t, err)
			kinds := sortedKeys(damages)
			if info.IsDir() {
				kinds = []string{"a FIFO", "a dangling link", "a link out", "a sparse file", "removed"}
			}
			if file == "claims/7.14.4" {
				kinds = kinds[1:] // its holder would have to look, at each sign of life, before it opens
			}
			t.Run(file, func(t *testing.T) {
				t.Parallel()
				var all sync.WaitGroup
				defer all.Wait()
				for j, kind := range kinds {
					turn <- struct{}{}
					all.Go(func() {
						defer func() { <-turn }()
						there, remove := u.copy(t, filepath.Join(base, fmt.Sprintf("%d-%d", i, j)))
						defer remove()
						there.damaged(t, file, kind)
					})
				}
			})
		}
	})
}

func sortedKeys[V any](m map[string]V) (keys []string) {
	for key := range m {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}

// damageOutcome is what a call returned.
type damageOutcome struct {
	call string
	err  error
}

var versionIn = regexp.MustCompile(`7\.14\.\d`)

// damaged makes one case.
func (u *used) damaged(t *testing.T, file, kind string) {
	name := filepath.Join(u.dir, file)
	fail := func(format string, args ...any) {
		t.Helper()
		t.Errorf("%s: %s: %s", file, kind, fmt.Sprintf(format, args...))
	}
	c := u.open(t, "concourse-ci/1")
	old, err := os.ReadFile(name)
	if text, linkErr := os.Readlink(name); linkErr == nil {
		old, err = []byte(text), nil
	}
	if errors.Is(err, syscall.EISDIR) {
		err = nil
	}
	if err == nil {
		err = damages[kind](name, old)
	}
	if file == "claims/7.14.3/1" && err == nil {
		// Of whose claim nothing is known, the longest lease is waited for: that is tested
		// where claims are.
		err = os.WriteFile(name+".beat", []byte("done"), 0o644)
	}
	if errors.Is(err, errNoDamage) {
		return
	}
	if err != nil {
		fail("%v", err)
		return
	}
	version := "7.14.2"
	if v := versionIn.FindString(file); v != "" && v != "7.14.4" { // which is held
		version = v
	}
	named, ensured := false, true
	for _, o := range u.calls(t, c, version, fail) {
		var e *Error
		ensured = ensured && (o.call != "Ensure" || o.err == nil)
		switch {
		case o.err == nil || u.expected(o, version) || o.call == "Pin" && !ensured && absent(o.err):
			continue
		case !errors.As(o.err, &e):
			fail("%s: not an Error: %v", o.call, o.err)
		case strings.Contains(o.err.Error(), "\n") || len(o.err.Error()) > 600:
			fail("%s: not a line: %v", o.call, o.err)
		case kind == "removed" && slices.Contains(directories, file):
			continue // Open makes it anew
		case e.Kind != ErrDamaged && !errors.Is(e.Kind, ErrForeignVolume):
			fail("%s: of kind %v: %v", o.call, e.Kind, o.err)
		case !strings.Contains(o.err.Error(), name) && !(file == volumeFile && strings.Contains(o.err.Error(), u.dir)):
			fail("%s: does not name the file: %v", o.call, o.err)
		case !remedy.MatchString(o.err.Error()):
			fail("%s: does not say what to do: %v", o.call, o.err)
		}
		named = true
	}
	if file == volumeFile {
		if err := errors.Join(os.RemoveAll(name), os.WriteFile(name, old, 0o644)); err != nil {
			fail("%v", err)
		}
	} else if named {
		if err := os.RemoveAll(name); err != nil {
			fail("%v", err)
		}
	}
	if _, err := Open(t.Context(), u.dir, c.options); err != nil {
		if !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), name) || !remedy.MatchString(err.Error()) {
			fail("Open: %v", err)
		}
		if err := os.RemoveAll(name); err != nil {
			fail("%v", err)
		}
	}
	c = u.open(t, "concourse-ci/1")
	for _, o := range u.calls(t, c, version, fail) {
		lost := file == activationsDir && errors.Is(o.err, ErrNotActivated)
		if o.err != nil && !u.expected(o, version) && !lost {
			fail("%s, when all was done that had to be: %v", o.call, o.err)
		}
	}
}

// remedy is in each message about which somebody has to do something.
var remedy = regexp.MustCompile(`remove it|remove the file|restore it|attach that one|run a newer one|pin anew`)

// expected are errors that say no more than how it is: nobody has to do anything, but
// to install what is missing.
func (u *used) expected(o damageOutcome, version string) bool {
	e := &Error{}
	if !errors.As(o.err, &e) || strings.Contains(o.err.Error(), "\n") {
		return false
	}
	switch o.call {
	case "Installed", "Verify":
		return absent(o.err) && strings.Contains(o.err.Error(), version)
	case "Ensure", "Pin":
		return version == "7.14.6" && (e.Kind == ErrDigest || e.Kind == ErrNotInstalled)
	case "Collect":
		return e.Kind == ErrHeld && strings.Contains(o.err.Error(), "7.14.4")
	case "Activate":
		return absent(o.err) && strings.Contains(o.err.Error(), "7.14.1") // which may be what is damaged
	case "Rollback":
		return e.Kind == ErrNotActivated || absent(o.err)
	}
	return false
}

// calls makes each call once.
func (u *used) calls(t *testing.T, c *Coordinator, version string, fail func(string, ...any)) (all []damageOutcome) {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	soundAfter := func(what string, r Release, err error) error {
		if err != nil {
			return err
		}
		program, readErr := os.ReadFile(filepath.Join(r.Dir, "bin/concourse"))
		if readErr != nil || string(program) != "#!/bin/sh\necho "+r.Version+"\n" || !strings.HasPrefix(r.Dir, u.dir+"/") {
			fail("%s returned what is not sound: %+v: %q %v", what, r, program, readErr)
		}
		return nil
	}
	for _, call := range []struct {
		name string
		do   func() error
	}{
		{"Check", func() error { return c.Check(ctx) }},
		{"Current", func() error {
			a, err := c.Current(ctx)
			if err == nil && !slices.Contains([]string{"7.14.1", "7.14.2"}, a.Version) {
				fail("current is %+v", a)
			}
			return err
		}},
		{"Installed", func() error { _, err := c.Installed(ctx, version); return err }},
		{"Verify", func() error { return c.Verify(ctx, version, nil) }},
		{"Inspect", func() error { _, err := c.Inspect(ctx); return err }},
		{"Ensure", func() error {
			r, err := c.Ensure(ctx, version)
			if err == nil && errors.Is(c.Verify(ctx, version, nil), ErrCorrupt) {
				r, err = c.Reinstall(ctx, version) // as its documentation says
			}
			if err == nil {
				if err := c.Verify(ctx, version, nil); err != nil {
					fail("not sound after Ensure: %v", err)
				}
			}
			return soundAfter("Ensure", r, err)
		}},
		{"Activate", func() error { _, err := c.Activate(ctx, "7.14.1"); return err }},
		{"Pin", func() error { r, err := c.Pin(ctx, version); return soundAfter("Pin", r, err) }},
		{"Rollback", func() error { _, err := c.Rollback(ctx); return err }},
		{"Collect", func() error { _, err := c.Collect(ctx); return err }},
		{"Forget", func() error { return c.Forget(ctx, "concourse-ci/3") }},
	} {
		ended := make(chan error, 1)
		go func() { ended <- call.do() }()
		select {
		case err := <-ended:
			all = append(all, damageOutcome{call.name, err})
		case <-ctx.Done():
			fail("%s hangs", call.name)
			return all
		}
	}
	return all
}

// What one is told to do about a damaged entry of the log must not cut the log.
func TestRemovedActivation(t *testing.T) {
	src := newSource(t, "7.14.1", "7.14.2", "7.14.3")
	for generation, want := range map[string]string{"1": "7.14.2", "2": "7.14.1", "3": "7.14.1"} {
		root := t.TempDir()
		c := open(t, root, "concourse-ci/0", src.URL)
		installed(t, c, "7.14.1", "7.14.2", "7.14.3")
		require.NoError(t, os.Remove(filepath.Join(root, activationsDir, generation)))
		a, err := c.Rollback(t.Context())
		require.NoError(t, err)
		require.Equal(t, want, a.Version)
	}
}

// A pin that cannot be read may be that of any release. What is no release is not held
// up by it, nor is an installation for which there is room.
func TestDamagedPin(t *testing.T) {
	root := tmpfs(t, "12m")
	src := newSource(t, "7.14.1", "7.14.2", "7.14.3")
	src.publish("7.14.4", releaseArchive("7.14.4", 5<<19))
	c := open(t, root, "concourse-ci/0", src.URL)
	installed(t, c, "7.14.1", "7.14.2", "7.14.3")
	require.NoError(t, pin(t, c, "7.14.3"))
	bad := filepath.Join(root, pinsDir, "concourse-ci-9")
	require.NoError(t, os.WriteFile(bad, []byte("x"), 0o644))
	require.NoError(t, os.Mkdir(filepath.Join(root, stagingDir, "7.14.3.9.concourse-ci-8"), 0o755))
	removed, err := c.Collect(t.Context())
	require.ErrorIs(t, err, ErrDamaged)
	require.ErrorContains(t, err, bad)
	require.Equal(t, []string{"staging/7.14.3.9.concourse-ci-8"}, removed)
	i, err := c.Inspect(t.Context())
	require.NoError(t, err)
	require.Equal(t, map[string]string{"concourse-ci-0": "7.14.3.1"}, i.Pins)
	require.Contains(t, i.Damaged[pinsDir], bad)

	_, err = c.Ensure(t.Context(), "7.14.4") // 8 MB are free: more than twice its size, less than four times
	require.NoError(t, err)
	require.NoError(t, os.Remove(bad))
	removed, err = c.Collect(t.Context())
	require.NoError(t, err)
	require.Equal(t, []string{"releases/7.14.1", "store/7.14.1.1"}, removed)
}

// An error goes into a status, whatever it consists of.
func TestErrorsAreALine(t *testing.T) {
	err := failed("use", "x", errors.Join(errors.New("one"), errors.New("two\x00three")))
	require.Equal(t, "cannot use x: one; two; three", err.Error())
}

// Files that nobody has asked for, with what a neighbour has in it.
func TestStrays(t *testing.T) {
	u := newUsed(t, tmpfs(t, "64m"))
	c := u.open(t, "concourse-ci/1")
	for _, file := range listing(t, u.dir) {
		dir := strings.Split(file, "/")[0]
		info, err := os.Lstat(filepath.Join(u.dir, file))
		require.NoError(t, err)
		if dir == storeDir || dir == pinsDir || !info.Mode().IsRegular() {
			continue // a pin under another name is a pin
		}
		data, err := os.ReadFile(filepath.Join(u.dir, file))
		require.NoError(t, err)
		for _, name := range []string{"x", ".x", "x.y.z", "0", "-1", "99999999999999999999", "a b\nc", strings.Repeat("x", 255)} {
			require.NoError(t, os.WriteFile(filepath.Join(u.dir, filepath.Dir(file), name), data, 0o644))
		}
	}
	for _, o := range u.calls(t, c, "7.14.2", t.Errorf) {
		require.NoError(t, o.err, o.call)
	}
}

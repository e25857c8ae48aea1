package coordinator

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/durable"
	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/fetch"
	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/publish"
)

// An entry of the store is one download of a release: store/VERSION.GENERATION,
// with the generation of the claim under which it was made. The release itself is
// a symbolic link, releases/VERSION, to its entry. So a release is installed anew
// by one rename of a link, on every file system, while what runs keeps its files.
type entry struct {
	version    string
	generation int
	// first: the release is a directory itself, as on a volume of the first layout. It
	// has generation 0, and no place in the store.
	first bool
}

func (e entry) String() string { return fmt.Sprintf("%s.%d", e.version, e.generation) }

func (e entry) dir() string {
	if e.first {
		return releaseLink(e.version)
	}
	return path.Join(storeDir, e.String())
}

// parseEntry reads VERSION.GENERATION.
func parseEntry(name string) (entry, bool) {
	version, number := cutLast(name)
	generation, err := strconv.Atoi(number)
	e := entry{version: version, generation: generation}
	return e, err == nil && e.String() == name && versionForm.MatchString(e.version)
}

// cutLast cuts a name at its last dot.
func cutLast(name string) (before, after string) {
	dot := strings.LastIndexByte(name, '.')
	if dot < 0 {
		return name, ""
	}
	return name[:dot], name[dot+1:]
}

// releaseLink returns the name of a release, below the root.
func releaseLink(version string) string { return path.Join(releasesDir, version) }

// storeLink is the text of a release's link.
func storeLink(e entry) string { return "../" + e.dir() }

// place follows the link of a release, without a look at where it leads. Errors are
// ErrNotInstalled, and ErrCorrupt for a link that none of these units has made.
func (v *volume) place(version string) (entry, error) {
	name := releaseLink(version)
	text, err := v.root.Readlink(name)
	if errors.Is(err, unix.EINVAL) { // no link
		info, statErr := v.root.Lstat(name)
		if statErr == nil && info.IsDir() {
			return entry{version: version, first: true}, nil
		}
		return entry{}, fmt.Errorf("%s: %w: it is neither a link nor a directory", filepath.Join(v.view.dir, name), ErrCorrupt)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return entry{}, fmt.Errorf("%s: %w", filepath.Join(v.view.dir, name), ErrNotInstalled)
	}
	if err != nil {
		return entry{}, fmt.Errorf("cannot follow the link of a release: %w", err)
	}
	e, ok := parseEntry(path.Base(text))
	if !ok || e.version != version || text != storeLink(e) {
		return entry{}, fmt.Errorf("%s: %w: it leads to %.100q", filepath.Join(v.view.dir, name), ErrCorrupt, text)
	}
	return e, nil
}

// release returns a release after a quick check. Errors are ErrNotInstalled and
// ErrCorrupt; a link that leads to nothing is the former.
func (v *volume) release(version string) (Release, entry, error) {
	start := time.Now()
	for {
		p, err := v.place(version)
		if err != nil {
			return Release{}, p, err
		}
		m, err := publish.Check(v.root, p.dir(), version)
		if err == nil {
			r := v.describe(m, p)
			if m.Arch != "" && m.Arch != runtime.GOARCH {
				err = fmt.Errorf("%s: %w: it is for %s, this machine is %s: use a volume of its own", r.Dir, ErrArchitecture, m.Arch, runtime.GOARCH)
			}
			return r, p, err
		}
		// Or was it replaced, and then collected, while it was looked at?
		if now, lookErr := v.place(version); lookErr != nil || now == p {
			if errors.Is(err, ErrNotInstalled) && v.late(start) {
				continue // the link shows already, the files do not yet
			}
			return Release{}, p, err
		}
	}
}

// Recheck is Installed for who asks every few seconds, one call at a time: it looks at
// all directories each time and at the files in turns, so that a change of any is found
// within six calls, and takes a sixth of the time. Errors are those of Installed.
func (c *Coordinator) Recheck(ctx context.Context, version string) (Release, error) {
	t := c.about("use", version)
	return read(ctx, &c.View, t, func(_ context.Context, in *volume) (Release, error) {
		p, err := in.place(t.version)
		if err != nil {
			return Release{}, err
		}
		// It is for one call: another one, while this hangs, begins with nothing.
		turns, ok := c.memory.turns.LoadAndDelete(t.version)
		if !ok {
			turns = &publish.Turns{}
		}
		m, err := turns.(*publish.Turns).Check(in.root, p.dir(), t.version)
		c.memory.turns.Store(t.version, turns)
		return in.describe(m, p), err
	})
}

// late waits a moment, and tells whether something that another machine has made may
// still not show here. It does at once on a file system of this kernel.
func (v *volume) late(since time.Time) bool {
	if time.Since(since) >= durable.Settle || durable.Local(v.root) {
		return false
	}
	time.Sleep(100 * time.Millisecond)
	return true
}

func (v *volume) exists(name string) bool {
	_, err := v.root.Lstat(name)
	return err == nil
}

func (v *volume) describe(m publish.Manifest, e entry) Release {
	return Release{
		Version: m.Version, Dir: filepath.Join(v.view.dir, e.dir()),
		Digest: m.Digest, Contents: m.Contents(), InstalledBy: m.InstalledBy, Bytes: m.Bytes,
	}
}

// absent tells whether an error of release means that it has to be installed.
func absent(err error) bool {
	return errors.Is(err, ErrNotInstalled) || errors.Is(err, ErrCorrupt)
}

// versions lists what is in releases/, sound or not.
func (v *volume) versions() ([]string, error) {
	found, err := durable.Names(v.root, releasesDir)
	return sorted(found, func(name string) (string, bool) { return name, v.isVersion(name) }), err
}

// entries lists what is in the store, sound or not.
func (v *volume) entries() ([]entry, error) {
	found, err := durable.Names(v.root, storeDir)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil // a volume of the first layout
	}
	return sorted(found, parseEntry), err
}

// publish puts the staged tree into the store and links the release to it.
func (s *stage) publish(ctx context.Context, writes *durable.Writes) (Release, error) {
	u := s.u
	m := publish.Manifest{
		Version:     s.goal.version,
		Arch:        runtime.GOARCH,
		Digest:      s.sum.String(),
		InstalledBy: u.c.options.Unit,
		Files:       s.files,
	}
	for _, f := range s.files {
		m.Bytes += f.Size
	}
	h, err := u.history()
	if err != nil {
		return Release{}, err
	}
	m.Generation = h.current.Generation
	if err := publish.Complete(u.root, s.tree(), m); err != nil {
		return Release{}, err
	}
	if writes.Whole() {
		// All that the volume has not written yet is synced in one go: without the
		// archive, which nobody needs from here on.
		if err := fetch.Discard(u.root, s.home()); err != nil {
			return Release{}, err
		}
	}
	if err := writes.Sync(s.tree()); err != nil {
		return Release{}, err
	}
	if !writes.Whole() {
		// What such a volume makes of files may be anything: better now than published.
		// It is not looked at before it is synced, which tells what has gone wrong.
		if _, err := publish.Check(u.root, s.tree(), s.goal.version); err != nil {
			return Release{}, fmt.Errorf("the volume does not keep what is written to it: %w", err)
		}
	}
	if err := errors.Join(s.held.Check(), u.allow(ctx)); err != nil {
		return Release{}, err
	}
	u.at("fenced", s.held.Generation())
	e := s.entry()
	if err := publish.Rename(u.root, s.tree(), e.dir()); errors.Is(err, publish.ErrFragile) {
		return Release{}, errors.Join(err, u.discard(ctx, e.dir()))
	} else if err != nil {
		return Release{}, err
	}
	u.at("stored", s.held.Generation())
	r, linked, err := s.link(ctx, e)
	if !linked {
		err = errors.Join(err, u.discard(ctx, e.dir())) // nobody has ever seen it
	} else if err == nil {
		r = u.describe(m, e)
		r.Downloaded = true
	}
	u.at("published", s.held.Generation())
	if err != nil {
		return Release{}, err
	}
	// Nobody needs to go on with this version, whoever began: what is staged
	// for it belongs to the dead, or to someone who will find the release.
	err = u.sweep(ctx, func(t staged) bool { return t.version == s.goal.version })
	u.warn("cannot remove what is staged", err)
	return r, nil
}

// link makes the release's link lead to an entry, unless another unit has published a
// release that is as good. Whatever the link is, it is made in what this unit has
// staged and moved from there: a holder of a later generation, and a collector, take
// that away before they do anything, so that a unit which has slept links nothing.
func (s *stage) link(ctx context.Context, e entry) (r Release, linked bool, err error) {
	u, name, own := s.u, releaseLink(e.version), path.Join(s.home(), linkName)
	for {
		if r, err := u.wanted(s.goal); !absent(err) {
			return r, false, err
		}
		old, err := u.place(e.version)
		if err != nil && !absent(err) {
			return Release{}, false, err // it may be a sound one
		}
		if err := u.root.Symlink(storeLink(e), own); err != nil && !errors.Is(err, fs.ErrExist) {
			return Release{}, false, fmt.Errorf("cannot link the release: %w", err)
		}
		u.at("link", s.held.Generation())
		if err := u.allow(ctx); err != nil {
			return Release{}, false, err
		}
		switch {
		case errors.Is(err, ErrNotInstalled):
			err = durable.Link(u.root, own, name)
			if errors.Is(err, fs.ErrExist) {
				continue // another holder was faster
			}
		case old.first:
			// A directory cannot be replaced by a link. It goes where what runs from it
			// can find it again, or where the pin of that keeps it at least.
			away := entry{version: e.version}
			for u.exists(away.dir()) {
				away.generation++
			}
			if err = durable.Rename(u.root, name, away.dir()); err == nil {
				continue
			}
		default:
			err = durable.Rename(u.root, own, name)
			if err == nil {
				u.c.options.Log.Warn("replaced a release that was not sound", "release", name, "old", old.dir(), "new", e.dir())
			}
		}
		if err != nil {
			return Release{}, false, fmt.Errorf("cannot link the release: %w", err)
		}
		if err := durable.SyncDir(u.root, releasesDir); err != nil {
			return Release{}, true, fmt.Errorf("%s: %w: %w", name, publish.ErrFragile, err)
		}
		return Release{}, true, nil
	}
}

package coordinator

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"runtime"

	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/durable"
	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/fetch"
	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/publish"
)

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
	if err != nil && !errors.Is(err, ErrNotActivated) {
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
	e := entry{s.goal.version, s.held.Generation()}
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
		r = u.describe(m, place{entry: e})
		r.Downloaded = true
	}
	u.at("published", s.held.Generation())
	if err != nil {
		return Release{}, err
	}
	// Nobody needs to go on with this version, whoever began: what is staged
	// for it belongs to the dead, or to someone who will find the release.
	if err := u.sweep(ctx, func(t staged) bool { return t.version == s.goal.version }); err != nil {
		u.c.options.Log.Warn("cannot remove what is staged", "error", err)
	}
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
			away := entry{e.version, 0}
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

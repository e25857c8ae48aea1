package coordinator

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/claim"
	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/durable"
	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/probe"
)

// Collect removes what is neither current, nor current before, nor pinned, nor in
// flight, and returns what it removed, as paths below the root. It leaves a version
// that another unit downloads, and returns ErrHeld when it is done with the others.
// While a pin cannot be read, it leaves all releases, and returns ErrDamaged when it is
// done with the rest; so it does with ErrMounted for a release that is a mount.
func (c *Coordinator) Collect(ctx context.Context) ([]string, error) {
	return write(ctx, c, task{doing: "collect old releases of", what: c.dir}, func(ctx context.Context, u *unit) ([]string, error) {
		return u.collect(ctx, nil)
	})
}

// collect does the work of Collect, for a unit that has something staged itself or,
// with nil, has not.
func (u *unit) collect(ctx context.Context, own *stage) (removed []string, err error) {
	versions, err := u.collectable()
	if err != nil {
		return nil, err
	}
	var busy, left error
	for _, version := range versions {
		gone, err := u.collectVersion(ctx, version, own)
		removed = append(removed, gone...)
		switch {
		case errors.Is(err, claim.ErrFenced), errors.Is(err, ErrHeld):
			busy = fmt.Errorf("%w: %s is being installed", ErrHeld, version)
		case errors.Is(err, ErrDamaged), errors.Is(err, ErrMounted):
			left = err
		case err != nil:
			return removed, err
		}
	}
	litter, err := u.removeLitter(ctx)
	return append(removed, litter...), errors.Join(err, busy, left)
}

// collectable lists every version of which there is anything.
func (u *unit) collectable() ([]string, error) {
	versions, releasesErr := u.versions()
	entries, storeErr := u.entries()
	found, stagingErr := u.staged()
	for _, e := range entries {
		versions = append(versions, e.version)
	}
	for _, t := range found {
		if t.version != "" {
			versions = append(versions, t.version)
		}
	}
	slices.Sort(versions)
	return slices.Compact(versions), errors.Join(releasesErr, storeErr, stagingErr)
}

// probeLimit is longer than any probe takes: what is there for longer was left.
const probeLimit = 10 * time.Second

// left tells whether a directory of a probe was seen for so long that nobody is at work
// in it.
func (m *memory) left(name string) bool {
	now := m.now()
	first, _ := m.probes.LoadOrStore(name, now)
	return now.Sub(first.(time.Time)) >= probeLimit
}

// removeLitter removes what nobody can claim: what could not be removed before, what
// probes have left that hung or were killed, and files that have not got their names.
// Not those of pins: whoever finds his own gone takes it for named.
func (u *unit) removeLitter(ctx context.Context) (removed []string, err error) {
	for _, dir := range []string{".", stagingDir, storeDir, releasesDir, activationsDir, failuresDir, probesDir} {
		found, err := durable.Names(u.root, dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue // a volume of the first layout, or without probes
		}
		if err != nil {
			return removed, fmt.Errorf("cannot list %s: %w", dir, err)
		}
		// A file has a hidden name here before it gets its own.
		hidden := slices.Contains([]string{activationsDir, failuresDir, probesDir}, dir)
		for _, name := range found {
			full := path.Join(dir, name)
			switch {
			case dir == stagingDir && strings.HasPrefix(name, gone):
				if !u.removeTree(ctx, full) {
					continue
				}
			case (strings.HasPrefix(name, probe.Prefix) || hidden && strings.HasPrefix(name, ".")) && u.c.memory.left(name):
				if err := u.discard(ctx, full); err != nil {
					return removed, err
				}
			default:
				continue
			}
			removed = append(removed, full)
		}
	}
	return removed, nil
}

// collectVersion collects what there is of one version, under its claim.
func (u *unit) collectVersion(ctx context.Context, version string, own *stage) (removed []string, err error) {
	leftovers := func() ([]staged, error) {
		found, err := u.staged()
		return slices.DeleteFunc(found, func(t staged) bool {
			return t.version != version || own != nil && t.name == own.name()
		}), err
	}
	// Mostly there is nothing to do.
	left, err := leftovers()
	if err != nil {
		return nil, err
	}
	if doomed, err := u.doomed(version); len(left)+len(doomed) == 0 || err != nil && !errors.Is(err, ErrDamaged) {
		return nil, err
	}
	var held *claim.Claim
	if own != nil && own.goal.version == version {
		held = own.held
	} else {
		if err := durable.Mkdir(u.root, path.Join(claimsDir, version), 0o755); err != nil {
			return nil, err
		}
		claims := u.claims(ctx, version)
		claims.Logger = slog.New(slog.DiscardHandler) // nothing is downloaded
		if held, err = claims.Try(ctx, u.holder(version)); err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, held.Release()) }()
		// The claim is held, so nobody downloads it, whatever a dead unit wrote down.
		if p, err := u.progress(); err == nil && p.Version == version {
			u.root.Remove(progressFile)
		}
	}
	// What is staged belongs to the dead only while this is the holder. It goes before
	// anything else is looked at: who has slept can link nothing any more.
	if err := held.Check(); err != nil {
		return nil, err
	}
	if left, err = leftovers(); err != nil {
		return nil, err
	}
	for _, t := range left {
		if err := u.discard(ctx, t.path()); err != nil {
			return removed, err
		}
		removed = append(removed, t.path())
	}
	gone, err := u.collectReleases(ctx, version, held)
	return append(removed, gone...), err
}

// collectReleases moves what is doomed of a version into a directory made for that,
// and removes the directory.
func (u *unit) collectReleases(ctx context.Context, version string, held *claim.Claim) (removed []string, err error) {
	generation := held.Generation()
	if doomed, err := u.doomed(version); err != nil || len(doomed) == 0 {
		return nil, err
	}
	away := path.Join(stagingDir, collecting+entry{version: version, generation: generation}.String())
	if err := durable.Mkdir(u.root, away, 0o755); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, u.discard(ctx, away)) }()
	u.at("collecting", generation)
	if !durable.Local(u.root) {
		// Until a pin shows whose unit has not seen the directory, and until the
		// directory shows to who pins after that.
		if err := sleep(ctx, 2*durable.Settle); err != nil {
			return nil, err
		}
	}
	doomed, err := u.doomed(version)
	if err != nil {
		return nil, err
	}
	var mounted error
	for _, name := range doomed {
		if err := errors.Join(held.Check(), u.allow(ctx)); err != nil {
			return removed, err
		}
		u.at("collect", generation)
		// In one step: a release is whole or absent.
		err := durable.Rename(u.root, name, path.Join(away, path.Base(name)))
		if errors.Is(err, fs.ErrExist) || errors.Is(err, unix.EISDIR) || errors.Is(err, fs.ErrNotExist) {
			if path.Dir(name) == releasesDir {
				return removed, nil // called off: what the link leads to has to stay, too
			}
			continue // called off, or somebody else collects in this one's place
		}
		if errors.Is(err, unix.EBUSY) {
			mounted = fmt.Errorf("%w: unmount %s: %w", ErrMounted, filepath.Join(u.view.dir, name), err)
			continue
		}
		if err != nil {
			return removed, err
		}
		removed = append(removed, name)
	}
	return removed, mounted
}

// doomed lists what nobody needs of a version, the link before what it leads to: who
// dies in between leaves no link that leads to nothing.
//
// The pins come first: who activates a release holds it until it is in the log. They
// are read twice: who pins a release for good drops the hold of the call then, and
// one look may come too early for the one name and too late for the other.
func (u *unit) doomed(version string) ([]string, error) {
	pinned := map[entry]bool{}
	wanted := false // the link
	for range 2 {
		pins, err := u.pins()
		if err != nil {
			return nil, err
		}
		for _, e := range slices.Concat(slices.Collect(maps.Values(pins))...) {
			pinned[e] = true
			wanted = wanted || e.version == version
		}
		u.at("pins", 0)
	}
	h, logErr := u.history()
	entries, storeErr := u.entries()
	if err := errors.Join(logErr, storeErr); err != nil {
		return nil, err
	}
	for _, a := range []Activation{h.current, h.before, h.other} {
		wanted = wanted || a.Version == version
	}
	p, err := u.place(version)
	linked := err == nil
	if err != nil && !errors.Is(err, ErrNotInstalled) {
		return nil, nil // damaged: that is for who installs it anew
	}
	if linked && !wanted {
		// Installed since the current one was activated: an upgrade to it is
		// under way, and must not have to download it again.
		// One that cannot be read may be.
		made, err := u.madeAt(p)
		wanted = err != nil && !absent(err) || err == nil && made >= h.current.Generation
	}
	var doomed []string
	if linked && !wanted {
		doomed = append(doomed, releaseLink(version))
	}
	for _, e := range entries {
		needed := pinned[e] || pinned[entry{version: version}] || linked && wanted && e == p
		if e.version == version && !needed {
			doomed = append(doomed, e.dir())
		}
	}
	return doomed, nil
}

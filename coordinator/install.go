package coordinator

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"time"

	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/claim"
	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/durable"
	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/fetch"
	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/publish"
)

// errPublished ends the waiting for a claim that nobody needs any more.
var errPublished = errors.New("published")

// Ensure returns once the release is on the volume, fetching it if no other
// unit does. A release that is there but corrupt, as a quick check finds, is installed
// anew beside it, and takes its place in one step. It may take minutes; cancel ctx to
// give up. Whatever the error, nothing half installed is visible, what was there
// before is still there, and nothing staged is left but a partial archive that a
// later attempt goes on from.
//
// With Options.Digest a release of another digest is ErrDigest, also when it is
// on the volume already; it stays there for those who want it.
//
// What cannot succeed, such as a wrong digest, is written down on the volume: for half
// an hour, then for an hour at a time, no unit downloads the same again, unless a
// small request or a look at the mount shows that something has changed. Call Ensure
// again every few seconds; such a call returns at once.
//
// Errors are ErrVersion, ErrUnreachable, ErrUnauthorized, ErrNotFound, ErrNotArchive,
// ErrTooLarge, ErrNoDigest, ErrDigest, ErrNoSpace, and probe.ErrUnfit for a mount that cannot carry a release.
func (c *Coordinator) Ensure(ctx context.Context, version string) (Release, error) {
	return c.install(ctx, "install", version, false)
}

// Reinstall is Ensure for a release that is there and must not stay as it is: Verify
// has found it damaged, or it was published again under its version. What is there now
// stays until the new one can take its place. Units that ask for it at the same time
// download it once.
func (c *Coordinator) Reinstall(ctx context.Context, version string) (Release, error) {
	return c.install(ctx, "install anew", version, true)
}

// Use is Ensure and Pin: the release that it returns may be started from its Dir.
func (c *Coordinator) Use(ctx context.Context, version string) (Release, error) {
	for {
		installed, err := c.Ensure(ctx, version)
		if err != nil {
			return installed, err
		}
		r, err := c.Pin(ctx, version)
		if absent(err) {
			continue // collected, or damaged, in between
		}
		r.Downloaded, r.Took = installed.Downloaded, installed.Took
		return r, err
	}
}

// goal is what is to be installed.
type goal struct {
	version  string
	replaces entry // unless it is the zero entry: not this one
}

func (c *Coordinator) install(ctx context.Context, doing, version string, anew bool) (Release, error) {
	start := time.Now()
	t := c.about(doing, version)
	r, err := write(ctx, c, t, func(ctx context.Context, u *unit) (Release, error) {
		g := goal{version: t.version}
		if anew {
			var err error
			if g.replaces, err = u.place(t.version); err != nil && !absent(err) {
				return Release{}, err
			}
		}
		return u.ensure(ctx, g)
	})
	if err != nil {
		return Release{}, err
	}
	r.Took = time.Since(start)
	c.options.Progress(Progress{Version: t.version, State: Installed, Unit: r.InstalledBy, Started: start})
	if !r.Downloaded && r.InstalledBy != c.options.Unit && c.memory.first(t.version) {
		c.options.Log.Info(fmt.Sprintf("Reusing %s binaries v%s installed by %s", c.product.Name, t.version, r.InstalledBy))
	}
	return r, nil
}

// first tells whether something is not in the log yet: the reuse of a version, or a file
// that is passed over.
func (m *memory) first(what string) bool {
	_, known := m.logged.LoadOrStore(what, true)
	return !known
}

func (u *unit) ensure(ctx context.Context, g goal) (Release, error) {
	for {
		if r, err := u.wanted(g); !absent(err) {
			return r, err
		}
		if u.c.options.Source == "" {
			return Release{}, fmt.Errorf("%w: it is not on the volume, and there is no source", ErrOptions)
		}
		if err := u.blocked(ctx, g.version); err != nil {
			return Release{}, err
		}
		if err := u.allow(ctx); err != nil {
			return Release{}, err
		}
		if err := durable.Mkdir(u.root, path.Join(claimsDir, g.version), 0o755); err != nil {
			return Release{}, u.explain(err)
		}
		u.at("claim", 0)
		w := waiting{u: u, goal: g, local: durable.Local(u.root)}
		claims := u.claims(ctx, g.version)
		changed, enough := u.changes(g.version)
		claims.Changed = changed
		held, err := claims.Acquire(ctx, u.holder(g.version), w.look)
		enough()
		w.close()
		if errors.Is(err, errPublished) {
			return w.release, nil
		}
		if err != nil {
			return Release{}, u.explain(err)
		}
		u.at("claimed", held.Generation())
		r, err := u.fetch(ctx, g, held)
		u.at("release", held.Generation())
		if releaseErr := held.Release(); releaseErr != nil && err == nil {
			u.c.options.Log.Warn("cannot release the claim", "error", releaseErr)
		}
		u.at("released", held.Generation())
		if !errors.Is(err, claim.ErrFenced) {
			return r, err
		}
		u.c.options.Log.Warn("another unit took over the download", "reason", err)
		if err := sleep(ctx, afterFence); err != nil {
			return Release{}, err
		}
	}
}

// afterFence keeps a unit whose claims are lost again and again, for whatever
// reason, from doing nothing else.
const afterFence = 100 * time.Millisecond

// claims is the log of who may download a version. Each version has its own, so that
// none has to wait for another one's download.
func (u *unit) claims(ctx context.Context, version string) claim.Log {
	known, _ := u.probed()
	return claim.Log{
		Root:                u.root,
		Dir:                 path.Join(claimsDir, version),
		Name:                lockFile,
		Lease:               u.c.options.Lease,
		Turn:                u.c.memory.locking,
		Lockless:            known.Locks.Useless(),
		ReportLockSemantics: u.noteLocks,
		Logger:              u.c.options.Log,
		Guard: func(step string) error {
			u.at("before "+step, 0)
			if step == "done" {
				return u.check() // whoever gives up says so
			}
			return u.allow(ctx)
		},
	}
}

func (u *unit) holder(version string) claim.Holder {
	return claim.Holder{Unit: u.c.options.Unit, Version: version, PID: os.Getpid(), Since: time.Now().UTC()}
}

// wanted is release for the one who asks for it to be installed.
func (u *unit) wanted(g goal) (Release, error) {
	r, p, err := u.release(g.version)
	switch digest := u.c.digest; {
	case g.replaces != (entry{}) && p == g.replaces: // be it that nobody can read it
		return Release{}, fmt.Errorf("%s: %w: it is to be installed anew", path.Join(u.view.dir, p.dir()), ErrCorrupt)
	case err != nil:
		return r, err
	case digest != (fetch.Digest{}) && r.Digest != digest.String():
		return Release{}, fmt.Errorf("%s: %w: it was made of %s, expected is %s", r.Dir, ErrDigest, r.Digest, digest)
	}
	return r, nil
}

// fetch runs while this unit holds the claim.
func (u *unit) fetch(ctx context.Context, g goal, held *claim.Claim) (Release, error) {
	// Published, or found impossible, between the last look and the claim? Where names
	// come late, what an earlier holder has published may not show yet.
	for start := time.Now(); ; {
		if r, err := u.wanted(g); !absent(err) {
			return r, err
		}
		if held.Generation() == 1 || !u.late(start) {
			break
		}
	}
	if err := u.blocked(ctx, g.version); err != nil {
		return Release{}, err
	}
	// Claims that were lost begin anew: the next one has another number.
	s := &stage{u: u, goal: g, held: held}
	if dir := s.entry().dir(); u.exists(dir) {
		return Release{}, fmt.Errorf("%w: %s is there already", claim.ErrFenced, dir)
	}
	if err := u.check(); err != nil {
		return Release{}, err
	}
	// Somebody may have tidied up.
	if err := layOut(u.root); err != nil {
		return Release{}, err
	}
	if err := s.preflight(ctx); err != nil {
		return Release{}, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	writes, err := durable.Begin(u.root)
	if err != nil {
		return Release{}, err
	}
	defer writes.Close()
	go func() {
		select {
		case <-held.Lost():
			cancel(claim.ErrFenced)
		case <-ctx.Done():
		}
	}()
	r, err := s.install(ctx, writes)
	stolen := errors.Is(err, fs.ErrNotExist) && s.stolen()
	if noSpace(err) {
		if free, roomErr := u.room(); roomErr == nil {
			s.exhausted = &free
		}
	}
	s.remove(ctx)
	if err == nil {
		u.unblock(g.version)
		return r, nil
	}
	if errors.Is(err, publish.ErrFragile) {
		return Release{}, err
	}
	// Another unit that took this one for dead may have published meanwhile, and
	// removed what it took for leftovers; or it is about to.
	if r, lookErr := u.wanted(g); lookErr == nil {
		return r, nil
	}
	if fence := held.Check(); fence != nil {
		return Release{}, fence
	}
	if stolen {
		// By one that held an earlier claim, slept, and did not know better.
		return Release{}, fmt.Errorf("%w: what was staged is gone: %w", claim.ErrFenced, err)
	}
	err = s.full(err)
	if ctx.Err() == nil {
		u.block(ctx, s, err)
	}
	return Release{}, err
}

// full turns the kernel's word for a full volume into this package's.
func (s *stage) full(err error) error {
	if s.exhausted == nil {
		return err
	}
	return fmt.Errorf("%w: the archive alone has %s, and %s: %w", ErrNoSpace, megabytes(uint64(s.total)), s.exhausted.describe(err), err)
}

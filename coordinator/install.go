package coordinator

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/claim"
	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/durable"
	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/publish"
)

// errPublished ends the waiting for a claim that nobody needs any more.
var errPublished = errors.New("published")

// Ensure returns once the release is on the volume, fetching it if no other
// unit does. A release that is there but corrupt is installed again; units may
// run from it, so it goes to quarantine only when the new one is verified, or
// when both do not fit. It may take minutes; cancel ctx to give up. Whatever the
// error, nothing half installed is visible, and nothing staged is left but a
// partial archive that a later attempt goes on from.
//
// With Options.Digest a release of another digest is ErrDigest, also when it is
// on the volume already; it stays there for those who want it.
//
// Errors are ErrVersion, ErrNotMounted, ErrForeignVolume, ErrUnreachable,
// ErrNotFound, ErrNotArchive, ErrNoDigest, ErrDigest, ErrNoSpace and those of
// ctx.
func (c *Coordinator) Ensure(ctx context.Context, version string) (Release, error) {
	start := time.Now()
	v, err := ParseVersion(version)
	if err != nil {
		return Release{}, fmt.Errorf("cannot install concourse: %w", err)
	}
	r, err := c.ensure(ctx, v)
	if err = c.reason(err); err != nil {
		return Release{}, fmt.Errorf("cannot install concourse %s: %w%s", v, err, remedy(err))
	}
	r.Took = time.Since(start)
	c.options.Progress(Progress{Version: v, State: Installed, Unit: r.InstalledBy, Started: start})
	if !r.Downloaded {
		c.mu.Lock()
		told := c.told[v]
		c.told[v] = true
		c.mu.Unlock()
		if !told && r.InstalledBy != c.options.Unit {
			c.options.Log.Info(fmt.Sprintf("Reusing Concourse binaries v%s installed by %s", v, r.InstalledBy))
		}
	}
	return r, nil
}

func (c *Coordinator) ensure(ctx context.Context, version string) (Release, error) {
	if err := c.Check(); err != nil {
		return Release{}, err
	}
	for {
		if r, err := c.wanted(version); !absent(err) {
			return r, err
		}
		c.at("claim", 0)
		w := waiting{c: c, version: version}
		held, err := c.claims().Acquire(ctx, c.holder(version), w.look)
		if errors.Is(err, errPublished) {
			return w.release, nil
		}
		if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
			err = fmt.Errorf("%w: %w", ErrNoSpace, err)
		}
		if err != nil {
			return Release{}, err
		}
		c.at("claimed", held.Generation())
		r, err := c.install(ctx, version, held)
		c.at("release", held.Generation())
		if releaseErr := held.Release(); releaseErr != nil && err == nil {
			c.options.Log.Warn("cannot release the claim", "error", releaseErr)
		}
		c.at("released", held.Generation())
		if !errors.Is(err, claim.ErrFenced) {
			return r, err
		}
		c.options.Log.Warn("another unit took over the download", "reason", err)
	}
}

func (c *Coordinator) claims() claim.Log {
	return claim.Log{
		Dir:   c.path(claimsDir),
		Lock:  c.path(lockFile),
		Lease: c.options.Lease,
		Guard: func(step string) error {
			c.at("before "+step, 0)
			return c.Check()
		},
	}
}

func (c *Coordinator) holder(version string) claim.Holder {
	return claim.Holder{Unit: c.options.Unit, Version: version, PID: os.Getpid(), Since: time.Now().UTC()}
}

// absent tells whether an error of release means that it has to be installed.
func absent(err error) bool {
	return errors.Is(err, ErrNotInstalled) || errors.Is(err, ErrCorrupt)
}

// Installed returns the release after a quick check of names, sizes and modes.
// Errors are ErrVersion, ErrNotInstalled and ErrCorrupt.
func (c *Coordinator) Installed(version string) (Release, error) {
	v, err := ParseVersion(version)
	if err != nil {
		return Release{}, fmt.Errorf("cannot look for concourse: %w", err)
	}
	r, err := c.release(v)
	if err != nil {
		return Release{}, fmt.Errorf("cannot use concourse %s: %w", v, err)
	}
	return r, nil
}

func (c *Coordinator) release(version string) (Release, error) {
	dir := c.path(releasesDir, version)
	m, err := publish.Check(dir)
	if err != nil {
		return Release{}, err
	}
	return Release{Version: version, Dir: dir, Digest: m.Digest, InstalledBy: m.InstalledBy, Bytes: m.Bytes}, nil
}

// wanted is release for the one who asks for it to be installed.
func (c *Coordinator) wanted(version string) (Release, error) {
	r, err := c.release(version)
	if err == nil && c.digest.Algorithm == "sha256" && r.Digest != c.digest.String() {
		return Release{}, fmt.Errorf("%s: %w: it was made of %s, expected is %s", r.Dir, ErrDigest, r.Digest, c.digest)
	}
	return r, err
}

// waiting looks at the volume while another unit holds the claim.
type waiting struct {
	c       *Coordinator
	version string
	release Release
	said    Progress
	at      time.Time
}

func (w *waiting) look(holder claim.Holder) error {
	if err := w.c.Check(); err != nil {
		return err
	}
	var err error
	if w.release, err = w.c.wanted(w.version); err == nil {
		return errPublished
	} else if !absent(err) {
		return err
	}
	p := Progress{Version: w.version, State: Waiting, Unit: holder.Unit, Started: holder.Since}
	if other, err := w.c.progress(); err == nil && other.Version == w.version && other.Unit == holder.Unit {
		p.Bytes, p.Total, p.Started = other.Bytes, other.Total, other.Started
	}
	if p.Unit != w.said.Unit || time.Since(w.at) >= time.Second {
		w.said, w.at = p, time.Now()
		w.c.options.Progress(p)
	}
	return nil
}

// install runs while this unit holds the claim.
func (c *Coordinator) install(ctx context.Context, version string, held *claim.Claim) (Release, error) {
	// Published between the last look and the claim?
	r, err := c.wanted(version)
	if !absent(err) {
		return r, err
	}
	if err := c.Check(); err != nil {
		return Release{}, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		select {
		case <-held.Lost():
			cancel(claim.ErrFenced)
		case <-ctx.Done():
		}
	}()
	s := &stage{c: c, version: version, generation: held.Generation()}
	err = s.run(ctx)
	c.at("staged", held.Generation())
	if err == nil {
		r, err = c.publish(s, held)
	}
	s.remove()
	if err == nil {
		return r, nil
	}
	// Another unit that took this one for dead may have published meanwhile, and
	// removed what it took for leftovers; or it is about to.
	if r, lookErr := c.wanted(version); lookErr == nil {
		return r, nil
	}
	if fence := held.Check(); fence != nil {
		return Release{}, fence
	}
	return Release{}, c.full(err, s.size())
}

func (c *Coordinator) publish(s *stage, held *claim.Claim) (Release, error) {
	manifest := publish.Manifest{
		Version:     s.version,
		Digest:      s.sum.String(),
		InstalledBy: c.options.Unit,
		Files:       s.files,
	}
	for _, f := range s.files {
		manifest.Bytes += f.Size
	}
	current, err := c.Current()
	if err != nil && !errors.Is(err, ErrNotActivated) {
		return Release{}, err
	}
	manifest.Generation = current.Generation
	if err := c.Check(); err != nil {
		return Release{}, err
	}
	if err := held.Check(); err != nil {
		return Release{}, err
	}
	c.at("fenced", held.Generation())
	if err := c.quarantine(s.version); err != nil {
		return Release{}, err
	}
	err = publish.Release(s.dir, c.path(releasesDir, s.version), manifest)
	if err != nil && !errors.Is(err, publish.ErrExist) {
		return Release{}, err
	}
	c.at("published", held.Generation())
	r, checkErr := c.wanted(s.version)
	if checkErr != nil {
		return Release{}, checkErr
	}
	r.Downloaded = err == nil
	// Nobody needs to go on with this version, whoever began: what is staged
	// for it belongs to the dead, or to someone who will find the release.
	return r, c.sweep(func(t staged) bool { return t.version == s.version })
}

// quarantine moves a release away if it is corrupt.
func (c *Coordinator) quarantine(version string) error {
	_, reason := c.release(version)
	if !errors.Is(reason, ErrCorrupt) {
		return nil
	}
	place, err := publish.Quarantine(c.path(releasesDir, version), c.path(quarantineDir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil // another holder was faster
	}
	if err == nil {
		c.options.Log.Warn("quarantined a corrupt release", "reason", reason, "place", place)
	}
	return err
}

// staged is what the name of a staging tree says.
type staged struct{ name, version, unit string }

// sweep removes staging trees. Who removes those of other units holds the claim.
func (c *Coordinator) sweep(stale func(staged) bool) error {
	entries, err := os.ReadDir(c.path(stagingDir))
	if err != nil {
		return fmt.Errorf("cannot list what is staged: %w", err)
	}
	for _, e := range entries {
		parts := strings.Split(e.Name(), ".") // 7.14.3.GENERATION.UNIT
		s := staged{name: e.Name(), version: e.Name()}
		if len(parts) == 5 {
			s.version, s.unit = strings.Join(parts[:3], "."), parts[4]
		}
		if !stale(s) {
			continue
		}
		if err := c.discard(c.path(stagingDir, e.Name())); err != nil {
			return fmt.Errorf("cannot remove what is staged: %w", err)
		}
	}
	return nil
}

// discard removes a tree of the volume. It takes it out of the way first, in one
// step: where locks are worth nothing its unit may be publishing it, and the
// release would lose its files while they are removed here.
func (c *Coordinator) discard(path string) error {
	away := c.path(stagingDir, ".gone-"+rand.Text())
	if err := durable.Rename(path, away); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	if err := os.RemoveAll(away); err != nil {
		c.options.Log.Warn("cannot remove all of what nobody needs", "error", err)
	}
	return nil
}

// removeAll empties a directory of the volume and returns the names removed.
func (c *Coordinator) removeAll(dir string) ([]string, error) {
	entries, err := os.ReadDir(c.path(dir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("cannot list %s: %w", dir, err)
	}
	var removed []string
	for _, e := range entries {
		if err := c.discard(c.path(dir, e.Name())); err != nil {
			return removed, fmt.Errorf("cannot remove %s: %w", filepath.Join(dir, e.Name()), err)
		}
		removed = append(removed, filepath.Join(dir, e.Name()))
	}
	return removed, nil
}

package coordinator

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/claim"
	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/durable"
	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/publish"
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
	version, err := ParseVersion(version)
	if err != nil {
		return Release{}, fmt.Errorf("cannot install concourse: %w", err)
	}
	var r Release
	err = c.within(func(v *volume) (err error) {
		r, err = v.ensure(ctx, version)
		return err
	})
	if err != nil {
		return Release{}, fmt.Errorf("cannot install concourse %s: %w%s", version, err, remedy(err))
	}
	r.Took = time.Since(start)
	c.options.Progress(Progress{Version: version, State: Installed, Unit: r.InstalledBy, Started: start})
	if !r.Downloaded {
		c.mu.Lock()
		told := c.told[version]
		c.told[version] = true
		c.mu.Unlock()
		if !told && r.InstalledBy != c.options.Unit {
			c.options.Log.Info(fmt.Sprintf("Reusing Concourse binaries v%s installed by %s", version, r.InstalledBy))
		}
	}
	return r, nil
}

func (v *volume) ensure(ctx context.Context, version string) (Release, error) {
	for {
		if r, err := v.wanted(version); !absent(err) {
			return r, err
		}
		v.at("claim", 0)
		w := waiting{v: v, version: version}
		claims := v.claims()
		changed, enough := v.changes()
		claims.Changed = changed
		held, err := claims.Acquire(ctx, v.holder(version), w.look)
		enough()
		if errors.Is(err, errPublished) {
			return w.release, nil
		}
		if err != nil {
			return Release{}, err
		}
		v.at("claimed", held.Generation())
		r, err := v.install(ctx, version, held)
		v.at("release", held.Generation())
		if releaseErr := held.Release(); releaseErr != nil && err == nil {
			v.options.Log.Warn("cannot release the claim", "error", releaseErr)
		}
		v.at("released", held.Generation())
		if !errors.Is(err, claim.ErrFenced) {
			return r, err
		}
		v.options.Log.Warn("another unit took over the download", "reason", err)
		select {
		case <-ctx.Done():
			return Release{}, context.Cause(ctx)
		case <-time.After(afterFence):
		}
	}
}

// afterFence keeps a unit whose claims are lost again and again, for whatever
// reason, from doing nothing else.
const afterFence = 100 * time.Millisecond

func (v *volume) claims() claim.Log {
	known, _ := v.probed()
	return claim.Log{
		Root:                v.root,
		Dir:                 claimsDir,
		Lock:                lockFile,
		Name:                lockFile,
		Lease:               v.options.Lease,
		Lockless:            known.Locks.Useless(),
		ReportLockSemantics: v.witness,
		Logger:              v.options.Log,
		Guard: func(step string) error {
			v.at("before "+step, 0)
			return v.check()
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
// Errors are ErrVersion, ErrNotInstalled, ErrCorrupt and those of Check.
func (c *Coordinator) Installed(version string) (Release, error) {
	version, err := ParseVersion(version)
	if err != nil {
		return Release{}, fmt.Errorf("cannot look for concourse: %w", err)
	}
	v, err := c.enter()
	if err != nil {
		return Release{}, fmt.Errorf("cannot use concourse %s: %w", version, err)
	}
	defer v.leave()
	r, err := v.release(version)
	if err != nil {
		return Release{}, fmt.Errorf("cannot use concourse %s: %w", version, err)
	}
	return r, nil
}

func (v *volume) release(version string) (Release, error) {
	m, err := publish.Check(v.root, releaseDir(version))
	if err != nil {
		return Release{}, err
	}
	return v.describe(m), nil
}

func (v *volume) describe(m publish.Manifest) Release {
	return Release{
		Version: m.Version, Dir: filepath.Join(v.dir, releasesDir, m.Version),
		Digest: m.Digest, InstalledBy: m.InstalledBy, Bytes: m.Bytes,
	}
}

// wanted is release for the one who asks for it to be installed.
func (v *volume) wanted(version string) (Release, error) {
	r, err := v.release(version)
	if err == nil && v.digest.Algorithm == "sha256" && r.Digest != v.digest.String() {
		return Release{}, fmt.Errorf("%s: %w: it was made of %s, expected is %s", r.Dir, ErrDigest, r.Digest, v.digest)
	}
	return r, err
}

// waiting looks at the volume while another unit holds the claim.
type waiting struct {
	v       *volume
	version string
	release Release
	said    Progress
	at      time.Time
}

func (w *waiting) look(holder claim.Holder) error {
	if err := w.v.check(); err != nil {
		return err
	}
	var err error
	if w.release, err = w.v.wanted(w.version); err == nil {
		return errPublished
	} else if !absent(err) {
		return err
	}
	p := Progress{Version: w.version, State: Waiting, Unit: holder.Unit, Started: holder.Since}
	if other, err := w.v.progress(); err == nil && other.Version == w.version && other.Unit == holder.Unit {
		p.Bytes, p.Total, p.Started = other.Bytes, other.Total, other.Started
	}
	if p.Unit != w.said.Unit || time.Since(w.at) >= time.Second {
		w.said, w.at = p, time.Now()
		w.v.options.Progress(p)
	}
	return nil
}

// install runs while this unit holds the claim.
func (v *volume) install(ctx context.Context, version string, held *claim.Claim) (Release, error) {
	// Published between the last look and the claim?
	r, err := v.wanted(version)
	if !absent(err) {
		return r, err
	}
	if err := v.check(); err != nil {
		return Release{}, err
	}
	// Somebody may have tidied up.
	if err := v.layOut(); err != nil {
		return Release{}, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	writes, err := durable.Begin(v.root, cancel)
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
	s := &stage{volume: v, version: version, held: held}
	err = s.run(ctx)
	v.at("staged", held.Generation())
	if err == nil {
		r, err = s.publish(writes)
	}
	robbed := errors.Is(err, fs.ErrNotExist) && s.robbed()
	s.remove()
	if err == nil {
		return r, nil
	}
	if errors.Is(err, publish.ErrFragile) {
		return Release{}, err
	}
	// Another unit that took this one for dead may have published meanwhile, and
	// removed what it took for leftovers; or it is about to.
	if r, lookErr := v.wanted(version); lookErr == nil {
		return r, nil
	}
	if fence := held.Check(); fence != nil {
		return Release{}, fence
	}
	if robbed {
		// By one that held an earlier claim, slept, and did not know better.
		return Release{}, fmt.Errorf("%w: what was staged is gone: %w", claim.ErrFenced, err)
	}
	return Release{}, v.full(err, s.total)
}

func (s *stage) publish(writes *durable.Writes) (Release, error) {
	manifest := publish.Manifest{
		Version:     s.version,
		Digest:      s.sum.String(),
		InstalledBy: s.options.Unit,
		Files:       s.files,
	}
	for _, f := range s.files {
		manifest.Bytes += f.Size
	}
	current, err := s.current()
	if err != nil && !errors.Is(err, ErrNotActivated) {
		return Release{}, err
	}
	manifest.Generation = current.Generation
	if err := s.check(); err != nil {
		return Release{}, err
	}
	if err := s.held.Check(); err != nil {
		return Release{}, err
	}
	s.at("fenced", s.held.Generation())
	if err := s.quarantine(); err != nil {
		return Release{}, err
	}
	var r Release
	switch err := publish.Release(s.root, s.tree(), releaseDir(s.version), manifest, writes); {
	case errors.Is(err, publish.ErrExist):
		s.files, manifest.Files = nil, nil
		if r, err = s.wanted(s.version); err != nil {
			return Release{}, err
		}
	case err != nil:
		return Release{}, err
	default:
		r = s.describe(manifest)
		r.Downloaded = true
	}
	s.at("published", s.held.Generation())
	// Nobody needs to go on with this version, whoever began: what is staged
	// for it belongs to the dead, or to someone who will find the release.
	if err := s.sweep(func(t staged) bool { return t.version == s.version }); err != nil {
		s.options.Log.Warn("cannot remove what is staged", "error", err)
	}
	return r, nil
}

// quarantine moves the release away if it is corrupt: into what this unit has
// staged, and from there to quarantine/. A holder of a later generation takes away
// what is staged before it publishes, so that a unit which slept between its look
// and the move finds nowhere to move a sound release to. The claim has to be
// checked before, with what is staged in place.
func (s *stage) quarantine() error {
	_, reason := s.release(s.version)
	if !errors.Is(reason, ErrCorrupt) {
		return nil
	}
	s.at("quarantine", s.held.Generation())
	out := path.Join(s.home(), "corrupt")
	if err := durable.Rename(s.root, releaseDir(s.version), out); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // another holder was faster
		}
		return fmt.Errorf("cannot quarantine the release: %w", err)
	}
	place := path.Join(quarantineDir, s.version+"."+rand.Text())
	if err := durable.Rename(s.root, out, place); err != nil {
		return fmt.Errorf("cannot quarantine the release: %w", err)
	}
	s.options.Log.Warn("quarantined a corrupt release", "reason", reason, "place", filepath.Join(s.dir, place))
	return errors.Join(durable.SyncDir(s.root, releasesDir), durable.SyncDir(s.root, quarantineDir))
}

// staged is what the name of a staging tree says.
type staged struct {
	name, version, unit string
	generation          int
}

// parseStaged reads VERSION.GENERATION.UNIT; of another name it tells the name only.
func parseStaged(name string) staged {
	s := staged{name: name}
	parts := strings.Split(name, ".")
	if len(parts) != 5 {
		return s
	}
	generation, err := strconv.Atoi(parts[3])
	if err != nil {
		return s
	}
	s.version, s.unit, s.generation = strings.Join(parts[:3], "."), parts[4], generation
	return s
}

// sweep removes staging trees. Who removes those of other units holds the claim.
func (v *volume) sweep(stale func(staged) bool) error {
	names, err := durable.Names(v.root, stagingDir)
	if err != nil {
		return fmt.Errorf("cannot list what is staged: %w", err)
	}
	for _, name := range names {
		if !stale(parseStaged(name)) {
			continue
		}
		if err := v.discard(path.Join(stagingDir, name)); err != nil {
			return fmt.Errorf("cannot remove what is staged: %w", err)
		}
	}
	return nil
}

// discard removes a tree of the volume. It takes it out of the way first, in one
// step: where locks are worth nothing its unit may be publishing it, and the
// release would lose its files while they are removed here.
func (v *volume) discard(name string) error {
	away := path.Join(stagingDir, ".gone-"+rand.Text())
	if err := durable.Rename(v.root, name, away); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	if err := v.root.RemoveAll(away); err != nil {
		v.options.Log.Warn("cannot remove all of what nobody needs", "error", err)
	}
	return nil
}

// removeAll empties a directory of the volume and returns the names removed.
func (v *volume) removeAll(dir string) ([]string, error) {
	names, err := durable.Names(v.root, dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("cannot list %s: %w", dir, err)
	}
	slices.Sort(names)
	var removed []string
	for _, name := range names {
		name = path.Join(dir, name)
		if err := v.discard(name); err != nil {
			return removed, fmt.Errorf("cannot remove %s: %w", name, err)
		}
		removed = append(removed, name)
	}
	return removed, nil
}

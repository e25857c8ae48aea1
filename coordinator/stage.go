package coordinator

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/claim"
	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/durable"
	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/fetch"
	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/mount"
	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/publish"
	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/tree"
	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/unpack"
)

// What lies in a unit's private directory, beside the partial archive and its
// journal.
const (
	treeName = "tree" // what will be the release
	linkName = "link" // the link to it, on its way to releases/
)

// stage is a release on its way to the volume: one unit, holding a claim,
// downloads, hashes, inflates and writes it at the same time.
type stage struct {
	u     *unit
	goal  goal
	held  *claim.Claim
	sum   fetch.Digest // sha256 of the archive
	files []unpack.File
	total int64
	made  bool // home is there, unless another unit has taken it away
	keep  bool // the archive, or a part of it, is worth another attempt
	// What is noted when it fails.
	needs  uint64 // bytes that have to be free
	proof  proof  // what the source had
	wasted int64  // bytes that were received for nothing
	// exhausted is what was free when the volume was full; nil if it was not.
	exhausted *room
}

// entry is what the release will be in the store.
func (s *stage) entry() entry { return entry{version: s.goal.version, generation: s.held.Generation()} }

// name is that of this stage below staging/.
func (s *stage) name() string { return s.entry().String() + "." + s.u.name() }

func (s *stage) home() string { return path.Join(stagingDir, s.name()) }

func (s *stage) tree() string { return path.Join(s.home(), treeName) }

// stolen tells whether another unit has taken away what was staged.
func (s *stage) stolen() bool { return s.made && !s.u.exists(s.home()) }

// install makes a verified tree of the release and publishes it, or leaves at most
// an archive that another attempt can go on from.
func (s *stage) install(ctx context.Context, writes *durable.Writes) (Release, error) {
	err := s.run(ctx)
	s.u.at("staged", s.held.Generation())
	if err != nil {
		return Release{}, err
	}
	r, err := s.publish(ctx, writes)
	s.keep = err != nil // it is verified: nobody has to fetch it again
	return r, err
}

func (s *stage) run(ctx context.Context) error {
	if err := s.adopt(ctx); err != nil {
		return err
	}
	want, err := s.digest(ctx)
	if err != nil {
		return err
	}
	s.proof.Digest = want.String()
	spoiled := func(err error) bool { return errors.Is(err, ErrDigest) || errors.Is(err, ErrNotArchive) }
	reused, err := s.attempt(ctx, want)
	if reused > 0 && spoiled(err) {
		// It may be the fault of the disk that the first part came to.
		s.u.c.options.Log.Warn("what an earlier attempt left is not as the server sent it, starting again", "error", err)
		if err := s.u.discard(ctx, s.home()); err != nil {
			return err
		}
		_, err = s.attempt(ctx, want)
	}
	if spoiled(err) && !durable.Local(s.u.root) {
		// A client of a file server may show for a moment what was there before it was
		// written. Who opens the file anew sees what is there.
		if err := s.discardTree(ctx); err != nil {
			return err
		}
		kept, distrustErr := fetch.Distrust(s.u.root, s.home())
		if distrustErr != nil {
			return distrustErr
		}
		if kept {
			_, err = s.attempt(ctx, want)
		}
	}
	return err
}

// digest returns what the archive must add up to; the zero value if nobody knows.
func (s *stage) digest(ctx context.Context) (fetch.Digest, error) {
	if s.u.c.digest != (fetch.Digest{}) {
		return s.u.c.digest, nil
	}
	want, err := s.u.c.source.Digest(ctx, s.goal.version)
	switch {
	case err == nil:
		return want, nil
	case errors.Is(err, ErrNoDigest) && s.u.c.options.AllowUnverified:
		return fetch.Digest{}, nil
	}
	if kept, ok := fetch.KeptDigest(s.u.root, s.home()); ok {
		return kept, nil // all of the archive is here, and nobody has to be asked
	}
	s.keepFor(ctx, err)
	return fetch.Digest{}, err
}

// keepFor keeps what an earlier attempt has fetched if err says nothing against it.
func (s *stage) keepFor(ctx context.Context, err error) {
	blameless := ctx.Err() != nil || errors.Is(err, ErrUnreachable) || errors.Is(err, ErrUnauthorized)
	s.keep = blameless && fetch.Kept(s.u.root, s.home()) > 0
}

// adopt takes over what the holder of an earlier generation left of the same
// version, or an earlier life of this unit, and removes all the rest of that. The
// new name is a fence: should such a holder still live, it finds none of its paths
// again, publishes nothing, and links nothing.
func (s *stage) adopt(ctx context.Context) error {
	found, err := s.u.staged()
	if err != nil {
		return err
	}
	old := func(t staged) bool {
		return t.version == s.goal.version && (t.unit == s.u.name() || t.generation < s.held.Generation())
	}
	var best staged
	var most int64
	for _, t := range found {
		if !old(t) {
			continue
		}
		if n := fetch.Kept(s.u.root, t.path()); n > most {
			best, most = t, n
		}
	}
	if most > 0 && best.name != s.name() {
		err := durable.Rename(s.u.root, best.path(), s.home())
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("cannot take over what is staged: %w", err)
		}
	}
	if err := s.u.sweep(ctx, func(t staged) bool { return old(t) && t.name != s.name() }); err != nil {
		return err
	}
	if most == 0 {
		return s.u.discard(ctx, s.home())
	}
	return s.discardTree(ctx)
}

func (s *stage) discardTree(ctx context.Context) error {
	return errors.Join(s.u.discard(ctx, s.tree()), s.u.discard(ctx, path.Join(s.home(), linkName)))
}

// attempt returns how many bytes it did not have to fetch.
func (s *stage) attempt(ctx context.Context, want fetch.Digest) (reused int64, err error) {
	u, version := s.u, s.goal.version
	if err := durable.Mkdir(u.root, s.home(), 0o755); err != nil {
		return 0, fmt.Errorf("cannot stage: %w", err)
	}
	s.made = true
	d, err := u.c.source.Open(ctx, version, u.root, s.home(), want)
	if err != nil {
		s.keepFor(ctx, err)
		return 0, err
	}
	defer d.Close()
	s.total, s.proof.Source = d.Size, d.Fingerprint
	if err := s.makeRoom(ctx, d.Size, d.Reused); err != nil {
		s.keep = d.Reused > 0
		return 0, err
	}
	u.c.options.Log.Info(fmt.Sprintf("Downloading %s binaries v%s from %s", u.view.product.Name, version, d.URL))
	if d.Reused > 0 {
		u.c.options.Log.Info(fmt.Sprintf("Going on with v%s after %s of %s", version, megabytes(uint64(d.Reused)), megabytes(uint64(d.Size))))
	}
	if err := durable.Mkdir(u.root, s.tree(), 0o755); err != nil {
		return 0, fmt.Errorf("cannot stage: %w", err)
	}
	if err := d.Start(); err != nil {
		return 0, fmt.Errorf("cannot stage: %w", err)
	}
	m := &meter{
		Progress: Progress{Version: version, State: Downloading, Unit: u.c.options.Unit, Total: d.Size, Started: time.Now().UTC()},
		u:        u, d: d,
	}
	stop := m.start(ctx)
	err = s.extract(ctx, d, want)
	if cause := stop(); cause != nil {
		err = cause
	}
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	stats := d.Stats()
	s.total = max(s.total, stats.Present) // the server may not have said
	u.c.options.Log.Debug("fetched", "bytes", stats.Present-d.Reused, "reused", d.Reused, "hashed", stats.Hashed)
	useless := errors.Is(err, ErrDigest) || errors.Is(err, ErrNotArchive) || errors.Is(err, ErrTooLarge)
	s.keep = err != nil && stats.Resumable && !useless
	s.wasted += stats.Wasted
	return d.Reused, err
}

// extract unpacks what is downloaded while it comes in.
func (s *stage) extract(ctx context.Context, d *fetch.Download, want fetch.Digest) error {
	tree, err := s.u.root.OpenRoot(s.tree())
	if err != nil {
		return fmt.Errorf("cannot stage: %w", err)
	}
	defer tree.Close()
	files, err := unpack.Tree(ctx, d.Reader(), tree, unpack.Layout{Top: s.u.view.product.Top, Reserved: publish.ManifestName}, unpack.DefaultLimits)
	if err != nil && !errors.Is(err, ErrNotArchive) {
		return err
	}
	if left := d.Stats().Remaining; err != nil && (left < 0 || left > DefaultChunk) {
		d.Stop(err) // nobody needs the rest
		return fmt.Errorf("%s: %w", d.URL, err)
	}
	// Bytes that make no sense are most likely not those that were published:
	// the digest knows, and it is the better answer.
	sums, sumErr := d.Wait()
	if sumErr != nil {
		return sumErr
	}
	if sum := sums[want.Algorithm]; want != (fetch.Digest{}) && sum != want.Hex {
		err = fmt.Errorf("%w: it has %s:%s, expected is %s", ErrDigest, want.Algorithm, sum, want)
	}
	if err == nil {
		err = s.u.view.product.complete(files)
	}
	if err != nil {
		// Unless it was the volume that lost them.
		if lost := d.Sync(); lost != nil {
			return lost
		}
		return fmt.Errorf("%s: %w", d.URL, err)
	}
	s.files, s.sum = files, fetch.Digest{Algorithm: "sha256", Hex: sums["sha256"]}
	return nil
}

// complete tells whether an archive's files are a release of the product.
func (p Product) complete(files []unpack.File) error {
	for _, name := range p.Executables {
		executable := func(f unpack.File) bool { return f.Path == name && f.Mode == 0o555 }
		if !slices.ContainsFunc(files, executable) {
			return fmt.Errorf("%w: it has no executable %s", ErrNotArchive, path.Join(p.Top, name))
		}
	}
	return nil
}

// remove takes away what is staged, but for what another attempt can use.
func (s *stage) remove(ctx context.Context) {
	err := s.discardTree(ctx)
	if !s.keep {
		err = s.u.discard(ctx, s.home())
	}
	s.u.warn("cannot remove the staging tree", err)
	if p, err := s.u.progress(); err == nil && p.Unit == s.u.c.options.Unit && p.Version == s.goal.version {
		s.u.root.Remove(progressFile)
	}
}

// staged is what a name in staging/ says: that of a unit's tree, VERSION.GENERATION.UNIT,
// or that of a collector's directory, which is no unit's. Any other says nothing.
type staged struct {
	entry
	name, unit string
}

func (t staged) path() string { return path.Join(stagingDir, t.name) }

func parseStaged(name string) staged {
	t := staged{name: name}
	if rest, ok := strings.CutPrefix(name, collecting); ok {
		t.entry, _ = parseEntry(rest)
		return t
	}
	rest, unit := cutLast(name)
	if e, ok := parseEntry(rest); ok {
		t.entry, t.unit = e, unit
	}
	return t
}

// staged lists what is in staging/.
func (v *volume) staged() (all []staged, err error) {
	found, err := durable.Names(v.root, stagingDir)
	for _, name := range found {
		all = append(all, parseStaged(name))
	}
	return all, err
}

// sweep removes staging trees. Who removes those of other units holds the claim.
func (u *unit) sweep(ctx context.Context, stale func(staged) bool) error {
	found, err := u.staged()
	if err != nil {
		return err
	}
	for _, t := range found {
		if strings.HasPrefix(t.name, collecting) || !stale(t) {
			continue
		}
		if err := u.discard(ctx, t.path()); err != nil {
			return err
		}
	}
	return nil
}

// discardLimit bounds how long a removal goes on: a busy disk took 20 s for 60,000 files.
const discardLimit = 5 * time.Minute

// gone begins the names, below staging/, of what is being removed.
const gone = ".gone-"

// discard removes a tree of the volume. It takes it out of the way first, in one
// step: where locks are worth nothing its unit may be publishing it, and the
// release would lose its files while they are removed here.
func (u *unit) discard(ctx context.Context, name string) error {
	away := path.Join(stagingDir, gone+rand.Text())
	err := durable.Rename(u.root, name, away)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("cannot remove %s: %w", name, err)
	}
	u.removeTree(ctx, away)
	return nil
}

// removeTree tells whether all of a tree is gone. What is mounted there is left.
func (u *unit) removeTree(ctx context.Context, name string) bool {
	ctx, cancel := mount.Tidying(ctx, discardLimit) // whoever gives up wants it tidy, too
	defer cancel()
	err := tree.Remove(ctx, u.root, name)
	u.warn("cannot remove all of what nobody needs", err)
	return err == nil
}

func megabytes(n uint64) string { return fmt.Sprintf("%.1f MB", float64(n)/1e6) }

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

// name is that of this stage below staging/.
func (s *stage) name() string {
	return fmt.Sprintf("%s.%d.%s", s.goal.version, s.held.Generation(), s.u.name())
}

func (s *stage) home() string { return path.Join(stagingDir, s.name()) }

func (s *stage) tree() string { return path.Join(s.home(), treeName) }

// stolen tells whether another unit has taken away what was staged.
func (s *stage) stolen() bool {
	return s.made && !s.u.exists(s.home())
}

// install makes a verified tree of the release and publishes it, or leaves at most
// an archive that another attempt can go on from.
func (s *stage) install(ctx context.Context, writes *durable.Writes) (Release, error) {
	err := s.run(ctx)
	s.u.at("staged", s.held.Generation())
	if err != nil {
		return Release{}, err
	}
	// It is verified: should publishing fail, nobody has to fetch it again.
	s.keep = true
	r, err := s.publish(ctx, writes)
	if err == nil {
		s.keep = false
	}
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
		if err := s.clear(ctx); err != nil {
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
	s.keep = fetch.Kept(s.u.root, s.home()) > 0 && (ctx.Err() != nil || errors.Is(err, ErrUnreachable) || errors.Is(err, ErrUnauthorized))
	return fetch.Digest{}, err
}

// adopt takes over what the holder of an earlier generation left of the same
// version, or an earlier life of this unit, and removes all the rest of that. The
// new name is a fence: should such a holder still live, it finds none of its paths
// again, publishes nothing, and links nothing.
func (s *stage) adopt(ctx context.Context) error {
	found, err := durable.Names(s.u.root, stagingDir)
	if err != nil {
		return fmt.Errorf("cannot list what is staged: %w", err)
	}
	old := func(t staged) bool {
		return t.version == s.goal.version && (t.unit == s.u.name() || t.generation < s.held.Generation())
	}
	var best string
	var most int64
	for _, name := range found {
		if !old(parseStaged(name)) {
			continue
		}
		if n := fetch.Kept(s.u.root, path.Join(stagingDir, name)); n > most {
			best, most = name, n
		}
	}
	if best != "" && best != s.name() {
		err := durable.Rename(s.u.root, path.Join(stagingDir, best), s.home())
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("cannot take over what is staged: %w", err)
		}
	}
	if err := s.u.sweep(ctx, func(t staged) bool { return old(t) && t.name != s.name() }); err != nil {
		return err
	}
	if best == "" {
		return s.clear(ctx)
	}
	return s.discardTree(ctx)
}

// clear removes all that is staged under this stage's name.
func (s *stage) clear(ctx context.Context) error {
	if err := s.u.discard(ctx, s.home()); err != nil {
		return fmt.Errorf("cannot remove what is staged: %w", err)
	}
	return nil
}

func (s *stage) discardTree(ctx context.Context) error {
	err := s.u.discard(ctx, s.tree())
	if linkErr := s.u.root.Remove(path.Join(s.home(), linkName)); linkErr != nil && !errors.Is(linkErr, fs.ErrNotExist) {
		err = errors.Join(err, linkErr)
	}
	if err != nil {
		return fmt.Errorf("cannot remove the staged tree: %w", err)
	}
	return nil
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
		s.keep = fetch.Kept(u.root, s.home()) > 0 && (ctx.Err() != nil || errors.Is(err, ErrUnreachable) || errors.Is(err, ErrUnauthorized))
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
	m.start(ctx)
	err = s.extract(ctx, d, want)
	if cause := m.stop(); cause != nil {
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
		err = s.clear(ctx)
	}
	if err != nil {
		s.u.c.options.Log.Warn("cannot remove the staging tree", "error", err)
	}
	if p, err := s.u.progress(); err == nil && p.Unit == s.u.c.options.Unit && p.Version == s.goal.version {
		s.u.root.Remove(progressFile)
	}
}

// staged is what the name of a staging tree says.
type staged struct {
	name, version, unit string
	generation          int
}

// parseStaged reads VERSION.GENERATION.UNIT; of another name it tells the name only.
func parseStaged(name string) staged {
	dot := strings.LastIndexByte(name, '.')
	if dot < 0 {
		return staged{name: name}
	}
	e, ok := parseEntry(name[:dot])
	if !ok {
		return staged{name: name}
	}
	return staged{name: name, version: e.version, unit: name[dot+1:], generation: e.generation}
}

// sweep removes staging trees. Who removes those of other units holds the claim.
func (u *unit) sweep(ctx context.Context, stale func(staged) bool) error {
	found, err := durable.Names(u.root, stagingDir)
	if err != nil {
		return fmt.Errorf("cannot list what is staged: %w", err)
	}
	for _, name := range found {
		if !stale(parseStaged(name)) {
			continue
		}
		if err := u.discard(ctx, path.Join(stagingDir, name)); err != nil {
			return fmt.Errorf("cannot remove what is staged: %w", err)
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
	if err := durable.Rename(u.root, name, away); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	u.removeTree(ctx, away)
	return nil
}

// removeTree tells whether all of a tree is gone. What is mounted there is left.
func (u *unit) removeTree(ctx context.Context, name string) bool {
	ctx, cancel := mount.Tidying(ctx, discardLimit) // whoever gives up wants it tidy, too
	defer cancel()
	err := tree.Remove(ctx, u.root, name)
	if err != nil {
		u.c.options.Log.Warn("cannot remove all of what nobody needs", "error", err)
	}
	return err == nil
}

func megabytes(n uint64) string { return fmt.Sprintf("%.1f MB", float64(n)/1e6) }

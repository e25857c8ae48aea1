package coordinator

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/claim"
	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/durable"
	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/fetch"
	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/unpack"
)

// treeName is what will be the release, in a unit's private directory. The
// partial archive and its journal lie beside it.
const treeName = "tree"

// stage is a release on its way to the volume: one unit, holding a claim,
// downloads, hashes, inflates and writes it at the same time.
type stage struct {
	*volume
	version string
	held    *claim.Claim
	sum     fetch.Digest // sha256 of the archive
	files   []unpack.File
	total   int64
	made    bool // home is there, unless another unit has taken it away
	keep    bool // the partial archive is worth another attempt
}

// name is that of this stage below staging/.
func (s *stage) name() string { return fmt.Sprintf("%s.%d.%s", s.version, s.held.Generation(), s.unit) }

func (s *stage) home() string { return path.Join(stagingDir, s.name()) }

func (s *stage) tree() string { return path.Join(s.home(), treeName) }

// robbed tells whether another unit has taken away what was staged.
func (s *stage) robbed() bool {
	_, err := s.root.Lstat(s.home())
	return s.made && errors.Is(err, fs.ErrNotExist)
}

// run makes a verified tree of the release, or leaves at most a partial archive
// that another attempt can go on from.
func (s *stage) run(ctx context.Context) error {
	if err := s.adopt(); err != nil {
		return err
	}
	want := s.digest
	if want == (fetch.Digest{}) {
		var err error
		want, err = s.source.Digest(ctx, s.version)
		if err != nil && !(errors.Is(err, ErrNoDigest) && s.options.AllowUnverified) {
			s.keep = fetch.Kept(s.root, s.home()) > 0 && (ctx.Err() != nil || errors.Is(err, ErrUnreachable))
			return err
		}
	}
	reused, err := s.attempt(ctx, want)
	if reused > 0 && (errors.Is(err, ErrDigest) || errors.Is(err, ErrNotArchive)) {
		// It may be the fault of the disk that the first part came to.
		s.options.Log.Warn("what an earlier attempt left is not as the server sent it, starting again", "error", err)
		if err := s.clear(); err != nil {
			return err
		}
		_, err = s.attempt(ctx, want)
	}
	return err
}

// adopt takes over what the holder of an earlier generation left of the same
// version, or an earlier life of this unit, and removes all the rest of that. The
// new name is a fence: should such a holder still live, it finds none of its paths
// again, publishes nothing, and moves nothing away.
func (s *stage) adopt() error {
	names, err := durable.Names(s.root, stagingDir)
	if err != nil {
		return fmt.Errorf("cannot list what is staged: %w", err)
	}
	old := func(t staged) bool {
		return t.unit == s.unit || t.version == s.version && t.generation < s.held.Generation()
	}
	var best string
	var most int64
	for _, name := range names {
		if t := parseStaged(name); t.version != s.version || !old(t) {
			continue
		}
		if n := fetch.Kept(s.root, path.Join(stagingDir, name)); n > most {
			best, most = name, n
		}
	}
	if best != "" && best != s.name() {
		err := durable.Rename(s.root, path.Join(stagingDir, best), s.home())
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("cannot take over what is staged: %w", err)
		}
	}
	if err := s.sweep(func(t staged) bool { return old(t) && t.name != s.name() }); err != nil {
		return err
	}
	if best == "" {
		return s.clear()
	}
	return s.discardTree()
}

// clear removes all that is staged under this stage's name.
func (s *stage) clear() error {
	if err := s.discard(s.home()); err != nil {
		return fmt.Errorf("cannot remove what is staged: %w", err)
	}
	return nil
}

func (s *stage) discardTree() error {
	if err := s.discard(s.tree()); err != nil {
		return fmt.Errorf("cannot remove the staged tree: %w", err)
	}
	return nil
}

// attempt returns how many bytes it did not have to fetch.
func (s *stage) attempt(ctx context.Context, want fetch.Digest) (reused int64, err error) {
	if err := durable.Mkdir(s.root, s.home(), 0o755); err != nil {
		return 0, fmt.Errorf("cannot stage: %w", err)
	}
	s.made = true
	d, err := s.source.Open(ctx, s.version, s.root, s.home(), want)
	if err != nil {
		s.keep = fetch.Kept(s.root, s.home()) > 0 && (ctx.Err() != nil || errors.Is(err, ErrUnreachable))
		return 0, err
	}
	defer d.Close()
	s.total = d.Size
	if err := s.room(d.Size, d.Reused); err != nil {
		return 0, err
	}
	s.options.Log.Info(fmt.Sprintf("Downloading Concourse binaries v%s from %s", s.version, d.URL))
	if d.Reused > 0 {
		s.options.Log.Info(fmt.Sprintf("Going on with v%s after %s of %s", s.version, megabytes(uint64(d.Reused)), megabytes(uint64(d.Size))))
	}
	if err := durable.Mkdir(s.root, s.tree(), 0o755); err != nil {
		return 0, fmt.Errorf("cannot stage: %w", err)
	}
	if err := d.Start(); err != nil {
		return 0, fmt.Errorf("cannot stage: %w", err)
	}
	m := &meter{
		Progress: Progress{Version: s.version, State: Downloading, Unit: s.options.Unit, Total: d.Size, Started: time.Now().UTC()},
		v:        s.volume, d: d,
	}
	m.start()
	err = s.extract(ctx, d, want)
	if cause := m.stop(); cause != nil {
		err = cause
	}
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	present, hashed := d.Received()
	s.options.Log.Debug("fetched", "bytes", present-d.Reused, "reused", d.Reused, "hashed", hashed)
	s.keep = err != nil && d.Resumable() && (ctx.Err() != nil || errors.Is(err, ErrUnreachable)) && !noSpace(err)
	return d.Reused, err
}

// extract unpacks what is downloaded while it comes in.
func (s *stage) extract(ctx context.Context, d *fetch.Download, want fetch.Digest) error {
	tree, err := s.root.OpenRoot(s.tree())
	if err != nil {
		return fmt.Errorf("cannot stage: %w", err)
	}
	defer tree.Close()
	files, err := unpack.Tree(ctx, d.Reader(), tree, unpack.Layout{Top: "concourse", Reserved: unpack.Reserved}, unpack.DefaultLimits)
	if err != nil && !errors.Is(err, ErrNotArchive) {
		return err
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
	executable := func(f unpack.File) bool { return f.Path == "bin/concourse" && f.Mode == 0o555 }
	if err == nil && !slices.ContainsFunc(files, executable) {
		err = fmt.Errorf("%w: it has no executable concourse/bin/concourse", ErrNotArchive)
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

// remove takes away what is staged, but for what another attempt can use.
func (s *stage) remove() {
	err := s.discardTree()
	if !s.keep {
		err = s.clear()
	}
	if err != nil {
		s.options.Log.Warn("cannot remove the staging tree", "error", err)
	}
	if p, err := s.progress(); err == nil && p.Unit == s.options.Unit {
		s.root.Remove(progressFile)
	}
}

// room refuses a download that cannot fit: the archive, of which a part may be
// there, and what is unpacked beside it. That is larger than the archive, by how
// much nobody knows yet; three times was never seen. Below that, what dead units
// left and what was found corrupt makes room first, and last the corrupt release
// itself.
func (s *stage) room(size, there int64) error {
	least, enough := uint64(2*size-there), uint64(4*size-there)
	free, err := s.free()
	if err != nil || free >= enough {
		return err
	}
	// What others have staged is that of the dead only while this is the holder.
	if err := s.held.Check(); err != nil {
		return err
	}
	if err := s.sweep(func(t staged) bool { return t.name != s.name() }); err != nil {
		return err
	}
	if _, err := s.removeAll(quarantineDir); err != nil {
		return err
	}
	if free, err = s.free(); err != nil || free >= enough {
		return err
	}
	if err := s.held.Check(); err != nil {
		return err
	}
	if err := s.quarantine(); err != nil {
		return err
	}
	if _, err := s.removeAll(quarantineDir); err != nil {
		return err
	}
	if free, err = s.free(); err != nil || free >= least {
		return err
	}
	return fmt.Errorf("%w: it needs at least %s, %s are free", ErrNoSpace, megabytes(least), megabytes(free))
}

// noSpace tells the kernel's words for a full volume.
func noSpace(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// full turns the kernel's word for a full volume into this package's.
func (v *volume) full(err error, size int64) error {
	if !noSpace(err) {
		return err
	}
	// Of a quota the file system tells nothing: what it says is free is not.
	if errors.Is(err, syscall.EDQUOT) {
		return fmt.Errorf("%w: its quota is used up, and the archive alone has %s: %w", ErrNoSpace, megabytes(uint64(size)), err)
	}
	free, freeErr := v.free()
	if freeErr != nil {
		return errors.Join(err, freeErr)
	}
	return fmt.Errorf("%w: the archive alone has %s, %s are said to be free: %w", ErrNoSpace, megabytes(uint64(size)), megabytes(free), err)
}

func megabytes(n uint64) string { return fmt.Sprintf("%.1f MB", float64(n)/1e6) }

// meter reports how far a download is, once a second.
type meter struct {
	Progress
	v       *volume
	d       *fetch.Download
	done    chan struct{}
	stopped sync.WaitGroup
	lost    error
}

func (m *meter) start() {
	m.done = make(chan struct{})
	m.report()
	m.stopped.Go(func() {
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for m.lost == nil {
			select {
			case <-m.done:
				return
			case <-tick.C:
				m.report()
			}
		}
	})
}

// stop returns why the volume cannot be used any more, if it cannot.
func (m *meter) stop() error {
	close(m.done)
	m.stopped.Wait()
	return m.lost
}

// report writes down how far the download is, for the others. It stops the
// download when the volume is no longer there.
func (m *meter) report() {
	if m.lost = m.v.check(); m.lost != nil {
		m.d.Stop(m.lost)
		return
	}
	m.Bytes, _ = m.d.Received()
	m.v.options.Progress(m.Progress)
	// For people and for waiting units; no decision rests on it, so that a
	// power cut may have it, and a failure is no reason to give up.
	data, err := json.Marshal(m.Progress)
	if err != nil {
		return
	}
	tmp := progressFile + "." + m.v.unit
	if err := m.v.root.WriteFile(tmp, append(data, '\n'), 0o644); err != nil {
		m.v.root.Remove(tmp)
		return
	}
	m.v.root.Rename(tmp, progressFile)
}

func (v *volume) progress() (Progress, error) {
	var p Progress
	data, err := v.root.ReadFile(progressFile)
	if err != nil {
		return p, err
	}
	return p, json.Unmarshal(data, &p)
}

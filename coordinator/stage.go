package coordinator

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/fetch"
	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/durable"
	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/unpack"
)

// treeName is what will be the release, in a unit's private directory. The
// partial archive and its journal lie beside it.
const treeName = "tree"

// stage is a release on its way to the volume: one unit, holding a claim,
// downloads, hashes, inflates and writes it at the same time.
type stage struct {
	c          *Coordinator
	version    string
	generation int
	home       string       // staging/VERSION.GENERATION.UNIT
	dir        string       // the tree in it
	sum        fetch.Digest // sha256 of the archive
	files      []unpack.File
	total      int64
	keep       bool // the partial archive is worth another attempt
}

func (s *stage) size() int64 { return s.total }

// run makes a verified tree of the release in s.dir, or leaves at most a partial
// archive that another attempt can go on from.
func (s *stage) run(ctx context.Context) error {
	c := s.c
	s.home = c.path(stagingDir, fmt.Sprintf("%s.%d.%s", s.version, s.generation, c.unit))
	s.dir = filepath.Join(s.home, treeName)
	if err := s.adopt(); err != nil {
		return err
	}
	digest := c.digest
	if digest == (fetch.Digest{}) {
		var err error
		digest, err = c.source.Digest(ctx, s.version)
		if err != nil && !(errors.Is(err, ErrNoDigest) && c.options.AllowUnverified) {
			s.keep = fetch.Kept(s.home) > 0 && (ctx.Err() != nil || errors.Is(err, ErrUnreachable))
			return err
		}
	}
	reused, err := s.attempt(ctx, digest)
	if reused > 0 && (errors.Is(err, ErrDigest) || errors.Is(err, ErrNotArchive)) {
		// It may be the fault of the disk that the first part came to.
		c.options.Log.Warn("what an earlier attempt left is not as the server sent it, starting again", "error", err)
		if err := s.clear(); err != nil {
			return err
		}
		_, err = s.attempt(ctx, digest)
	}
	return err
}

// adopt takes over what the holder of an earlier generation left of the same
// version, or an earlier life of this unit. The new name is a fence: should that
// holder still live, it finds none of its paths again, and publishes nothing.
func (s *stage) adopt() error {
	entries, err := os.ReadDir(s.c.path(stagingDir))
	if err != nil {
		return fmt.Errorf("cannot list what is staged: %w", err)
	}
	var best string
	var most int64
	for _, e := range entries {
		parts := strings.Split(e.Name(), ".") // 7.14.3.GENERATION.UNIT
		if len(parts) != 5 || strings.Join(parts[:3], ".") != s.version {
			continue
		}
		generation, err := strconv.Atoi(parts[3])
		if err != nil || generation >= s.generation && parts[4] != s.c.unit {
			continue
		}
		if n := fetch.Kept(s.c.path(stagingDir, e.Name())); n > most {
			best, most = e.Name(), n
		}
	}
	if best != "" && best != filepath.Base(s.home) {
		err := durable.Rename(s.c.path(stagingDir, best), s.home)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("cannot take over what is staged: %w", err)
		}
	}
	// The rest of what earlier lives of this unit left.
	if err := s.c.sweep(func(t staged) bool { return t.unit == s.c.unit && t.name != filepath.Base(s.home) }); err != nil {
		return err
	}
	if best == "" {
		return s.clear()
	}
	return s.discardTree()
}

// clear removes all that is staged under this stage's name.
func (s *stage) clear() error {
	if err := s.c.discard(s.home); err != nil {
		return fmt.Errorf("cannot remove what is staged: %w", err)
	}
	return nil
}

func (s *stage) discardTree() error {
	if err := s.c.discard(s.dir); err != nil {
		return fmt.Errorf("cannot remove the staged tree: %w", err)
	}
	return nil
}

// attempt returns how many bytes it did not have to fetch.
func (s *stage) attempt(ctx context.Context, digest fetch.Digest) (reused int64, err error) {
	c := s.c
	d, err := c.source.Open(ctx, s.version, s.home, digest)
	if err != nil {
		s.keep = fetch.Kept(s.home) > 0 && (ctx.Err() != nil || errors.Is(err, ErrUnreachable))
		return 0, err
	}
	defer d.Close()
	s.total = d.Size
	if err := s.room(d.Size, d.Reused); err != nil {
		return 0, err
	}
	c.options.Log.Info(fmt.Sprintf("Downloading Concourse binaries v%s from %s", s.version, d.URL))
	if d.Reused > 0 {
		c.options.Log.Info(fmt.Sprintf("Going on with v%s after %s of %s", s.version, megabytes(uint64(d.Reused)), megabytes(uint64(d.Size))))
	}
	if err := os.Mkdir(s.home, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return 0, fmt.Errorf("cannot stage: %w", err)
	}
	if err := os.Mkdir(s.dir, 0o755); err != nil {
		return 0, fmt.Errorf("cannot stage: %w", err)
	}
	if err := d.Start(); err != nil {
		return 0, fmt.Errorf("cannot stage: %w", err)
	}
	m := &meter{
		Progress: Progress{Version: s.version, State: Downloading, Unit: c.options.Unit, Total: d.Size, Started: time.Now().UTC()},
		c:        c, d: d,
	}
	m.start()
	err = s.extract(ctx, d, digest)
	if cause := m.stop(); cause != nil {
		err = cause
	}
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	present, hashed := d.Received()
	c.options.Log.Debug("fetched", "bytes", present-d.Reused, "reused", d.Reused, "hashed", hashed)
	s.keep = err != nil && d.Resumable() && (ctx.Err() != nil || errors.Is(err, ErrUnreachable))
	return d.Reused, err
}

// extract unpacks what is downloaded while it comes in.
func (s *stage) extract(ctx context.Context, d *fetch.Download, digest fetch.Digest) error {
	root, err := os.OpenRoot(s.dir)
	if err != nil {
		return fmt.Errorf("cannot stage: %w", err)
	}
	defer root.Close()
	files, err := unpack.Tree(ctx, d.Reader(), root, unpack.DefaultLimits)
	if err != nil && !errors.Is(err, ErrNotArchive) {
		return err
	}
	// Bytes that make no sense are most likely not those that were published:
	// the digest knows, and it is the better answer.
	sums, sumErr := d.Wait()
	if sumErr != nil {
		return sumErr
	}
	if sum := sums[digest.Algorithm]; digest != (fetch.Digest{}) && sum != digest.Hex {
		return fmt.Errorf("%s: %w: it has %s:%s, expected is %s", d.URL, ErrDigest, digest.Algorithm, sum, digest)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", d.URL, err)
	}
	executable := slices.ContainsFunc(files, func(f unpack.File) bool { return f.Path == "bin/concourse" && f.Mode == 0o555 })
	if !executable {
		return fmt.Errorf("%s: %w: it has no executable concourse/bin/concourse", d.URL, ErrNotArchive)
	}
	s.files, s.sum = files, fetch.Digest{Algorithm: "sha256", Hex: sums["sha256"]}
	if err := unpack.Sync(root, files); err != nil {
		return err
	}
	// The space is for others; the tree has it all.
	if err := fetch.Remove(s.home); err != nil {
		return fmt.Errorf("cannot remove the partial archive: %w", err)
	}
	return nil
}

// remove takes away what is staged, but for what another attempt can use.
func (s *stage) remove() {
	c := s.c
	err := s.discardTree()
	if !s.keep {
		err = s.clear()
	}
	if err != nil {
		c.options.Log.Warn("cannot remove the staging tree", "error", err)
	}
	if p, err := c.progress(); err == nil && p.Unit == c.options.Unit {
		os.Remove(c.path(progressFile))
	}
}

// room refuses a download that cannot fit: the archive, of which a part may be
// there, and what is unpacked beside it. That is larger than the archive, by how
// much nobody knows yet; three times was never seen. Below that, what dead units
// left and what was found corrupt makes room first, and last the corrupt release
// itself.
func (s *stage) room(size, there int64) error {
	c := s.c
	least, enough := uint64(2*size-there), uint64(4*size-there)
	free, err := c.free()
	if err != nil || free >= enough {
		return err
	}
	if err := c.sweep(func(t staged) bool { return t.name != filepath.Base(s.home) }); err != nil {
		return err
	}
	if _, err := c.removeAll(quarantineDir); err != nil {
		return err
	}
	if free, err = c.free(); err != nil || free >= enough {
		return err
	}
	if err := c.quarantine(s.version); err != nil {
		return err
	}
	if _, err := c.removeAll(quarantineDir); err != nil {
		return err
	}
	if free, err = c.free(); err != nil || free >= least {
		return err
	}
	return fmt.Errorf("%w: it needs at least %s, %s are free", ErrNoSpace, megabytes(least), megabytes(free))
}

// full turns the kernel's word for a full volume into this package's.
func (c *Coordinator) full(err error, size int64) error {
	if !errors.Is(err, syscall.ENOSPC) && !errors.Is(err, syscall.EDQUOT) {
		return err
	}
	// Of a quota the file system tells nothing: what it says is free is not.
	if errors.Is(err, syscall.EDQUOT) {
		return fmt.Errorf("%w: its quota is used up, and the archive alone has %s: %w", ErrNoSpace, megabytes(uint64(size)), err)
	}
	free, freeErr := c.free()
	if freeErr != nil {
		return errors.Join(err, freeErr)
	}
	return fmt.Errorf("%w: the archive has %s and needs more than the %s that are free: %w", ErrNoSpace, megabytes(uint64(size)), megabytes(free), err)
}

func megabytes(n uint64) string { return fmt.Sprintf("%.1f MB", float64(n)/1e6) }

// meter reports how far a download is, once a second.
type meter struct {
	Progress
	c       *Coordinator
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
	if m.lost = m.c.Check(); m.lost != nil {
		m.d.Stop(m.lost)
		return
	}
	m.Bytes, _ = m.d.Received()
	m.c.options.Progress(m.Progress)
	// For people and for waiting units; no decision rests on it, so that a
	// power cut may have it, and a failure is no reason to give up.
	data, err := json.Marshal(m.Progress)
	if err != nil {
		return
	}
	tmp := m.c.path(progressFile + "." + m.c.unit)
	if err := os.WriteFile(tmp, append(data, '\n'), 0o644); err != nil {
		os.Remove(tmp)
		return
	}
	os.Rename(tmp, m.c.path(progressFile))
}

func (c *Coordinator) progress() (Progress, error) {
	var p Progress
	data, err := os.ReadFile(c.path(progressFile))
	if err != nil {
		return p, err
	}
	return p, json.Unmarshal(data, &p)
}

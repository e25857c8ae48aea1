package coordinator

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/claim"
	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/fetch"
	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/publish"
	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/unpack"
)

// errPublished ends the waiting for a claim that nobody needs any more.
var errPublished = errors.New("published")

// Ensure returns once the release is on the volume, fetching it if no other
// unit does. A release that is there but corrupt is installed again; units may
// run from it, so it goes to quarantine only when the new one is verified, or
// when both do not fit. It may take minutes; cancel ctx to give up. Whatever the
// error, nothing half installed is visible and nothing staged is left.
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
	if err != nil {
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
	if r, err := c.wanted(version); !absent(err) {
		return r, err
	}
	w := waiting{c: c, version: version}
	held, err := claim.Acquire(ctx, c.path(lockFile), c.holder(version), w.look)
	if errors.Is(err, errPublished) {
		return w.release, nil
	}
	if err != nil {
		return Release{}, err
	}
	r, err := c.install(ctx, version, held)
	if releaseErr := held.Release(); releaseErr != nil && err == nil {
		c.options.Log.Warn("cannot release the claim", "error", releaseErr)
	}
	return r, err
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
	// What an earlier life of this unit left.
	if err := c.sweep(func(s staged) bool { return s.unit == c.unit }); err != nil {
		return Release{}, err
	}
	digest := c.digest
	if digest == (fetch.Digest{}) {
		digest, err = c.source.Digest(ctx, version)
		if err != nil && !(errors.Is(err, ErrNoDigest) && c.options.AllowUnverified) {
			return Release{}, err
		}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stream, err := c.source.Open(ctx, version)
	if err != nil {
		return Release{}, err
	}
	defer stream.Close()
	if err := c.room(version, stream.Size); err != nil {
		return Release{}, err
	}
	c.options.Log.Info(fmt.Sprintf("Downloading Concourse binaries v%s from %s", version, stream.URL))

	staging := c.path(stagingDir, fmt.Sprintf("%s.%d.%s", version, held.Generation(), c.unit))
	if err := os.Mkdir(staging, 0o755); err != nil {
		return Release{}, c.full(fmt.Errorf("cannot stage: %w", err), stream.Size)
	}
	m := &meter{
		Progress: Progress{Version: version, State: Downloading, Unit: c.options.Unit, Total: stream.Size, Started: time.Now().UTC()},
		c:        c, cancel: cancel, r: stream,
		sums: map[string]hash.Hash{"sha256": sha256.New()},
	}
	if digest.Algorithm == "sha1" {
		m.sums["sha1"] = digest.New()
	}
	err = c.stage(ctx, staging, m, digest)
	if err == nil {
		r, err = c.publish(staging, version, m, held)
	}
	if removeErr := os.RemoveAll(staging); removeErr != nil && err == nil {
		c.options.Log.Warn("cannot remove the staging tree", "error", removeErr)
	}
	if p, readErr := c.progress(); readErr == nil && p.Unit == c.options.Unit {
		os.Remove(c.path(progressFile))
	}
	if err == nil {
		return r, nil
	}
	// Whatever failed on a volume that is gone, that it is gone is the reason.
	if checkErr := c.Check(); checkErr != nil {
		return Release{}, checkErr
	}
	// Where locks are worth nothing another unit may have published meanwhile,
	// and removed what it took for leftovers.
	if r, lookErr := c.wanted(version); lookErr == nil {
		return r, nil
	}
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return Release{}, c.full(err, stream.Size)
}

// stage downloads, hashes, inflates and writes at the same time.
func (c *Coordinator) stage(ctx context.Context, staging string, m *meter, digest fetch.Digest) error {
	root, err := os.OpenRoot(staging)
	if err != nil {
		return fmt.Errorf("cannot stage: %w", err)
	}
	defer root.Close()
	m.report()
	ahead := readAhead(m)
	m.files, err = unpack.Tree(ctx, ahead, root, unpack.DefaultLimits)
	if err == nil || errors.Is(err, ErrNotArchive) {
		// Bytes that make no sense are most likely not those that were published:
		// the digest knows, and it is the better answer.
		if _, drainErr := io.Copy(io.Discard, io.LimitReader(ahead, unpack.DefaultLimits.Bytes)); drainErr != nil {
			err = drainErr
		}
	}
	if err != nil && !errors.Is(err, ErrNotArchive) {
		m.cancel(err) // or Close would wait for the network
		ahead.Close()
		return err
	}
	ahead.Close()
	if digest != (fetch.Digest{}) {
		if sum := hex.EncodeToString(m.sums[digest.Algorithm].Sum(nil)); sum != digest.Hex {
			return fmt.Errorf("%s: %w: it has %s:%s, expected is %s", m.r.URL, ErrDigest, digest.Algorithm, sum, digest)
		}
	}
	if err != nil {
		return fmt.Errorf("%s: %w", m.r.URL, err)
	}
	for _, f := range m.files {
		if f.Path == "bin/concourse" && f.Mode == 0o555 {
			return nil
		}
	}
	return fmt.Errorf("%s: %w: it has no executable concourse/bin/concourse", m.r.URL, ErrNotArchive)
}

func (c *Coordinator) publish(staging, version string, m *meter, held *claim.Claim) (Release, error) {
	manifest := publish.Manifest{
		Version:     version,
		Digest:      "sha256:" + hex.EncodeToString(m.sums["sha256"].Sum(nil)),
		InstalledBy: c.options.Unit,
		Files:       m.files,
	}
	for _, f := range m.files {
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
	if err := c.quarantine(version); err != nil {
		return Release{}, err
	}
	err = publish.Release(staging, c.path(releasesDir, version), manifest)
	if err != nil && !errors.Is(err, publish.ErrExist) {
		return Release{}, err
	}
	r, checkErr := c.wanted(version)
	if checkErr != nil {
		return Release{}, checkErr
	}
	r.Downloaded = err == nil
	// Nobody needs to go on with this version, whoever began: what is staged
	// for it belongs to the dead, or to someone who will find the release.
	return r, c.sweep(func(s staged) bool { return s.version == version })
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
	if err := os.Rename(path, away); err != nil {
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

// room refuses a download that cannot fit. An unpacked release is larger than
// its archive, by how much nobody knows yet; three times was never seen. Below
// that, what dead units left and what was found corrupt makes room first, and
// last the corrupt release itself.
func (c *Coordinator) room(version string, size int64) error {
	free, err := c.free()
	if err != nil || free >= 3*uint64(size) {
		return err
	}
	if err := c.sweep(func(staged) bool { return true }); err != nil {
		return err
	}
	if _, err := c.removeAll(quarantineDir); err != nil {
		return err
	}
	if free, err = c.free(); err != nil || free >= 3*uint64(size) {
		return err
	}
	if err := c.quarantine(version); err != nil {
		return err
	}
	if _, err := c.removeAll(quarantineDir); err != nil {
		return err
	}
	if free, err = c.free(); err != nil || free >= uint64(size) {
		return err
	}
	return fmt.Errorf("%w: it needs at least %s, %s are free", ErrNoSpace, megabytes(uint64(size)), megabytes(free))
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

// meter counts, hashes and reports what passes.
type meter struct {
	Progress
	c        *Coordinator
	cancel   context.CancelCauseFunc
	r        *fetch.Stream
	sums     map[string]hash.Hash // by algorithm
	reported time.Time
	files    []unpack.File
}

func (m *meter) Read(p []byte) (int, error) {
	n, err := m.r.Read(p)
	for _, h := range m.sums {
		h.Write(p[:n])
	}
	m.Bytes += int64(n)
	if time.Since(m.reported) >= time.Second {
		m.report()
	}
	return n, err
}

// report writes down how far the download is, for the others. It stops the
// download when the volume is no longer there.
func (m *meter) report() {
	m.reported = time.Now()
	if err := m.c.Check(); err != nil {
		m.cancel(err)
		return
	}
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

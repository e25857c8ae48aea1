package coordinator

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/claim"
	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/publish"
)

// ErrNoVolume: a directory is no volume, or there is no such directory.
var ErrNoVolume = errors.New("not a volume")

// Damage is what Verify found wrong with a release, file by file. It is an
// ErrCorrupt.
type Damage = publish.Damage

// Inspection is Report for an operator: with what is wrong and what takes room.
type Inspection struct {
	Report
	Marked   bool              `json:"marked"`             // has Marker: it is shared on purpose
	Previous *Activation       `json:"previous,omitempty"` // what Rollback would activate
	Claim    *claim.Holder     `json:"claim,omitempty"`    // of who downloads, or did when it died
	Damaged  map[string]string `json:"damaged"`            // version -> what the quick check found
	Use      Use               `json:"use"`
}

// Use is what the parts of a volume take on the disk, in bytes. Mounts below
// the volume, which workers make, are not counted.
type Use struct {
	Releases   uint64 `json:"releases"`
	Staging    uint64 `json:"staging"`
	Quarantine uint64 `json:"quarantine"`
	Worker     uint64 `json:"worker"`
}

// Inspect describes the volume at root, whoever asks. It changes nothing there,
// works beside a download, and needs no mount: a copy of a volume will do. An
// error is ErrNoVolume, ErrForeignVolume for an unknown layout, or that of ctx.
func Inspect(ctx context.Context, root string) (Inspection, error) {
	c, err := look(root)
	if err != nil {
		return Inspection{}, err
	}
	v, err := c.enter()
	if err != nil {
		return Inspection{}, fmt.Errorf("cannot inspect %s: %w", c.dir, err)
	}
	defer v.leave()
	i, err := v.examine(ctx)
	if err != nil {
		return Inspection{}, fmt.Errorf("cannot inspect %s: %w", c.dir, err)
	}
	return i, nil
}

// Verify reads every file of a release on the volume at root and compares it
// with the manifest, on all processors. It changes nothing. What differs is a
// *Damage, which is an ErrCorrupt; other errors are ErrNoVolume, ErrForeignVolume
// for an unknown layout, ErrVersion, ErrNotInstalled and that of ctx. progress, unless nil, is told how many bytes
// of how many are compared; it is called by several goroutines, one at a time.
func Verify(ctx context.Context, root, version string, progress func(done, total int64)) error {
	c, err := look(root)
	if err != nil {
		return err
	}
	return c.verify(ctx, version, progress)
}

// Verify is the function Verify for the volume that was opened.
func (c *Coordinator) Verify(ctx context.Context, version string) error {
	return c.verify(ctx, version, nil)
}

func (c *Coordinator) verify(ctx context.Context, version string, progress func(done, total int64)) error {
	version, err := ParseVersion(version)
	if err != nil {
		return fmt.Errorf("cannot verify concourse: %w", err)
	}
	v, err := c.enter()
	if err != nil {
		return fmt.Errorf("cannot verify concourse %s: %w", version, err)
	}
	defer v.leave()
	if _, err := publish.Verify(ctx, v.root, releaseDir(version), progress); err != nil {
		return fmt.Errorf("cannot trust concourse %s: %w", version, err)
	}
	return nil
}

// look returns a Coordinator that must not write: it is no unit.
func look(dir string) (*Coordinator, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("cannot open the volume: %w", err)
	}
	const mean = "name the directory where the units mount it, such as /var/lib/concourse"
	root, err := os.OpenRoot(dir)
	if err != nil {
		if info, statErr := os.Stat(dir); statErr == nil && !info.IsDir() {
			return nil, fmt.Errorf("%s is %w but a file: %s", dir, ErrNoVolume, mean)
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("%s is %w: there is no such directory: %s", dir, ErrNoVolume, mean)
		}
		return nil, fmt.Errorf("cannot open the volume: %w", err)
	}
	defer root.Close()
	id, err := identify(root)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s is %w: it has no %s: %s", dir, ErrNoVolume, volumeFile, mean)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot open %s: %w", dir, err)
	}
	return &Coordinator{dir: dir, id: id}, nil
}

func (v *volume) examine(ctx context.Context) (Inspection, error) {
	report, err := v.inspect(ctx)
	if err != nil {
		return Inspection{}, err
	}
	i := Inspection{Report: report, Damaged: map[string]string{}}
	_, err = v.root.Stat(Marker)
	i.Marked = err == nil
	if _, before, err := v.log(); err == nil && before.Generation > 0 {
		i.Previous = &before
	} else if err != nil && !incomplete(err) {
		return Inspection{}, err
	}
	if holder, err := v.claims().Holder(); err == nil && holder.Unit != "" {
		i.Claim = &holder
	}
	versions, err := v.versions()
	if err != nil && !incomplete(err) {
		return Inspection{}, err
	}
	for _, version := range versions {
		if _, err := v.release(version); errors.Is(err, ErrCorrupt) {
			i.Damaged[version] = err.Error()
		}
	}
	for dir, sum := range map[string]*uint64{
		releasesDir: &i.Use.Releases, stagingDir: &i.Use.Staging, quarantineDir: &i.Use.Quarantine, workerDir: &i.Use.Worker,
	} {
		if *sum, err = v.use(ctx, dir); err != nil {
			return Inspection{}, err
		}
	}
	return i, nil
}

// incomplete tells whether an error only says that nothing was done yet on a
// volume: a directory or an entry that comes later is not there.
func incomplete(err error) bool {
	return errors.Is(err, ErrNotActivated) || errors.Is(err, fs.ErrNotExist)
}

// use returns the bytes allocated to what is below a directory, while others
// add to it and take away from it.
func (v *volume) use(ctx context.Context, dir string) (uint64, error) {
	var sum uint64
	var device uint64
	err := fs.WalkDir(v.root.FS(), dir, func(name string, d fs.DirEntry, err error) error {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		var info fs.FileInfo
		if err == nil {
			info, err = d.Info()
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		stat := info.Sys().(*syscall.Stat_t)
		if name == dir {
			device = stat.Dev
		} else if stat.Dev != device {
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		sum += uint64(stat.Blocks) * 512
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("cannot measure %s: %w", filepath.Join(v.dir, dir), err)
	}
	return sum, nil
}

// Inspect describes the volume. Only releases that pass the quick check are
// listed. It changes nothing, and works beside a download.
func (c *Coordinator) Inspect(ctx context.Context) (Report, error) {
	v, err := c.enter()
	if err != nil {
		return Report{}, fmt.Errorf("cannot inspect %s: %w", c.dir, err)
	}
	defer v.leave()
	r, err := v.inspect(ctx)
	if err != nil {
		return Report{}, fmt.Errorf("cannot inspect %s: %w", c.dir, err)
	}
	return r, nil
}

func (v *volume) inspect(ctx context.Context) (Report, error) {
	r := Report{Root: v.dir, VolumeID: v.id, Releases: []Release{}, Pins: map[string]string{}}
	current, err := v.current()
	if err == nil {
		r.Current = &current
	} else if !incomplete(err) {
		return Report{}, err
	}
	versions, err := v.versions()
	if err != nil && !incomplete(err) {
		return Report{}, err
	}
	for _, version := range versions {
		if err := ctx.Err(); err != nil {
			return Report{}, err
		}
		release, err := v.release(version)
		if err == nil {
			r.Releases = append(r.Releases, release)
		} else if !absent(err) {
			return Report{}, err
		}
	}
	if holder, err := claim.Read(v.root, lockFile); err == nil {
		r.Holder = holder.Unit
	}
	if p, err := v.progress(); err == nil && p.Unit == r.Holder {
		r.Progress = &p
	}
	pins, err := v.pins()
	if err != nil && !incomplete(err) {
		return Report{}, err
	}
	if r.Probes, err = v.probes(); err != nil {
		return Report{}, err
	}
	for name, version := range pins {
		if !strings.Contains(name, ".") {
			r.Pins[name] = version
		}
	}
	if r.Free, err = v.free(); err != nil {
		return Report{}, err
	}
	return r, nil
}

package coordinator

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/claim"
	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/durable"
	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/mount"
	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/publish"
	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/probe"
)

// View reads a volume, for whoever asks: who uses it need be no unit. It changes
// nothing, and works beside a download. It is safe for concurrent use and needs no
// closing. Errors of its methods are *Error, and may be ErrHung or ErrForeignVolume
// beside what each method lists.
type View struct {
	dir     string // where the volume is mounted
	mount   *mount.Mount
	product Product
	id      string
	marker  string // demanded; empty for none
	owner   string
}

// Look returns a View of the volume at root, which need not be mounted there: a copy
// of a volume will do. Errors are ErrNoVolume, ErrForeignVolume for a newer layout,
// ErrHung, and ErrOptions for a product that cannot be meant.
func Look(ctx context.Context, root string, p Product) (*View, error) {
	dir, err := filepath.Abs(root)
	if err == nil {
		err = p.check()
	}
	v := &View{dir: dir, mount: mount.At(dir), product: p}
	found, err := read(ctx, v, task{doing: "look at", what: root, err: err}, func(_ context.Context, in *volume) (identity, error) {
		return identify(in.root)
	})
	if err != nil {
		return nil, err
	}
	v.id = found.ID
	return v, nil
}

// noVolume says in plain words why a directory cannot be opened.
func noVolume(dir string, err error) error {
	if info, statErr := os.Stat(dir); statErr == nil && !info.IsDir() {
		return fmt.Errorf("%w but a file: name the directory where the units mount it", ErrNoVolume)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: there is no such directory: name the one where the units mount it", ErrNoVolume)
	}
	return err
}

// Current returns the release that the units of this volume should run. The
// error is ErrNotActivated while there is none.
func (v *View) Current(ctx context.Context) (Activation, error) {
	return read(ctx, v, task{doing: "tell the current release of", what: v.dir}, func(_ context.Context, in *volume) (Activation, error) {
		return in.current()
	})
}

// Installed returns a release after a quick check of names, sizes and modes.
// Errors are ErrVersion, ErrNotInstalled and ErrCorrupt.
func (v *View) Installed(ctx context.Context, version string) (Release, error) {
	t := v.about("use", version)
	return read(ctx, v, t, func(_ context.Context, in *volume) (Release, error) {
		r, _, err := in.release(t.version)
		return r, err
	})
}

// Damage is what Verify found wrong with a release, file by file. It is an
// ErrCorrupt.
type Damage = publish.Damage

// Verify reads every file of a release and compares it with the manifest, on all
// processors. What differs is a *Damage, which is an ErrCorrupt, and which
// Coordinator.Reinstall mends; other errors are ErrVersion and ErrNotInstalled.
// progress, unless nil, is told how many bytes of how many are compared; it is called
// by several goroutines, one at a time.
func (v *View) Verify(ctx context.Context, version string, progress func(done, total int64)) error {
	t := v.about("trust", version)
	_, err := read(ctx, v, t, func(ctx context.Context, in *volume) (entry, error) {
		p, err := in.place(t.version)
		if err == nil {
			_, err = publish.Verify(ctx, in.root, p.dir(), t.version, progress)
		}
		return p, err
	})
	return err
}

// Inspection is what Inspect finds on a volume.
type Inspection struct {
	Root     string `json:"root"`
	VolumeID string `json:"volume_id"`
	Owner    string `json:"owner,omitempty"`
	Layout   int    `json:"layout"`
	Free     uint64 `json:"free_bytes"`
	Use      Space  `json:"use"`

	Current  *Activation `json:"current"`
	Previous *Activation `json:"previous,omitempty"` // what Rollback would activate
	Releases []Release   `json:"releases"`           // those that pass the quick check
	// Replaced are entries of the store to which no release leads any more, or does not
	// yet, such as "7.14.3.5". Collect removes those that no unit has pinned.
	Replaced []string `json:"replaced"`
	// Damaged are files, as paths below the root, or versions of releases, each with
	// what is wrong.
	Damaged map[string]string `json:"damaged"`
	// Pins are what units have pinned, by unit as a file name ("ci-0"): an entry of the
	// store.
	Pins map[string]string `json:"pins"`

	Progress *Progress `json:"progress,omitempty"` // a download under way
	// Claims are who downloads what, or did when it died.
	Claims []claim.Holder `json:"claims"`
	// Failures are what could not be installed, by version.
	Failures map[string]string `json:"failures"`
	// Probes are what units have found out about their mounts, see Coordinator.Probe,
	// by unit as a file name.
	Probes map[string]probe.Result `json:"probes"`
}

// Space is what the parts of a volume take on the disk, in bytes. Mounts below
// the volume, which workers make, are not counted.
type Space struct {
	Store   uint64 `json:"store"`
	Staging uint64 `json:"staging"`
	Worker  uint64 `json:"worker"`
}

// Inspect describes the volume for an operator: with what is wrong and what takes
// room.
func (v *View) Inspect(ctx context.Context) (Inspection, error) {
	return read(ctx, v, task{doing: "inspect", what: v.dir}, func(ctx context.Context, in *volume) (Inspection, error) {
		return in.inspect(ctx)
	})
}

func (v *volume) inspect(ctx context.Context) (Inspection, error) {
	known, err := identify(v.root)
	if err != nil {
		return Inspection{}, err
	}
	i := Inspection{
		Root: v.view.dir, VolumeID: known.ID, Owner: known.Owner, Layout: known.Layout,
		Releases: []Release{}, Replaced: []string{}, Damaged: map[string]string{}, Pins: map[string]string{},
		Claims: []claim.Holder{}, Failures: map[string]string{}, Probes: map[string]probe.Result{},
	}
	for _, part := range []func(context.Context, *Inspection) error{
		v.inspectReleases, v.inspectLog, v.inspectPins, v.inspectDownloads, v.inspectProbes, v.inspectSpace,
	} {
		// What is not there yet is no error: somebody may have just made the volume.
		if err := part(ctx, &i); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return Inspection{}, err
		}
	}
	return i, nil
}

func (v *volume) inspectReleases(ctx context.Context, i *Inspection) error {
	versions, err := v.versions()
	entries, storeErr := v.entries()
	linked := map[entry]bool{}
	for _, version := range versions {
		if err := ctx.Err(); err != nil {
			return err
		}
		release, p, err := v.release(version)
		linked[p] = true
		if err == nil {
			i.Releases = append(i.Releases, release)
		} else {
			i.Damaged[version] = err.Error()
		}
	}
	for _, e := range entries {
		if !linked[e] {
			i.Replaced = append(i.Replaced, e.String())
		}
	}
	return errors.Join(err, storeErr)
}

func (v *volume) inspectLog(_ context.Context, i *Inspection) error {
	h, err := v.history()
	for _, file := range h.damaged {
		i.Damaged[file] = "the activation cannot be read and is passed over: remove the file"
	}
	if h.current.Generation > 0 {
		i.Current = &h.current
	}
	if h.before.Generation > 0 {
		i.Previous = &h.before
	}
	return err
}

func (v *volume) inspectPins(_ context.Context, i *Inspection) error {
	pins, err := v.pins()
	if errors.Is(err, ErrDamaged) {
		i.Damaged[pinsDir], err = err.Error(), nil
	}
	for name, entries := range pins {
		if !strings.Contains(name, ".") {
			i.Pins[name] = entries[0].String()
		}
	}
	return err
}

func (v *volume) inspectDownloads(_ context.Context, i *Inspection) error {
	versions, err := durable.Names(v.root, claimsDir)
	if err != nil {
		return err
	}
	slices.Sort(versions)
	for _, version := range versions {
		log := claim.Log{Root: v.root, Dir: path.Join(claimsDir, version)}
		if durable.NotDir(v.root, log.Dir) {
			continue // a pipe would not open
		}
		if holder, err := log.Holder(); err == nil && holder.Unit != "" {
			i.Claims = append(i.Claims, holder)
		}
	}
	if p, err := v.progress(); err == nil {
		downloads := func(h claim.Holder) bool { return h.Unit == p.Unit && h.Version == p.Version }
		if slices.ContainsFunc(i.Claims, downloads) {
			i.Progress = &p
		}
	}
	notes, err := durable.Names(v.root, failuresDir)
	for _, name := range notes {
		if f, ok := v.failure(path.Join(failuresDir, name)); ok {
			version, _ := cutLast(name)
			i.Failures[version] = f.Message
		}
	}
	return err
}

func (v *volume) inspectProbes(_ context.Context, i *Inspection) error {
	units, err := durable.Names(v.root, probesDir)
	for _, unit := range units {
		if strings.HasPrefix(unit, ".") {
			continue // not named yet
		}
		if p, err := v.readProbe(unit); err == nil {
			i.Probes[unit] = p.Result
		}
	}
	return err
}

func (v *volume) inspectSpace(ctx context.Context, i *Inspection) error {
	free, err := v.room()
	i.Free = free.bytes
	for dir, sum := range map[string]*uint64{storeDir: &i.Use.Store, stagingDir: &i.Use.Staging, workerDir: &i.Use.Worker} {
		if err == nil {
			*sum, err = v.use(ctx, dir)
		}
	}
	return err
}

// use returns the bytes allocated to what is below a directory, while others
// add to it and take away from it.
func (v *volume) use(ctx context.Context, dir string) (uint64, error) {
	var sum, device uint64
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
		}
		switch {
		case stat.Dev == device:
			sum += uint64(stat.Blocks) * 512
		case d.IsDir():
			return fs.SkipDir
		}
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("cannot measure %s: %w", filepath.Join(v.view.dir, dir), err)
	}
	return sum, nil
}

// sorted returns what parse makes of the names that it accepts, in order.
func sorted[T any](found []string, parse func(string) (T, bool)) []T {
	slices.Sort(found)
	var all []T
	for _, name := range found {
		if value, ok := parse(name); ok {
			all = append(all, value)
		}
	}
	return all
}

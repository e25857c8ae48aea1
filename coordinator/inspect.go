package coordinator

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/claim"
	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/durable"
	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/probe"
)

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
	return read(ctx, v, "inspect", v.dir, func(ctx context.Context, in *volume) (Inspection, error) { return in.inspect(ctx) })
}

func (v *volume) inspect(ctx context.Context) (Inspection, error) {
	known, err := identify(v.root)
	if err != nil {
		return Inspection{}, err
	}
	i := Inspection{
		Root: v.view.dir, VolumeID: known.ID, Owner: known.Owner, Layout: known.Layout,
		Releases: []Release{}, Replaced: []string{}, Damaged: map[string]string{}, Pins: map[string]string{},
		Claims: []claim.Holder{}, Failures: map[string]string{},
	}
	// What is not there yet is no error: somebody may have just made the volume.
	missing := func(err error) error {
		if incomplete(err) {
			return nil
		}
		return err
	}
	free, err := v.room()
	i.Free = free.bytes
	if err == nil {
		err = missing(v.inspectReleases(ctx, &i))
	}
	if err == nil {
		err = missing(v.inspectLog(&i))
	}
	if err == nil {
		err = missing(v.inspectPins(&i))
	}
	if err == nil {
		err = missing(v.inspectDownloads(&i))
	}
	if err == nil {
		i.Probes, err = v.probes()
	}
	for dir, sum := range map[string]*uint64{storeDir: &i.Use.Store, stagingDir: &i.Use.Staging, workerDir: &i.Use.Worker} {
		if err == nil {
			*sum, err = v.use(ctx, dir)
		}
	}
	if err != nil {
		return Inspection{}, err
	}
	return i, nil
}

func (v *volume) inspectReleases(ctx context.Context, i *Inspection) error {
	versions, err := v.versions()
	if err != nil {
		return err
	}
	linked := map[entry]bool{}
	for _, version := range versions {
		if err := ctx.Err(); err != nil {
			return err
		}
		release, p, err := v.release(version)
		linked[p.entry] = true
		switch {
		case err == nil:
			i.Releases = append(i.Releases, release)
		default:
			i.Damaged[version] = err.Error()
		}
	}
	entries, err := v.entries()
	for _, e := range entries {
		if !linked[e] {
			i.Replaced = append(i.Replaced, e.String())
		}
	}
	return err
}

func (v *volume) inspectLog(i *Inspection) error {
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

func (v *volume) inspectPins(i *Inspection) error {
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

func (v *volume) inspectDownloads(i *Inspection) error {
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
	if p, err := v.progress(); err == nil && slices.ContainsFunc(i.Claims, func(h claim.Holder) bool { return h.Unit == p.Unit && h.Version == p.Version }) {
		i.Progress = &p
	}
	notes, err := durable.Names(v.root, failuresDir)
	for _, name := range notes {
		if f, ok := v.failure(path.Join(failuresDir, name)); ok {
			i.Failures[strings.TrimSuffix(name, path.Ext(name))] = f.Message
		}
	}
	return err
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

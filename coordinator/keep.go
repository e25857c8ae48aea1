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
	"strings"
	"time"

	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/claim"
	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/durable"
	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/publish"
	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/probe"
)

// Who needs a release and who removes it agree without a lock, as follows. A
// collector first makes the directory into which it will move what it removes,
// then reads the pins and the log, and then moves. Who needs a release first
// pins it, then blocks its place in every such directory that it finds, and then
// looks whether the release is there. A move to where something is fails. So
// either the collector sees the pin, or its move fails, or who pins sees that the
// release is gone - whoever is paused or dies at whatever point, see
// internal/model.

// collecting begins the name of a collector's directory below staging/.
const collecting = "collecting-"

// Pin keeps the release this unit runs from being collected; it replaces the
// unit's earlier pin. Pin before the release is started: an error
// (ErrNotInstalled, ErrCorrupt, ErrNoSpace, those of Check) says that it must not
// be, and leaves the earlier pin as it is.
func (c *Coordinator) Pin(version string) error {
	version, err := ParseVersion(version)
	if err != nil {
		return fmt.Errorf("cannot pin concourse: %w", err)
	}
	err = c.within(func(v *volume) error { return v.pin(version) })
	if err != nil {
		return fmt.Errorf("cannot pin concourse %s: %w%s", version, err, remedy(err))
	}
	return nil
}

func (v *volume) pin(version string) error {
	name, line := path.Join(pinsDir, v.unit), version+"\n"
	if old, err := v.root.ReadFile(name); err == nil && string(old) == line {
		_, err := v.release(version)
		return err
	}
	release, err := v.hold(version)
	if err != nil {
		return err
	}
	defer release()
	return durable.Replace(v.root, name, []byte(line))
}

// hold pins a release for the time of a call, beside what the unit has pinned,
// and makes sure that it is there.
func (v *volume) hold(version string) (release func(), err error) {
	if _, err := v.release(version); err != nil {
		return nil, err
	}
	if err := v.check(); err != nil {
		return nil, err
	}
	v.dropHolds()
	name := path.Join(pinsDir, fmt.Sprintf("%s.%d.%s", v.unit, os.Getpid(), rand.Text()))
	if err := durable.Replace(v.root, name, []byte(version+"\n")); err != nil {
		return nil, err
	}
	release = func() { v.root.Remove(name) }
	err = v.callOff(version)
	if err == nil {
		v.at("held", 0)
		_, err = v.release(version)
	}
	if err != nil {
		release()
		return nil, err
	}
	return release, nil
}

// dropHolds removes what processes of this unit held when they died.
func (v *volume) dropHolds() {
	names, err := durable.Names(v.root, pinsDir)
	if err != nil {
		return // nothing depends on it
	}
	for _, name := range names {
		parts := strings.Split(name, ".") // UNIT.PID.RANDOM
		if len(parts) != 3 || parts[0] != v.unit {
			continue
		}
		if _, err := os.Stat(filepath.Join("/proc", parts[1])); errors.Is(err, fs.ErrNotExist) {
			v.root.Remove(path.Join(pinsDir, name))
		}
	}
}

// callOff keeps all collectors that may not have seen a pin from moving the
// release.
func (v *volume) callOff(version string) error {
	names, err := durable.Names(v.root, stagingDir)
	if err != nil {
		return fmt.Errorf("cannot look for collectors: %w", err)
	}
	for _, name := range names {
		if !strings.HasPrefix(name, collecting) {
			continue
		}
		// A directory that is not empty cannot be replaced. If the release is there
		// by now, this changes nothing but what is about to be removed; and if the
		// collector is done, or fenced off, its directory is gone and must not be
		// made again.
		place := path.Join(stagingDir, name, version)
		for _, dir := range []string{place, path.Join(place, "pinned")} {
			if err := v.root.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrExist) {
				return fmt.Errorf("cannot call off a collection: %w", err)
			}
		}
	}
	return nil
}

// pins returns the versions by the name of the pin. That is a unit's, or, with
// more behind a dot, that of a call under way.
func (v *volume) pins() (map[string]string, error) {
	names, err := durable.Names(v.root, pinsDir)
	if err != nil {
		return nil, fmt.Errorf("cannot read the pins: %w", err)
	}
	pins := map[string]string{}
	for _, name := range names {
		if strings.HasPrefix(name, ".") {
			continue // not named yet
		}
		data, err := v.root.ReadFile(path.Join(pinsDir, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue // dropped just now, by a call or by a unit that has left
		}
		if err != nil {
			return nil, fmt.Errorf("cannot read the pins: %w", err)
		}
		pins[name] = strings.TrimSpace(string(data))
	}
	return pins, nil
}

// kept returns those versions that Collect must leave. With no activation that
// is every one: nobody has chosen yet. The pins come first: who activates a
// release holds it until it is in the log. They are read twice: who pins a release
// for good drops the hold of the call then, and one look may come too early for
// the one name and too late for the other.
func (v *volume) kept(versions []string) (map[string]bool, error) {
	keep := map[string]bool{}
	for range 2 {
		pins, err := v.pins()
		if err != nil {
			return nil, err
		}
		for _, version := range pins {
			keep[version] = true
		}
		v.at("pins", 0)
	}
	current, before, err := v.log()
	if err != nil && !errors.Is(err, ErrNotActivated) {
		return nil, err
	}
	keep[current.Version], keep[before.Version] = true, true
	for _, version := range versions {
		// Installed since the current one was activated: an upgrade to it is
		// under way, and must not have to download it again.
		if m, err := publish.Read(v.root, releaseDir(version)); err == nil && m.Generation >= current.Generation {
			keep[version] = true
		}
	}
	return keep, nil
}

// Collect removes what is neither current, previous, pinned nor in flight, and
// returns what it removed, as paths below the root. While another unit
// downloads it removes nothing and returns ErrHeld.
func (c *Coordinator) Collect(ctx context.Context) ([]string, error) {
	var removed []string
	err := c.within(func(v *volume) (err error) {
		removed, err = v.collect(ctx)
		return err
	})
	if errors.Is(err, claim.ErrFenced) {
		err = fmt.Errorf("%w: %w", ErrHeld, err)
	}
	if err != nil {
		return removed, fmt.Errorf("cannot collect old releases: %w", err)
	}
	return removed, nil
}

func (v *volume) collect(ctx context.Context) (removed []string, err error) {
	held, err := v.claims().Try(ctx, v.holder(""))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, held.Release()) }()

	// What is staged belongs to the dead only while this is the holder.
	if err := held.Check(); err != nil {
		return nil, err
	}
	for _, dir := range []string{stagingDir, quarantineDir} {
		gone, err := v.removeAll(dir)
		removed = append(removed, gone...)
		if err != nil {
			return removed, err
		}
	}
	// The claim is held, so nobody downloads, whatever a dead unit wrote down.
	v.root.Remove(progressFile)
	if err := v.removeProbes(); err != nil {
		return removed, err
	}
	releases, err := v.collectReleases(ctx, held)
	return append(removed, releases...), err
}

// removeProbes removes what probes that hung could not.
func (v *volume) removeProbes() error {
	names, err := durable.Names(v.root, ".")
	if err != nil {
		return fmt.Errorf("cannot list the volume: %w", err)
	}
	for _, name := range names {
		if strings.HasPrefix(name, probe.Prefix) {
			if err := v.discard(name); err != nil {
				return fmt.Errorf("cannot remove %s: %w", name, err)
			}
		}
	}
	return nil
}

func (v *volume) collectReleases(ctx context.Context, held *claim.Claim) (removed []string, err error) {
	generation := held.Generation()
	versions, err := v.versions()
	if err != nil {
		return nil, err
	}
	unwanted := func() ([]string, error) {
		keep, err := v.kept(versions)
		return slices.DeleteFunc(slices.Clone(versions), func(version string) bool { return keep[version] }), err
	}
	// Mostly there is nothing to do.
	if old, err := unwanted(); err != nil || len(old) == 0 {
		return nil, err
	}
	away := path.Join(stagingDir, fmt.Sprintf("%s%d", collecting, generation))
	if err := durable.Mkdir(v.root, away, 0o755); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, v.discard(away)) }()
	v.at("collecting", generation)
	if !durable.Local(v.root) {
		// Until a pin shows whose unit has not seen the directory, and until the
		// directory shows to who pins after that.
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(2 * durable.Settle):
		}
	}
	old, err := unwanted()
	if err != nil {
		return nil, err
	}
	for _, version := range old {
		if err := ctx.Err(); err != nil {
			return removed, err
		}
		if err := errors.Join(v.check(), held.Check()); err != nil {
			return removed, err
		}
		v.at("collect", generation)
		// In one step: a release is whole or absent.
		err := durable.Rename(v.root, releaseDir(version), path.Join(away, version))
		if errors.Is(err, fs.ErrExist) || errors.Is(err, fs.ErrNotExist) {
			continue // called off, or somebody else collects in this one's place
		}
		if err != nil {
			return removed, err
		}
		removed = append(removed, releaseDir(version))
	}
	return removed, nil
}

// versions lists what is in releases/, sound or not.
func (v *volume) versions() ([]string, error) {
	names, err := durable.Names(v.root, releasesDir)
	if err != nil {
		return nil, fmt.Errorf("cannot list the releases: %w", err)
	}
	slices.Sort(names)
	return slices.DeleteFunc(names, func(name string) bool {
		version, err := ParseVersion(name)
		return err != nil || version != name
	}), nil
}

// WorkerDir makes, and returns, the directory for this unit's own state:
// ROOT/worker/APP-N. Nobody but root can list it, but all can pass (mode 0711):
// the root of a build's user namespace reaches its file system through it.
// Errors are those of Check.
func (c *Coordinator) WorkerDir() (string, error) {
	dir := path.Join(workerDir, c.unit)
	err := c.within(func(v *volume) error {
		// Mkdir leaves one that is there as it is, with whatever mode.
		return errors.Join(durable.Mkdir(v.root, dir, 0o711), v.root.Chmod(dir, 0o711))
	})
	if err != nil {
		return "", fmt.Errorf("cannot make the worker's directory: %w", err)
	}
	return filepath.Join(c.dir, dir), nil
}

// Leave removes this unit's pin, its worker directory, what it has noted about its
// mount and what it has staged: the unit goes away for good. Errors are those of Check.
func (c *Coordinator) Leave() error {
	if err := c.within((*volume).forget); err != nil {
		return fmt.Errorf("cannot leave the volume: %w", err)
	}
	return nil
}

func (v *volume) forget() error {
	names, err := durable.Names(v.root, pinsDir)
	if err != nil {
		return fmt.Errorf("cannot read the pins: %w", err)
	}
	for _, name := range names {
		if unit, _, _ := strings.Cut(name, "."); unit == v.unit {
			err = errors.Join(err, v.root.RemoveAll(path.Join(pinsDir, name)))
		}
	}
	return errors.Join(
		err,
		v.root.RemoveAll(path.Join(probesDir, v.unit)),
		v.root.RemoveAll(path.Join(workerDir, v.unit)),
		v.sweep(func(s staged) bool { return s.unit == v.unit }),
	)
}

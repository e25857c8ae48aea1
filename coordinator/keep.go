package coordinator

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/durable"
	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/publish"
)

// Pin keeps the release this unit runs from being collected; it replaces the
// unit's earlier pin. Pin before the release is started: an error
// (ErrNotInstalled, ErrCorrupt) says that it must not be.
func (c *Coordinator) Pin(version string) error {
	v, err := ParseVersion(version)
	if err != nil {
		return fmt.Errorf("cannot pin concourse: %w", err)
	}
	if err := c.Check(); err != nil {
		return fmt.Errorf("cannot pin concourse %s: %w", v, err)
	}
	path := c.path(pinsDir, c.unit)
	if old, err := os.ReadFile(path); err != nil || string(old) != v+"\n" {
		if err := durable.Replace(path, []byte(v+"\n")); err != nil {
			return fmt.Errorf("cannot pin concourse %s: %w", v, err)
		}
	}
	// After the pin, not before: Collect takes a release away first and looks at
	// the pins then, so that one of the two sees the other.
	if _, err := c.release(v); err != nil {
		return fmt.Errorf("cannot pin concourse %s: %w", v, err)
	}
	return nil
}

func (c *Coordinator) pins() (map[string]string, error) {
	entries, err := os.ReadDir(c.path(pinsDir))
	if err != nil {
		return nil, fmt.Errorf("cannot read the pins: %w", err)
	}
	pins := map[string]string{}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") {
			continue // not named yet
		}
		data, err := os.ReadFile(c.path(pinsDir, e.Name()))
		if errors.Is(err, fs.ErrNotExist) {
			continue // its unit has just left
		}
		if err != nil {
			return nil, fmt.Errorf("cannot read the pins: %w", err)
		}
		pins[e.Name()] = strings.TrimSpace(string(data))
	}
	return pins, nil
}

// kept returns those versions that Collect must leave. With no activation that
// is every one: nobody has chosen yet.
func (c *Coordinator) kept(versions []string) (map[string]bool, error) {
	pins, err := c.pins()
	if err != nil {
		return nil, err
	}
	keep := map[string]bool{}
	for _, v := range pins {
		keep[v] = true
	}
	before, err := c.previous()
	if err == nil {
		keep[before.Version] = true
	} else if !errors.Is(err, ErrNotActivated) {
		return nil, err
	}
	current, err := c.Current()
	if err != nil && !errors.Is(err, ErrNotActivated) {
		return nil, err
	}
	for _, v := range versions {
		// Installed since the current one was activated: an upgrade to it is
		// under way, and must not have to download it again.
		if m, err := publish.Read(c.path(releasesDir, v)); err == nil && m.Generation >= current.Generation {
			keep[v] = true
		}
	}
	keep[current.Version] = true
	return keep, nil
}

// Collect removes what is neither current, previous, pinned nor in flight, and
// returns what it removed, as paths below the root. While another unit
// downloads it removes nothing and returns ErrHeld.
func (c *Coordinator) Collect(ctx context.Context) ([]string, error) {
	removed, err := c.collect(ctx)
	if err != nil {
		return removed, fmt.Errorf("cannot collect old releases: %w", err)
	}
	return removed, nil
}

func (c *Coordinator) collect(ctx context.Context) (removed []string, err error) {
	if err := c.Check(); err != nil {
		return nil, err
	}
	held, err := c.claims().Try(ctx, c.holder(""))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, held.Release()) }()

	for _, dir := range []string{stagingDir, quarantineDir} {
		gone, err := c.removeAll(dir)
		removed = append(removed, gone...)
		if err != nil {
			return removed, err
		}
	}
	// The claim is held, so nobody downloads, whatever a dead unit wrote down.
	os.Remove(c.path(progressFile))
	versions, err := c.versions()
	if err != nil {
		return removed, err
	}
	keep, err := c.kept(versions)
	if err != nil {
		return removed, err
	}
	for _, v := range versions {
		if err := ctx.Err(); err != nil {
			return removed, err
		}
		if keep[v] {
			continue
		}
		// Out of sight first, in one step: a release is whole or absent.
		away := c.path(stagingDir, "collected-"+v)
		if err := durable.Rename(c.path(releasesDir, v), away); err != nil {
			return removed, err
		}
		again, err := c.kept(nil)
		if err != nil || again[v] {
			// Pinned or activated in the meantime.
			if err := errors.Join(err, durable.Rename(away, c.path(releasesDir, v))); err != nil {
				return removed, err
			}
			continue
		}
		if err := os.RemoveAll(away); err != nil {
			return removed, err
		}
		removed = append(removed, filepath.Join(releasesDir, v))
	}
	return removed, nil
}

// versions lists what is in releases/, sound or not.
func (c *Coordinator) versions() ([]string, error) {
	entries, err := os.ReadDir(c.path(releasesDir))
	if err != nil {
		return nil, fmt.Errorf("cannot list the releases: %w", err)
	}
	var found []string
	for _, e := range entries {
		if v, err := ParseVersion(e.Name()); err == nil && v == e.Name() {
			found = append(found, v)
		}
	}
	return found, nil
}

// WorkerDir makes, and returns, the directory for this unit's own state:
// ROOT/worker/APP-N. Nobody but root can list it, but all can pass (mode 0711):
// the root of a build's user namespace reaches its file system through it.
func (c *Coordinator) WorkerDir() (string, error) {
	if err := c.Check(); err != nil {
		return "", fmt.Errorf("cannot make the worker's directory: %w", err)
	}
	dir := c.path(workerDir, c.unit)
	// Mkdir leaves one that is there as it is, with whatever mode.
	if err := errors.Join(durable.Mkdir(dir, 0o711), os.Chmod(dir, 0o711)); err != nil {
		return "", fmt.Errorf("cannot make the worker's directory: %w", err)
	}
	return dir, nil
}

// Leave removes this unit's pin, its worker directory and what it has staged:
// the unit goes away for good.
func (c *Coordinator) Leave() error {
	if err := c.Check(); err != nil {
		return fmt.Errorf("cannot leave the volume: %w", err)
	}
	err := errors.Join(
		os.RemoveAll(c.path(pinsDir, c.unit)),
		os.RemoveAll(c.path(workerDir, c.unit)),
		c.sweep(func(s staged) bool { return s.unit == c.unit }),
	)
	if err != nil {
		return fmt.Errorf("cannot leave the volume: %w", err)
	}
	return nil
}

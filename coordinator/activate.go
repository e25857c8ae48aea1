package coordinator

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/durable"
)

// Activate makes an installed release the current one: an entry in the log of
// activations, and after it the names derived from it, bin and
// .installed_version. If the release is current already, it only repairs those
// names. When several units activate at once, the highest generation counts.
// It needs no claim, so that a rollback need not wait for a download: the log
// puts activations in order by itself.
//
// Errors are ErrNoSpace, and those of Installed and of Check.
func (c *Coordinator) Activate(ctx context.Context, version string) (Activation, error) {
	v, err := ParseVersion(version)
	if err != nil {
		return Activation{}, fmt.Errorf("cannot activate concourse: %w", err)
	}
	a, err := c.activate(ctx, v)
	err = c.reason(err)
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		err = fmt.Errorf("%w: %w: enlarge it or remove what is not needed", ErrNoSpace, err)
	}
	if err != nil {
		return Activation{}, fmt.Errorf("cannot activate concourse %s: %w", v, err)
	}
	return a, nil
}

func (c *Coordinator) activate(ctx context.Context, version string) (Activation, error) {
	for pause := time.Millisecond; ; pause = min(2*pause, time.Second) {
		if err := ctx.Err(); err != nil {
			return Activation{}, err
		}
		if err := c.Check(); err != nil {
			return Activation{}, err
		}
		if _, err := c.release(version); err != nil {
			return Activation{}, err
		}
		current, err := c.Current()
		if err != nil && !errors.Is(err, ErrNotActivated) {
			return Activation{}, err
		}
		if current.Version == version {
			return current, c.derive()
		}
		c.at("activate", current.Generation+1)
		next := Activation{Generation: current.Generation + 1, Version: version, Unit: c.options.Unit}
		data, err := json.Marshal(next)
		if err != nil {
			return Activation{}, err
		}
		err = durable.Create(c.path(activationsDir, strconv.Itoa(next.Generation)), append(data, '\n'))
		if errors.Is(err, fs.ErrExist) {
			// Another unit has this generation: look again, until its entry shows.
			time.Sleep(rand.N(pause))
			continue
		}
		if err != nil {
			return Activation{}, err
		}
		c.at("activated", next.Generation)
		return next, c.derive()
	}
}

// derive brings bin and .installed_version in line with the log. Two units may
// do that at once with different views: whoever writes last has read the log
// after writing, so that the names end up right.
func (c *Coordinator) derive() error {
	for {
		a, err := c.Current()
		if err != nil {
			return err
		}
		if err := durable.Symlink(filepath.Join(releasesDir, a.Version, "bin"), c.path(binLink)); err != nil {
			return err
		}
		c.at("linked", a.Generation)
		line := a.Version + "\n"
		if old, err := os.ReadFile(c.path(installedFile)); err != nil || string(old) != line {
			if err := durable.Replace(c.path(installedFile), []byte(line)); err != nil {
				return err
			}
		}
		if again, err := c.Current(); err != nil || again == a {
			return err
		}
	}
}

// Current returns the release that the units of this volume should run. The
// error is ErrNotActivated while there is none.
func (c *Coordinator) Current() (Activation, error) {
	last, err := c.lastGeneration()
	if err != nil {
		return Activation{}, err
	}
	if last == 0 {
		return Activation{}, fmt.Errorf("%s: %w", c.root, ErrNotActivated)
	}
	return c.activation(last)
}

// Rollback activates the release that was current before, without a download.
// Errors are ErrNotActivated if there is none, and those of Activate.
func (c *Coordinator) Rollback(ctx context.Context) (Activation, error) {
	before, err := c.previous()
	if err != nil {
		return Activation{}, fmt.Errorf("cannot roll back: %w", err)
	}
	return c.Activate(ctx, before.Version)
}

// previous returns the last activation of another version than the current one.
func (c *Coordinator) previous() (Activation, error) {
	current, err := c.Current()
	if err != nil {
		return Activation{}, err
	}
	for n := current.Generation - 1; n > 0; n-- {
		a, err := c.activation(n)
		if errors.Is(err, fs.ErrNotExist) {
			break
		}
		if err != nil || a.Version != current.Version {
			return a, err
		}
	}
	return Activation{}, fmt.Errorf("%w before %s", ErrNotActivated, current.Version)
}

func (c *Coordinator) lastGeneration() (int, error) {
	entries, err := os.ReadDir(c.path(activationsDir))
	if err != nil {
		return 0, fmt.Errorf("cannot read the log of activations: %w", err)
	}
	last := 0
	for _, e := range entries {
		if n, err := strconv.Atoi(e.Name()); err == nil {
			last = max(last, n)
		}
	}
	// A listing may be older than a name.
	for {
		if _, err := os.Lstat(c.path(activationsDir, strconv.Itoa(last+1))); err != nil {
			return last, nil
		}
		last++
	}
}

func (c *Coordinator) activation(generation int) (Activation, error) {
	path := c.path(activationsDir, strconv.Itoa(generation))
	data, err := os.ReadFile(path)
	if errors.Is(err, unix.ESTALE) {
		data, err = os.ReadFile(path) // by its name, not by what is remembered of it
	}
	if err != nil {
		return Activation{}, fmt.Errorf("cannot read the log of activations: %w", err)
	}
	var a Activation
	if err := json.Unmarshal(data, &a); err != nil {
		return Activation{}, fmt.Errorf("cannot read activation %d: %w", generation, err)
	}
	return a, nil
}

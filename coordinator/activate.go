package coordinator

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"path"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/durable"
)

// Activate makes an installed release the current one: an entry in the log of
// activations, and after it the names derived from it, bin and
// .installed_version. If the release is current already, it only repairs those
// names.
//
// It needs no claim, so that a rollback need not wait for a download: the log
// itself is the fence. A unit puts the entry after the last one that it has
// read, and finds out if another unit did so before. If that activated the same
// release, all is well. If it activated another one, this call does nothing and
// returns ErrOvertaken: it was decided without knowing of that.
//
// Errors are ErrOvertaken, ErrNoSpace, those of Installed, and that of ctx.
func (c *Coordinator) Activate(ctx context.Context, version string) (Activation, error) {
	version, err := ParseVersion(version)
	if err != nil {
		return Activation{}, fmt.Errorf("cannot activate concourse: %w", err)
	}
	a, err := c.change(ctx, func(Activation, Activation) (string, error) { return version, nil })
	if err != nil {
		return Activation{}, fmt.Errorf("cannot activate concourse %s: %w%s", version, err, remedy(err))
	}
	return a, nil
}

// Rollback activates the release that was current before, without a download.
// Errors are ErrNotActivated if there is none, and those of Activate.
func (c *Coordinator) Rollback(ctx context.Context) (Activation, error) {
	a, err := c.change(ctx, func(current, before Activation) (string, error) {
		switch {
		case current.Generation == 0:
			return "", ErrNotActivated
		case before.Generation == 0:
			return "", fmt.Errorf("%w before %s", ErrNotActivated, current.Version)
		}
		return before.Version, nil
	})
	if err != nil {
		return Activation{}, fmt.Errorf("cannot roll back: %w%s", err, remedy(err))
	}
	return a, nil
}

// change activates what choose chooses, knowing the current release and the one
// before it.
func (c *Coordinator) change(ctx context.Context, choose func(current, before Activation) (string, error)) (a Activation, err error) {
	err = c.within(func(v *volume) error {
		current, before, err := v.log()
		if err != nil && !errors.Is(err, ErrNotActivated) {
			return err
		}
		version, err := choose(current, before)
		if err != nil {
			return err
		}
		a, err = v.activate(ctx, current, version)
		return err
	})
	return a, err
}

// activate puts version after current, if that is still the last entry.
func (v *volume) activate(ctx context.Context, current Activation, version string) (Activation, error) {
	if current.Version == version {
		if _, err := v.release(version); err != nil {
			return Activation{}, err
		}
		return current, v.derive()
	}
	// Until it is current, or not, nobody may collect it.
	release, err := v.hold(version)
	if err != nil {
		return Activation{}, err
	}
	defer release()
	next := Activation{Generation: current.Generation + 1, Version: version, Unit: v.options.Unit}
	data, err := json.Marshal(next)
	if err != nil {
		return Activation{}, err
	}
	v.at("activate", next.Generation)
	if err := v.check(); err != nil {
		return Activation{}, err
	}
	err = durable.Create(v.root, activationName(next.Generation), append(data, '\n'))
	if errors.Is(err, fs.ErrExist) {
		winner, err := v.awaited(ctx, next.Generation)
		if err != nil {
			return Activation{}, err
		}
		if winner.Version != version {
			return Activation{}, fmt.Errorf("%w: %s has activated %s", ErrOvertaken, winner.Unit, winner.Version)
		}
		return winner, v.derive()
	}
	if err != nil {
		return Activation{}, err
	}
	v.at("activated", next.Generation)
	return next, v.derive()
}

// awaited returns the newest activation, once the one of that generation shows:
// a network file system may tell that a name is taken before it tells by what.
func (v *volume) awaited(ctx context.Context, generation int) (Activation, error) {
	for pause := time.Millisecond; ; pause = min(2*pause, 100*time.Millisecond) {
		current, err := v.current()
		if err == nil && current.Generation >= generation {
			return current, nil
		}
		if err != nil && !incomplete(err) {
			return Activation{}, err
		}
		select {
		case <-ctx.Done():
			return Activation{}, context.Cause(ctx)
		case <-time.After(rand.N(pause)):
		}
		if err := v.check(); err != nil {
			return Activation{}, err
		}
	}
}

// derive brings bin and .installed_version in line with the log. Two units may
// do that at once with different views: whoever writes last has read the log
// after writing, so that the names end up right.
func (v *volume) derive() error {
	for {
		a, err := v.current()
		if err != nil {
			return err
		}
		if err := durable.Symlink(v.root, path.Join(releaseDir(a.Version), "bin"), binLink); err != nil {
			return err
		}
		v.at("linked", a.Generation)
		line := a.Version + "\n"
		if old, err := v.root.ReadFile(installedFile); err != nil || string(old) != line {
			if err := durable.Replace(v.root, installedFile, []byte(line)); err != nil {
				return err
			}
		}
		if again, err := v.current(); err != nil || again == a {
			return err
		}
	}
}

// Current returns the release that the units of this volume should run. The
// error is ErrNotActivated while there is none, or one of Check.
func (c *Coordinator) Current() (Activation, error) {
	v, err := c.enter()
	if err != nil {
		return Activation{}, fmt.Errorf("cannot tell the current release: %w", err)
	}
	defer v.leave()
	return v.current()
}

func (v *volume) current() (Activation, error) {
	current, _, err := v.log()
	return current, err
}

// log returns the last activation, and the last one of another version, if there
// was any. Both come from one look: entries never change, and those that are
// there have those before them.
func (v *volume) log() (current, before Activation, err error) {
	names, err := durable.Names(v.root, activationsDir)
	if err != nil {
		return current, before, fmt.Errorf("cannot read the log of activations: %w", err)
	}
	last := 0
	for _, name := range names {
		if n, err := strconv.Atoi(name); err == nil {
			last = max(last, n)
		}
	}
	// A listing may be older than a name.
	for {
		if _, err := v.root.Lstat(activationName(last + 1)); err != nil {
			break
		}
		last++
	}
	if last == 0 {
		return current, before, fmt.Errorf("%s: %w", v.dir, ErrNotActivated)
	}
	if current, err = v.activation(last); err != nil {
		return current, before, err
	}
	for n := last - 1; n > 0; n-- {
		a, err := v.activation(n)
		if errors.Is(err, fs.ErrNotExist) {
			break
		}
		if err != nil {
			return current, before, err
		}
		if a.Version != current.Version {
			return current, a, nil
		}
	}
	return current, before, nil
}

func (v *volume) activation(generation int) (Activation, error) {
	name := activationName(generation)
	data, err := v.root.ReadFile(name)
	if errors.Is(err, unix.ESTALE) {
		data, err = v.root.ReadFile(name) // by its name, not by what is remembered of it
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

func activationName(generation int) string {
	return path.Join(activationsDir, strconv.Itoa(generation))
}

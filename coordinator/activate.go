package coordinator

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/durable"
)

// Activate makes an installed release the current one: an entry in the log of
// activations, and after it the names derived from it, Product.Link and
// .installed_version. If the release is current already, it only repairs those
// names.
//
// It needs no claim, so that a rollback need not wait for a download: the log
// itself is the fence. A unit puts the entry after the last one that it has
// read, and finds out if another unit did so before. If that activated the same
// release, all is well. If it activated another one, this call does nothing and
// returns ErrOvertaken: it was decided without knowing of that.
//
// Errors are ErrOvertaken, ErrNoSpace, and those of Installed.
func (c *Coordinator) Activate(ctx context.Context, version string) (Activation, error) {
	t := c.about("activate", version)
	return c.change(ctx, t, func(history) (Activation, error) { return Activation{Version: t.version}, nil })
}

// Rollback activates the release that was current before, without a download. Done
// again, it goes one further back, never forward. Errors are ErrNotActivated if there
// is none, and those of Activate.
func (c *Coordinator) Rollback(ctx context.Context) (Activation, error) {
	return c.change(ctx, task{doing: "roll back", what: c.product.Name}, func(h history) (Activation, error) {
		switch {
		case h.current.Generation == 0:
			return Activation{}, ErrNotActivated
		case h.before.Generation == 0:
			return Activation{}, fmt.Errorf("%w before %s", ErrNotActivated, h.current.Version)
		}
		return Activation{Version: h.before.Version, Restores: h.before.origin()}, nil
	})
}

// origin is the entry that first made the release of a current.
func (a Activation) origin() int {
	if a.Restores > 0 {
		return a.Restores
	}
	return a.Generation
}

// change activates what choose chooses, knowing the log.
func (c *Coordinator) change(ctx context.Context, t task, choose func(history) (Activation, error)) (Activation, error) {
	return write(ctx, c, t, func(ctx context.Context, u *unit) (Activation, error) {
		h, err := u.history()
		if err != nil {
			return Activation{}, err
		}
		for _, file := range h.damaged {
			if u.c.memory.first(file) {
				u.c.options.Log.Warn("ignored an activation that cannot be read: remove the file", "file", filepath.Join(u.view.dir, file))
			}
		}
		next, err := choose(h)
		if err != nil {
			return Activation{}, err
		}
		return u.activate(ctx, h, next)
	})
}

// activate puts next at the end of the log, if that is still where it was.
func (u *unit) activate(ctx context.Context, h history, next Activation) (Activation, error) {
	if h.current.Version == next.Version {
		if _, _, err := u.release(next.Version); err != nil {
			return Activation{}, err
		}
		return h.current, u.derive()
	}
	// Until it is current, or not, nobody may collect it.
	held, _, err := u.hold(ctx, next.Version)
	if err != nil {
		return Activation{}, err
	}
	defer held()
	next.Generation, next.Unit = h.last+1, u.c.options.Unit
	u.at("activate", next.Generation)
	err = durable.Create(u.root, activationName(next.Generation), encode(next), func() error { return u.allow(ctx) })
	if errors.Is(err, fs.ErrExist) {
		winner, err := u.awaited(ctx, next.Generation)
		if err != nil {
			return Activation{}, err
		}
		if winner.Version != next.Version {
			return Activation{}, fmt.Errorf("%w: %s has activated %s", ErrOvertaken, winner.Unit, winner.Version)
		}
		return winner, u.derive()
	}
	if err != nil {
		return Activation{}, err
	}
	u.at("activated", next.Generation)
	return next, u.derive()
}

// awaited returns the newest activation, once the one of that generation shows:
// a network file system may tell that a name is taken before it tells by what.
func (u *unit) awaited(ctx context.Context, generation int) (Activation, error) {
	for pause := time.Millisecond; ; pause = min(2*pause, 100*time.Millisecond) {
		h, err := u.history()
		if err == nil && h.last >= generation && h.current.Generation > 0 {
			return h.current, nil
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return Activation{}, err
		}
		if err := cmp.Or(sleep(ctx, rand.N(pause)), u.check()); err != nil {
			return Activation{}, err
		}
	}
}

// derive brings the link and .installed_version in line with the log. Two units may
// do that at once with different views: whoever writes last has read the log
// after writing, so that the names end up right.
func (u *unit) derive() error {
	for {
		a, err := u.current()
		if err != nil {
			return err
		}
		if link := u.view.product.Link; link != "" {
			if err := durable.Symlink(u.root, path.Join(releaseLink(a.Version), link), link); err != nil {
				return u.blockedName(link, err)
			}
		}
		u.at("linked", a.Generation)
		line := a.Version + "\n"
		if old, err := durable.ReadFile(u.root, installedFile); err != nil || string(old) != line {
			if err := durable.Replace(u.root, installedFile, []byte(line)); err != nil {
				return u.blockedName(installedFile, err)
			}
		}
		if again, err := u.current(); err != nil || again == a {
			return err
		}
	}
}

// blockedName explains why a name could not be replaced.
func (v *volume) blockedName(name string, err error) error {
	if info, statErr := v.root.Lstat(name); statErr == nil && info.IsDir() {
		return fmt.Errorf("%w: %s is a directory: remove it: %w", ErrDamaged, filepath.Join(v.view.dir, name), err)
	}
	return err
}

// history is what one look at the log of activations finds: entries never change, and
// only damaged ones are removed, by people.
type history struct {
	current Activation
	before  Activation // what Rollback would activate
	other   Activation // the last one of another version than the current
	last    int        // the number of the last entry, readable or not
	damaged []string   // files of entries that cannot be read
}

// lastGeneration is far beyond what is ever reached: a higher number is noise.
const lastGeneration = 1 << 30

// history reads the log, which may be empty. An entry that cannot be read is passed
// over, and so is one that somebody has removed because of that: an entry is complete
// before it has its name, so that it was damaged later, and the units must go on.
func (v *volume) history() (h history, err error) {
	found, err := durable.Names(v.root, activationsDir)
	if err != nil {
		return h, fmt.Errorf("cannot read the log of activations: %w", err)
	}
	numbers := sorted(found, func(name string) (int, bool) {
		n, err := strconv.Atoi(name)
		return n, err == nil && strconv.Itoa(n) == name && n > 0 && n <= lastGeneration
	})
	slices.Sort(numbers)
	if len(numbers) > 0 {
		h.last = numbers[len(numbers)-1]
	}
	// A listing may be older than a name.
	for {
		if _, err := v.root.Lstat(activationName(h.last + 1)); errors.Is(err, fs.ErrNotExist) {
			break
		} else if err != nil {
			return h, fmt.Errorf("cannot read the log of activations: %w", err)
		}
		h.last++
		numbers = append(numbers, h.last)
	}
	for _, n := range slices.Backward(numbers) {
		if h.other.Generation > 0 && h.before.Generation > 0 {
			break
		}
		a, err := v.activation(n)
		if errors.Is(err, fs.ErrNotExist) {
			continue // a damaged one, which somebody has removed
		}
		if errors.Is(err, ErrDamaged) {
			h.damaged = append(h.damaged, activationName(n))
			continue
		}
		if err != nil {
			return h, err
		}
		if h.current.Generation == 0 {
			h.current = a
		}
		if a.Version == h.current.Version {
			continue
		}
		if h.other.Generation == 0 {
			h.other = a
		}
		if h.before.Generation == 0 && n < h.current.origin() {
			h.before = a
		}
	}
	return h, nil
}

// current returns the newest entry that can be read, or ErrNotActivated.
func (v *volume) current() (Activation, error) {
	h, err := v.history()
	switch {
	case err != nil || h.current.Generation > 0:
		return h.current, err
	case len(h.damaged) > 0:
		return h.current, fmt.Errorf("%w: %w: %s: activate a release", ErrNotActivated, ErrDamaged, filepath.Join(v.view.dir, h.damaged[0]))
	}
	return h.current, fmt.Errorf("%s: %w", v.view.dir, ErrNotActivated)
}

func (v *volume) activation(generation int) (Activation, error) {
	name := activationName(generation)
	a, err := readJSON[Activation](v.root, name)
	if err != nil && !errors.Is(err, errUnreadable) {
		return Activation{}, fmt.Errorf("cannot read the log of activations: %w", err)
	}
	if err == nil && (a.Generation != generation || a.Restores < 0 || a.Restores >= generation) {
		err = errors.New("its numbers make no sense")
	}
	if err == nil && !v.isVersion(a.Version) {
		err = fmt.Errorf("%q is no version", a.Version)
	}
	if err != nil {
		return Activation{}, fmt.Errorf("%w: %s: %w", ErrDamaged, filepath.Join(v.view.dir, name), err)
	}
	return a, nil
}

func activationName(generation int) string {
	return path.Join(activationsDir, strconv.Itoa(generation))
}

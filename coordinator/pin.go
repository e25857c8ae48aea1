package coordinator

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/sys/mountinfo"

	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/durable"
	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/publish"
	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/tree"
)

// Who needs a release and who removes it agree without a lock, as follows. A
// collector first makes the directory into which it will move what it removes,
// then reads the pins, the log and the links, and then moves. Who needs a release
// first pins its entry of the store, then blocks the places of the entry and of the
// link in every such directory that it finds, and then looks whether both are there.
// A move to where a directory is fails. So either the collector sees the pin, or its
// move fails, or who pins sees that the release is gone - whoever is paused or dies
// at whatever point, see internal/model.

// collecting begins the name of a collector's directory below staging/.
const collecting = "collecting-"

// Pin keeps the files from which this unit is about to run a release from being
// collected, also when the release is installed anew meanwhile; it replaces the
// unit's earlier pin. Pin before the release is started, and start it from the Dir
// that is returned: an error (ErrVersion, ErrNotInstalled, ErrCorrupt, ErrNoSpace)
// says that it must not be started, and leaves the earlier pin as it is.
func (c *Coordinator) Pin(ctx context.Context, version string) (Release, error) {
	t := c.about("pin", version)
	return write(ctx, c, t, func(ctx context.Context, u *unit) (Release, error) { return u.pin(ctx, t.version) })
}

func (u *unit) pin(ctx context.Context, version string) (Release, error) {
	name := path.Join(pinsDir, u.name())
	r, p, err := u.release(version)
	if err != nil {
		return Release{}, err
	}
	if old, err := durable.ReadFile(u.root, name); err == nil && string(old) == p.String()+"\n" {
		return r, nil
	}
	held, r, err := u.hold(ctx, version)
	if err != nil {
		return Release{}, err
	}
	defer held()
	err = durable.Replace(u.root, name, []byte(filepath.Base(r.Dir)+"\n"), func() error { return u.allow(ctx) })
	if err != nil {
		return Release{}, u.blockedName(name, err)
	}
	return r, nil
}

// hold pins a release for the time of a call, beside what the unit has pinned,
// and makes sure that it is there.
func (u *unit) hold(ctx context.Context, version string) (drop func(), r Release, err error) {
	u.dropHolds()
	for {
		_, p, err := u.release(version)
		if err != nil {
			return nil, Release{}, err
		}
		name := path.Join(pinsDir, fmt.Sprintf("%s.%s.%s", u.name(), process(), rand.Text()))
		if err := durable.Replace(u.root, name, []byte(p.String()+"\n"), func() error { return u.allow(ctx) }); err != nil {
			return nil, Release{}, err
		}
		drop = func() { u.root.Remove(name) }
		var now entry
		err = u.callOff(p)
		if err == nil {
			u.at("held", 0)
			r, now, err = u.release(version)
		}
		if err == nil && now == p {
			return drop, r, nil
		}
		drop()
		if err != nil {
			return nil, Release{}, err
		}
		// The release was installed anew between the two looks.
	}
}

// process names this process by its number in /proc, which may be that of another PID
// namespace, and by when it was started: a number alone is soon another's in a container.
func process() string {
	pid, _ := os.Readlink("/proc/self")
	start, _ := started(pid)
	return pid + "-" + start
}

// started returns when a process was started, as the kernel counts time. A process that
// has died, and that nobody has waited for, is fs.ErrNotExist, too.
func started(pid string) (string, error) {
	data, err := os.ReadFile(filepath.Join("/proc", pid, "stat"))
	if err != nil {
		return "", err
	}
	// The second field is a name in parentheses, with whatever in it.
	fields := bytes.Fields(data[bytes.LastIndexByte(data, ')')+1:])
	const starttime = 22 - 3 // of proc(5), behind the first two fields, from 0
	if len(fields) <= starttime {
		return "", fmt.Errorf("cannot read when process %s was started", pid)
	}
	if state := string(fields[0]); state == "Z" || state == "X" {
		return "", fmt.Errorf("process %s has died: %w", pid, fs.ErrNotExist)
	}
	return string(fields[starttime]), nil
}

// dropHolds removes what processes of this unit held when they died.
func (u *unit) dropHolds() {
	found, _ := durable.Names(u.root, pinsDir) // nothing depends on it
	for _, name := range found {
		parts := strings.Split(name, ".") // UNIT.PID-START.RANDOM
		if len(parts) != 3 || parts[0] != u.name() {
			continue
		}
		pid, start, _ := strings.Cut(parts[1], "-")
		if _, err := strconv.Atoi(pid); err != nil {
			continue
		}
		if alive, err := started(pid); errors.Is(err, fs.ErrNotExist) || err == nil && alive != start {
			u.root.Remove(path.Join(pinsDir, name))
		}
	}
}

// callOff keeps all collectors that may not have seen a pin from moving the
// release's link and its files.
func (u *unit) callOff(p entry) error {
	found, err := durable.Names(u.root, stagingDir)
	if err != nil {
		return fmt.Errorf("cannot look for collectors: %w", err)
	}
	for _, name := range found {
		if !strings.HasPrefix(name, collecting) {
			continue
		}
		// A directory that is not empty cannot be replaced. If the release is there
		// by now, this changes nothing but what is about to be removed; and if the
		// collector is done, or fenced off, its directory is gone and must not be
		// made again.
		if info, err := u.root.Lstat(path.Join(stagingDir, name)); err != nil || !info.IsDir() {
			continue // nothing can be moved there
		}
		for _, what := range []string{p.version, p.String()} {
			blocked := path.Join(stagingDir, name, what)
			for _, dir := range []string{blocked, path.Join(blocked, "pinned")} {
				if err := u.root.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrExist) {
					return fmt.Errorf("cannot call off a collection: %w", err)
				}
			}
		}
	}
	return nil
}

// pins returns the entries by the name of the pin. That is a unit's, or, with
// more behind a dot, that of a call under way. A pin has two entries if it says
// "1.22.1", and both 1.22 and 1.22.1 are versions of the product. With ErrDamaged it
// returns those that can be read.
func (v *volume) pins() (pins map[string][]entry, damaged error) {
	found, err := durable.Names(v.root, pinsDir)
	if err != nil {
		return nil, fmt.Errorf("cannot read the pins: %w", err)
	}
	pins = map[string][]entry{}
	for _, name := range found {
		if strings.HasPrefix(name, ".") {
			continue // not named yet
		}
		data, err := durable.ReadFile(v.root, path.Join(pinsDir, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue // dropped just now, by a call or by a unit that has left
		}
		if err != nil && !errors.Is(err, durable.ErrUnusable) {
			return nil, fmt.Errorf("cannot read the pins: %w", err)
		}
		text := strings.TrimSpace(string(data))
		first := v.isVersion(text) // by a unit that knows the first layout only
		if e, ok := parseEntry(text); ok && (!first || v.isVersion(e.version)) {
			pins[name] = append(pins[name], e)
		}
		if first {
			pins[name] = append(pins[name], entry{version: text})
		}
		if pins[name] == nil {
			damaged = fmt.Errorf("%w: %s names no release: have that unit pin anew, or remove it if the unit is gone",
				ErrDamaged, filepath.Join(v.view.dir, pinsDir, name))
		}
	}
	return pins, damaged
}

// isVersion tells whether a name is that of a version.
func (v *volume) isVersion(name string) bool {
	version, err := v.view.product.ParseVersion(name)
	return err == nil && version == name
}

// generation of the activation that was current when an entry was made.
func (v *volume) madeAt(p entry) (int, error) {
	m, err := publish.Read(v.root, p.dir(), p.version)
	return m.Generation, err
}

// Units lists the units that have a pin, a worker directory or a note about their mount
// on the volume, whether or not they still run.
func (v *View) Units(ctx context.Context) ([]string, error) {
	return read(ctx, v, task{doing: "list the units of", what: v.dir}, func(_ context.Context, in *volume) ([]string, error) {
		units := map[string]bool{}
		for _, dir := range []string{pinsDir, probesDir, workerDir} {
			names, err := durable.Names(in.root, dir)
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return nil, err
			}
			for _, name := range names {
				file, _, _ := strings.Cut(name, ".") // behind it is a call's
				unit := reservedUnit.ReplaceAllStringFunc(file, func(number string) string { return "/" + number[1:] })
				if validUnit(unit) {
					units[unit] = true
				}
			}
		}
		return slices.Sorted(maps.Keys(units)), nil
	})
}

// Leave removes what Forget does, of this unit: it goes away for good. Overlays that its
// worker has left below its directory are unmounted; anything else that is mounted there
// is ErrMounted, which names it, and everything but it and what it lies in is removed.
func (c *Coordinator) Leave(ctx context.Context) error { return c.Forget(ctx, c.options.Unit) }

// Forget removes a unit's pin, its worker directory, what it has noted about its
// mount and what it has staged: the unit is gone for good, and must not run any more.
// Something that is mounted below another unit's directory shows that it may still run
// here: the error is ErrMounted, and nothing is removed.
func (c *Coordinator) Forget(ctx context.Context, unitName string) error {
	t := task{doing: "forget", what: unitName}
	if !validUnit(unitName) {
		t.err = fmt.Errorf("%w: %q is no name of a unit, such as ci/0", ErrOptions, unitName)
	}
	_, err := write(ctx, c, t, func(ctx context.Context, u *unit) (struct{}, error) {
		return struct{}{}, u.forget(ctx, fileName(unitName))
	})
	return err
}

func (u *unit) forget(ctx context.Context, name string) error {
	pins, err := durable.Names(u.root, pinsDir)
	if name != u.name() {
		err = errors.Join(err, u.unmounted(ctx, path.Join(workerDir, name)))
	}
	if err := errors.Join(err, u.allow(ctx)); err != nil {
		return err
	}
	for _, pin := range pins {
		if owner, _, _ := strings.Cut(pin, "."); owner == name {
			err = errors.Join(err, tree.Remove(ctx, u.root, path.Join(pinsDir, pin)))
		}
	}
	return errors.Join(
		err,
		tree.Remove(ctx, u.root, path.Join(probesDir, name)),
		removeWorkerDir(ctx, u.root, path.Join(workerDir, name)),
		u.sweep(ctx, func(s staged) bool { return s.unit == name }),
	)
}

// unmounted tells whether nothing is mounted on a directory and below it.
func (u *unit) unmounted(ctx context.Context, dir string) error {
	mounts, err := tree.Unmount(ctx, filepath.Join(u.view.dir, dir), func(*mountinfo.Info) bool { return false })
	if len(mounts) > 0 {
		err = fmt.Errorf("%w: %s", ErrMounted, mounts[0].Mountpoint)
	}
	return err
}

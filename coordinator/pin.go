package coordinator

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/durable"
	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/publish"
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
	parsed, err := c.product.ParseVersion(version)
	if err != nil {
		return Release{}, failed("pin", c.product.Name, err)
	}
	r, err := write(ctx, c, func(ctx context.Context, u *unit) (Release, error) { return u.pin(ctx, parsed) })
	return r, failed("pin", c.product.Name+" "+parsed, err)
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
	return r, durable.Replace(u.root, name, []byte(filepath.Base(r.Dir)+"\n"), func() error { return u.allow(ctx) })
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
		var now place
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

// process names this process: a PID alone is soon another's in a container.
func process() string {
	start, _ := started(os.Getpid())
	return fmt.Sprintf("%d-%s", os.Getpid(), start)
}

// started returns when a process was started, as the kernel counts time.
func started(pid int) (string, error) {
	data, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return "", err
	}
	// The second field is a name in parentheses, with whatever in it.
	fields := bytes.Fields(data[bytes.LastIndexByte(data, ')')+1:])
	const starttime = 22 - 3 // of proc(5), behind the first two fields, from 0
	if len(fields) <= starttime {
		return "", fmt.Errorf("cannot read when process %d was started", pid)
	}
	return string(fields[starttime]), nil
}

// dropHolds removes what processes of this unit held when they died.
func (u *unit) dropHolds() {
	found, err := durable.Names(u.root, pinsDir)
	if err != nil {
		return // nothing depends on it
	}
	for _, name := range found {
		parts := strings.Split(name, ".") // UNIT.PID-START.RANDOM
		if len(parts) != 3 || parts[0] != u.name() {
			continue
		}
		text, start, _ := strings.Cut(parts[1], "-")
		pid, err := strconv.Atoi(text)
		if err != nil {
			continue
		}
		if alive, err := started(pid); errors.Is(err, fs.ErrNotExist) || err == nil && alive != start {
			u.root.Remove(path.Join(pinsDir, name))
		}
	}
}

// callOff keeps all collectors that may not have seen a pin from moving the
// release's link and its files.
func (u *unit) callOff(p place) error {
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
// "1.22.1", and both 1.22 and 1.22.1 are versions of the product.
func (v *volume) pins() (map[string][]entry, error) {
	found, err := durable.Names(v.root, pinsDir)
	if err != nil {
		return nil, fmt.Errorf("cannot read the pins: %w", err)
	}
	pins := map[string][]entry{}
	for _, name := range found {
		if strings.HasPrefix(name, ".") {
			continue // not named yet
		}
		data, err := durable.ReadFile(v.root, path.Join(pinsDir, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue // dropped just now, by a call or by a unit that has left
		}
		if err != nil {
			return nil, fmt.Errorf("cannot read the pins: %w", err)
		}
		text := strings.TrimSpace(string(data))
		first := v.isVersion(text) // by a unit that knows the first layout only
		if e, ok := parseEntry(text); ok && (!first || v.isVersion(e.version)) {
			pins[name] = append(pins[name], e)
		}
		if first {
			pins[name] = append(pins[name], entry{text, 0})
		}
		if pins[name] == nil {
			return nil, fmt.Errorf("%w: %s names no release: remove it if that unit is gone, else have it pin anew",
				ErrDamaged, filepath.Join(v.view.dir, pinsDir, name))
		}
	}
	return pins, nil
}

// isVersion tells whether a name is that of a version.
func (v *volume) isVersion(name string) bool {
	version, err := v.view.product.ParseVersion(name)
	return err == nil && version == name
}

// generation of the activation that was current when an entry was made.
func (v *volume) madeAt(p place) (int, error) {
	m, err := publish.Read(v.root, p.dir(), p.version)
	return m.Generation, err
}

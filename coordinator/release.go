package coordinator

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/durable"
	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/publish"
)

// An entry of the store is one download of a release: store/VERSION.GENERATION,
// with the generation of the claim under which it was made. The release itself is
// a symbolic link, releases/VERSION, to its entry. So a release is installed anew
// by one rename of a link, on every file system, while what runs keeps its files.
type entry struct {
	version    string
	generation int
}

func (e entry) String() string { return fmt.Sprintf("%s.%d", e.version, e.generation) }

func (e entry) dir() string { return path.Join(storeDir, e.String()) }

// parseEntry reads VERSION.GENERATION.
func parseEntry(name string) (entry, bool) {
	dot := strings.LastIndexByte(name, '.')
	if dot < 0 {
		return entry{}, false
	}
	generation, err := strconv.Atoi(name[dot+1:])
	e := entry{name[:dot], generation}
	return e, err == nil && e.String() == name && versionForm.MatchString(e.version)
}

// place is where the files of a release are.
type place struct {
	entry
	// first: the release is a directory, as on a volume of the first layout. Its entry
	// has generation 0, and no place in the store.
	first bool
}

func (p place) dir() string {
	if p.first {
		return releaseLink(p.version)
	}
	return p.entry.dir()
}

// releaseLink returns the name of a release, below the root.
func releaseLink(version string) string { return path.Join(releasesDir, version) }

// storeLink is the text of a release's link.
func storeLink(e entry) string { return "../" + e.dir() }

// place follows the link of a release, without a look at where it leads. Errors are
// ErrNotInstalled, and ErrCorrupt for a link that none of these units has made.
func (v *volume) place(version string) (place, error) {
	name := releaseLink(version)
	text, err := v.root.Readlink(name)
	if errors.Is(err, unix.EINVAL) { // no link
		info, statErr := v.root.Lstat(name)
		if statErr == nil && info.IsDir() {
			return place{entry{version, 0}, true}, nil
		}
		return place{}, fmt.Errorf("%s: %w: it is neither a link nor a directory", filepath.Join(v.view.dir, name), ErrCorrupt)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return place{}, fmt.Errorf("%s: %w", filepath.Join(v.view.dir, name), ErrNotInstalled)
	}
	if err != nil {
		return place{}, fmt.Errorf("cannot follow the link of a release: %w", err)
	}
	e, ok := parseEntry(path.Base(text))
	if !ok || e.version != version || text != storeLink(e) {
		return place{}, fmt.Errorf("%s: %w: it leads to %.100q", filepath.Join(v.view.dir, name), ErrCorrupt, text)
	}
	return place{entry: e}, nil
}

// release returns a release after a quick check. Errors are ErrNotInstalled and
// ErrCorrupt; a link that leads to nothing is the former.
func (v *volume) release(version string) (Release, place, error) {
	start := time.Now()
	for {
		p, err := v.place(version)
		if err != nil {
			return Release{}, p, err
		}
		m, err := publish.Check(v.root, p.dir(), version)
		if err == nil && m.Arch != "" && m.Arch != runtime.GOARCH {
			err = fmt.Errorf("%s: %w: it is for %s, this machine is %s: use a volume of its own", filepath.Join(v.view.dir, p.dir()), ErrArchitecture, m.Arch, runtime.GOARCH)
			return v.describe(m, p), p, err
		}
		if err == nil {
			return v.describe(m, p), p, nil
		}
		// Or was it replaced, and then collected, while it was looked at?
		if now, lookErr := v.place(version); lookErr != nil || now == p {
			if errors.Is(err, ErrNotInstalled) && v.late(start) {
				continue // the link shows already, the files do not yet
			}
			return Release{}, p, err
		}
	}
}

// Recheck is Installed for who asks every few seconds, one call at a time: it looks at
// all directories each time and at the files in turns, so that a change of any is found
// within six calls, and takes a sixth of the time. Errors are those of Installed.
func (c *Coordinator) Recheck(ctx context.Context, version string) (Release, error) {
	version, what, err := c.named("use", version)
	if err != nil {
		return Release{}, err
	}
	return read(ctx, &c.View, "use", what, func(_ context.Context, in *volume) (Release, error) {
		p, err := in.place(version)
		if err != nil {
			return Release{}, err
		}
		// It is for one call: another one, while this hangs, begins with nothing.
		turns, ok := c.memory.turns.LoadAndDelete(version)
		if !ok {
			turns = &publish.Turns{}
		}
		m, err := turns.(*publish.Turns).Check(in.root, p.dir(), version)
		c.memory.turns.Store(version, turns)
		return in.describe(m, p), err
	})
}

// late waits a moment, and tells whether something that another machine has made may
// still not show here. It does at once on a file system of this kernel.
func (v *volume) late(since time.Time) bool {
	if time.Since(since) >= durable.Settle || durable.Local(v.root) {
		return false
	}
	time.Sleep(latePoll)
	return true
}

const latePoll = 100 * time.Millisecond

func (v *volume) exists(name string) bool {
	_, err := v.root.Lstat(name)
	return err == nil
}

func (v *volume) describe(m publish.Manifest, p place) Release {
	return Release{
		Version: m.Version, Dir: filepath.Join(v.view.dir, p.dir()),
		Digest: m.Digest, InstalledBy: m.InstalledBy, Bytes: m.Bytes,
	}
}

// absent tells whether an error of release means that it has to be installed.
func absent(err error) bool {
	return errors.Is(err, ErrNotInstalled) || errors.Is(err, ErrCorrupt)
}

// versions lists what is in releases/, sound or not.
func (v *volume) versions() ([]string, error) {
	found, err := durable.Names(v.root, releasesDir)
	if err != nil {
		return nil, fmt.Errorf("cannot list the releases: %w", err)
	}
	return sorted(found, func(name string) (string, bool) {
		return name, v.isVersion(name)
	}), nil
}

// entries lists what is in the store, sound or not.
func (v *volume) entries() ([]entry, error) {
	found, err := durable.Names(v.root, storeDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // a volume of the first layout
	}
	if err != nil {
		return nil, fmt.Errorf("cannot list the store: %w", err)
	}
	return sorted(found, parseEntry), nil
}

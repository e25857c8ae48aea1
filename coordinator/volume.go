package coordinator

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/durable"
	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/mount"
)

// Names on the volume.
const (
	volumeFile     = "volume.json"
	lockFile       = ".install.lock"
	progressFile   = ".download_in_progress"
	installedFile  = ".installed_version"
	claimsDir      = "claims"
	activationsDir = "activations"
	storeDir       = "store"
	releasesDir    = "releases"
	stagingDir     = "staging"
	pinsDir        = "pins"
	failuresDir    = "failures"
	probesDir      = "probes"
	ownersDir      = "owners" // who the volume was handed over to, from the first time on
	workerDir      = "worker"
)

// directories are what everything else relies on.
var directories = []string{claimsDir, storeDir, releasesDir, stagingDir, activationsDir, pinsDir, failuresDir, workerDir}

// taken tells whether a name has its meaning in the root of every volume.
func taken(name string) bool {
	files := []string{volumeFile, lockFile, progressFile, installedFile, probesDir, ownersDir}
	return slices.Contains(files, name) || slices.Contains(directories, name)
}

// Layouts of volumes that this program knows. In the first one, a release was the
// directory releases/VERSION itself. Such a volume is used as it is: units that
// know only that layout may still be there.
const (
	firstLayout = 1
	layout      = 2
)

// identity is the content of volume.json.
type identity struct {
	ID     string `json:"id"`
	Layout int    `json:"layout"`
	Owner  string `json:"owner,omitempty"`
	// Handovers is how often the volume got another owner.
	Handovers int `json:"handovers,omitempty"`
}

// volume is what one call reads. It holds the root open that the call has
// looked at: should another volume, or none, be mounted there the next moment,
// nothing of the call meets it.
type volume struct {
	view *View
	root *os.Root
}

// unit is what one call of a unit changes.
type unit struct {
	*volume
	c *Coordinator
}

func (u *unit) at(point string, generation int) { u.c.memory.at(point, generation) }

// warn logs what has gone wrong, if it has, and is no reason to give up.
func (u *unit) warn(what string, err error) {
	if err != nil {
		u.c.options.Log.Warn(what, "error", err)
	}
}

// name is the unit's, as that of a file.
func (u *unit) name() string { return fileName(u.c.options.Unit) }

// enter opens the volume and looks whether it is the right one. Its root has to be
// closed.
func (v *View) enter() (*volume, error) {
	root, err := os.OpenRoot(v.dir)
	if err != nil {
		return nil, v.unopened(err)
	}
	if err := v.verify(root); err != nil {
		root.Close()
		return nil, err
	}
	return &volume{v, root}, nil
}

// task is what a call attempts, on what, as its error says it, and on which version.
type task struct {
	doing, what, version string
	err                  error // why it cannot be attempted
}

// about is a task for the version that text means.
func (v *View) about(doing, text string) task {
	t := task{doing: doing, what: v.product.Name}
	if t.version, t.err = v.product.ParseVersion(text); t.err == nil {
		t.what += " " + t.version
	}
	return t
}

// read does what a call has to read.
func read[T any](ctx context.Context, v *View, t task, do func(context.Context, *volume) (T, error)) (value T, err error) {
	if err = t.err; err == nil {
		value, err = mount.Call(ctx, v.mount, func(ctx context.Context) (value T, err error) {
			in, err := v.enter()
			if err != nil {
				return value, err
			}
			defer in.root.Close()
			value, err = do(ctx, in)
			return value, in.explain(err)
		})
	}
	return value, failed(t.doing, t.what, err)
}

// explain says of an error of no other kind whether it comes from something that is
// where a directory has to be.
func (v *volume) explain(err error) error {
	if e, ok := failed("", "", err).(*Error); !ok || e.Kind != nil {
		return err
	}
	claims, _ := durable.Names(v.root, claimsDir)
	for i := range claims {
		claims[i] = path.Join(claimsDir, claims[i])
	}
	for _, dir := range slices.Concat(directories, []string{probesDir}, claims) {
		if durable.NotDir(v.root, dir) {
			return noDirectory(v.root, dir, err)
		}
	}
	return err
}

// write does what a call has to change. Whatever failed on a volume that is gone,
// that it is gone is the reason.
func write[T any](ctx context.Context, c *Coordinator, t task, do func(context.Context, *unit) (T, error)) (T, error) {
	return read(ctx, &c.View, t, func(ctx context.Context, v *volume) (T, error) {
		value, err := do(ctx, &unit{v, c})
		if err == nil {
			return value, nil
		}
		if gone := v.check(); gone != nil {
			return value, gone
		}
		if noSpace(err) && !errors.Is(err, ErrNoSpace) {
			free, roomErr := v.room()
			if roomErr != nil {
				return value, errors.Join(fmt.Errorf("%w: %w", ErrNoSpace, err), roomErr)
			}
			return value, fmt.Errorf("%w: %s: %w", ErrNoSpace, free.describe(err), err)
		}
		return value, err
	})
}

// open makes what a volume needs, and returns its id.
func (c *Coordinator) open() (string, error) {
	if c.marker == "" {
		if err := os.MkdirAll(c.dir, 0o755); err != nil {
			return "", err
		}
	}
	root, err := os.OpenRoot(c.dir)
	if err != nil {
		return "", c.unopened(err)
	}
	defer root.Close()
	if err := c.mounted(root); err != nil {
		return "", err
	}
	switch {
	case c.options.Accept != "":
		err = c.accept(root)
	case c.id == "":
		err = createVolumeFile(root, rand.Text(), c.owner)
	}
	if err != nil {
		return "", err
	}
	v, err := identify(root)
	if err := c.same(v, err); err != nil {
		return "", err
	}
	return v.ID, layOut(root)
}

func noDirectory(root *os.Root, dir string, err error) error {
	return fmt.Errorf("%w: %s is no directory: remove it and open the volume anew: %w", ErrDamaged, filepath.Join(root.Name(), dir), err)
}

// layOut makes the directories.
func layOut(root *os.Root) error {
	for _, dir := range directories {
		if err := durable.Mkdir(root, dir, 0o755); errors.Is(err, unix.ENOTDIR) {
			return noDirectory(root, dir, err)
		} else if err != nil {
			return err
		}
	}
	return nil
}

// check is asked before each thing that is written: it tells whether the root is
// still the volume that is mounted.
func (v *volume) check() error {
	if v.view.marker != "" {
		held, err := v.root.Stat(".")
		if err != nil {
			return v.view.unopened(err)
		}
		if there, err := os.Stat(v.view.dir); err != nil || !os.SameFile(held, there) {
			if now, err := v.view.enter(); err != nil {
				return err
			} else {
				now.root.Close()
			}
			return fmt.Errorf("%w: %s was mounted anew in the meantime", ErrNotMounted, v.view.dir)
		}
	}
	return v.view.verify(v.root)
}

// allow is check for what must not come late: whoever was told that the call has
// failed must not find it done when a mount that hung goes on.
func (v *volume) allow(ctx context.Context) error {
	if err := v.check(); err != nil {
		return err
	}
	return context.Cause(ctx)
}

// verify tells whether the root is a shared volume, if it has to be, and the one
// that this unit knows.
func (v *View) verify(root *os.Root) error {
	if err := v.mounted(root); err != nil {
		return err
	}
	return v.same(identify(root))
}

// Check tells whether the root is still mounted and still the volume that was
// opened: nil, ErrNotMounted, ErrUnmarked or ErrForeignVolume. It takes a few system calls,
// and every method begins with it.
func (v *View) Check(ctx context.Context) error {
	_, err := read(ctx, v, task{doing: "use", what: v.dir}, func(context.Context, *volume) (struct{}, error) { return struct{}{}, nil })
	return err
}

// unopened tells why there is no root.
func (v *View) unopened(err error) error {
	switch {
	case v.marker == "" && v.id == "":
		return noVolume(v.dir, err)
	case v.marker == "":
		return v.same(identity{}, err)
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w: %s is not there", ErrNotMounted, v.dir)
	}
	return fmt.Errorf("%w: cannot look at %s: %w", ErrNotMounted, v.dir, err)
}

// mounted refuses a root that is not the shared volume but the directory
// underneath: what is written there would be lost, and fill the unit's disk.
func (v *View) mounted(root *os.Root) error {
	if v.marker == "" {
		return nil
	}
	ok, err := mountPoint(root)
	if err != nil {
		return fmt.Errorf("%w: cannot look at %s: %w", ErrNotMounted, root.Name(), err)
	}
	if !ok {
		return fmt.Errorf("%w: %s is a directory on the machine's own disk", ErrNotMounted, root.Name())
	}
	if _, err := root.Stat(v.marker); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %s has no %s: if the right volume is mounted there, say so with `touch %s`",
			ErrUnmarked, root.Name(), v.marker, filepath.Join(root.Name(), v.marker))
	} else if err != nil {
		return fmt.Errorf("%w: cannot look at %s: %w", ErrNotMounted, filepath.Join(root.Name(), v.marker), err)
	}
	return nil
}

// mountPoint tells whether a directory is where something is mounted. Its device
// differs from that of its parent then, except for a bind mount within one file
// system, which the kernel marks as the root of a mount.
func mountPoint(root *os.Root) (bool, error) {
	dir, err := root.Open(".")
	if err != nil {
		return false, err
	}
	defer dir.Close()
	var own, above unix.Statx_t
	if err := unix.Statx(int(dir.Fd()), "", unix.AT_EMPTY_PATH, unix.STATX_BASIC_STATS, &own); err != nil {
		return false, err
	}
	if own.Attributes_mask&own.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0 {
		return true, nil
	}
	if err := unix.Statx(unix.AT_FDCWD, filepath.Dir(root.Name()), 0, unix.STATX_BASIC_STATS, &above); err != nil {
		return false, err
	}
	return own.Dev_major != above.Dev_major || own.Dev_minor != above.Dev_minor, nil
}

// identify reads the volume file.
//
// A volume that has none yet is asked again for a while: a client of a network
// file system may not see for a second what another unit has put there, and
// must not tell an operator that the volume is another one.
func identify(root *os.Root) (identity, error) {
	v, err := readJSON[identity](root, volumeFile)
	for start := time.Now(); transient(err) && time.Since(start) < durable.Settle; {
		time.Sleep(50 * time.Millisecond)
		v, err = readJSON[identity](root, volumeFile)
	}
	if err != nil && !errors.Is(err, errUnreadable) {
		return identity{}, err
	}
	if err != nil || v.ID == "" || v.Layout < firstLayout {
		return identity{}, fmt.Errorf("%w: %w: %s is unreadable: restore it from a backup, or attach a fresh volume",
			ErrForeignVolume, ErrDamaged, filepath.Join(root.Name(), volumeFile))
	}
	if v.Layout > layout {
		return identity{}, fmt.Errorf("%w: %s has layout %d, this program knows %d to %d: run a newer one here",
			ErrNewerLayout, root.Name(), v.Layout, firstLayout, layout)
	}
	return v, nil
}

func transient(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESTALE)
}

// createVolumeFile gives a volume an id and an owner unless it has them.
func createVolumeFile(root *os.Root, id, owner string) error {
	if _, err := root.Lstat(volumeFile); !errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	err := durable.Create(root, volumeFile, encode(identity{ID: id, Layout: layout, Owner: owner}))
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	return err
}

// errUnreadable: what a file has in it is not what encode makes.
var errUnreadable = errors.New("unreadable")

func readJSON[T any](root *os.Root, name string) (value T, err error) {
	data, err := durable.ReadFile(root, name)
	if err == nil {
		err = json.Unmarshal(data, &value)
	} else if !errors.Is(err, durable.ErrUnusable) {
		return value, err
	}
	if err != nil {
		err = fmt.Errorf("%w: %w", errUnreadable, err)
	}
	return value, err
}

// encode is for plain structs, of which each has a JSON.
func encode(value any) []byte {
	data, _ := json.Marshal(value)
	return append(data, '\n')
}

package coordinator

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/durable"
)

// Names on the volume.
const (
	volumeFile      = "volume.json"
	lockFile        = ".install.lock"
	claimsDir       = "claims"
	progressFile    = ".download_in_progress"
	installedFile   = ".installed_version"
	binLink         = "bin"
	releasesDir     = "releases"
	stagingDir      = "staging"
	quarantineDir   = "quarantine"
	activationsDir  = "activations"
	pinsDir         = "pins"
	probesDir       = "probes"
	workerDir       = "worker"
	layoutOfVolumes = 1
)

// identity is the content of volume.json.
type identity struct {
	ID     string `json:"id"`
	Layout int    `json:"layout"`
}

// volume is what one call works on. It holds the root open that the call has
// looked at: should another volume, or none, be mounted there the next moment,
// nothing of the call lands on it.
type volume struct {
	*Coordinator
	root *os.Root
}

// enter opens the volume and looks whether it is the right one. It has to be
// left.
func (c *Coordinator) enter() (*volume, error) {
	root, err := os.OpenRoot(c.dir)
	if err != nil {
		return nil, c.unopened(err)
	}
	v := &volume{c, root}
	if err := v.verified(); err != nil {
		root.Close()
		return nil, err
	}
	return v, nil
}

func (v *volume) leave() { v.root.Close() }

// within does what a call has to do on the volume. Whatever failed on a volume
// that is gone, that it is gone is the reason.
func (c *Coordinator) within(do func(v *volume) error) error {
	v, err := c.enter()
	if err != nil {
		return err
	}
	defer v.leave()
	err = do(v)
	if err == nil {
		return nil
	}
	if gone := v.check(); gone != nil {
		return gone
	}
	if noSpace(err) && !errors.Is(err, ErrNoSpace) {
		return fmt.Errorf("%w: %w", ErrNoSpace, err)
	}
	return err
}

// layOut makes the directories that everything else relies on.
func (v *volume) layOut() error {
	for _, dir := range []string{claimsDir, releasesDir, stagingDir, quarantineDir, activationsDir, pinsDir, workerDir} {
		if err := durable.Mkdir(v.root, dir, 0o755); err != nil {
			return err
		}
	}
	return nil
}

// check is asked before each thing that is written: it tells whether the root is
// still the volume that is mounted.
func (v *volume) check() error {
	if v.options.Shared {
		held, err := v.root.Stat(".")
		if err != nil {
			return v.unopened(err)
		}
		if there, err := os.Stat(v.dir); err != nil || !os.SameFile(held, there) {
			if err := v.Check(); err != nil {
				return err
			}
			return fmt.Errorf("%w: %s was mounted anew in the meantime", ErrNotMounted, v.dir)
		}
	}
	return v.verified()
}

// verified tells whether the root is a shared volume, if it has to be, and the
// one that this unit knows.
func (v *volume) verified() error {
	if v.options.Shared {
		if err := mounted(v.root); err != nil {
			return err
		}
	}
	return v.same(identify(v.root))
}

// Check tells whether the root is still mounted and still the volume that was
// opened: nil, ErrNotMounted or ErrForeignVolume. It takes a few system calls,
// and every method begins with it.
func (c *Coordinator) Check() error {
	v, err := c.enter()
	if err != nil {
		return err
	}
	v.leave()
	return nil
}

// unopened tells why there is no root.
func (c *Coordinator) unopened(err error) error {
	if c.options.Shared && errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %s is not there: %s", ErrNotMounted, c.dir, attach(c.dir))
	}
	if c.options.Shared {
		return fmt.Errorf("%w: cannot look at %s: %w: %s", ErrNotMounted, c.dir, err, attach(c.dir))
	}
	return c.same("", err)
}

func attach(root string) string {
	return fmt.Sprintf("attach it again with `lxc config device add MACHINE concourse-data disk pool=POOL source=VOLUME path=%s`", root)
}

// mounted refuses a root that is not the shared volume but the directory
// underneath: what is written there would be lost, and fill the unit's disk.
func mounted(root *os.Root) error {
	ok, err := mountPoint(root)
	if err != nil {
		return fmt.Errorf("%w: cannot look at %s: %w: %s", ErrNotMounted, root.Name(), err, attach(root.Name()))
	}
	if !ok {
		return fmt.Errorf("%w: %s is a directory on the machine's own disk: %s", ErrNotMounted, root.Name(), attach(root.Name()))
	}
	if _, err := root.Stat(Marker); err != nil {
		marker := filepath.Join(root.Name(), Marker)
		return fmt.Errorf("%w: %s has no %s: if the right volume is mounted there, say so with `touch %s`, else %s",
			ErrNotMounted, root.Name(), Marker, marker, attach(root.Name()))
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

// identify returns the id of a volume.
//
// A volume that has none yet is asked again for a while: a client of a network
// file system may not see for a second what another unit has put there, and
// must not tell an operator that the volume is another one.
func identify(root *os.Root) (string, error) {
	data, err := root.ReadFile(volumeFile)
	for start := time.Now(); transient(err) && time.Since(start) < durable.Settle; {
		time.Sleep(50 * time.Millisecond)
		data, err = root.ReadFile(volumeFile)
	}
	if err != nil {
		return "", err
	}
	var v identity
	if err := json.Unmarshal(data, &v); err != nil || v.ID == "" {
		return "", fmt.Errorf("%w: %s is unreadable: restore it from a backup, or attach a fresh volume", ErrForeignVolume, filepath.Join(root.Name(), volumeFile))
	}
	if v.Layout != layoutOfVolumes {
		return "", fmt.Errorf("%w: %s has layout %d, this program knows %d: refresh the older units", ErrForeignVolume, root.Name(), v.Layout, layoutOfVolumes)
	}
	return v.ID, nil
}

func transient(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESTALE)
}

// christen gives a volume an id unless it has one, and returns it.
func christen(root *os.Root) (string, error) {
	if _, err := root.Lstat(volumeFile); !errors.Is(err, fs.ErrNotExist) {
		return identify(root)
	}
	data, err := json.Marshal(identity{ID: rand.Text(), Layout: layoutOfVolumes})
	if err != nil {
		return "", err
	}
	if err := durable.Create(root, volumeFile, append(data, '\n')); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", err
	}
	return identify(root)
}

func (c *Coordinator) same(id string, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w: %s has no %s, but this unit knows volume %s: attach that one, or reset what the unit remembers", ErrForeignVolume, c.dir, volumeFile, c.id)
	case errors.Is(err, ErrForeignVolume):
		return err
	case err != nil:
		return fmt.Errorf("%w: cannot identify %s: %w", ErrNotMounted, c.dir, err)
	case id != c.id:
		return fmt.Errorf("%w: %s is volume %s, but this unit knows %s: attach that one, or reset what the unit remembers", ErrForeignVolume, c.dir, id, c.id)
	}
	return nil
}

// free returns the bytes that can be written to the volume.
func (v *volume) free() (uint64, error) {
	var s unix.Statfs_t
	dir, err := v.root.Open(".")
	if err == nil {
		defer dir.Close()
		err = unix.Fstatfs(int(dir.Fd()), &s)
	}
	if err != nil {
		return 0, fmt.Errorf("cannot measure the free space of %s: %w", v.root.Name(), err)
	}
	return s.Bavail * uint64(s.Bsize), nil
}

// releaseDir returns the place of a release, below the root.
func releaseDir(version string) string { return path.Join(releasesDir, version) }

package coordinator

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
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
	workerDir       = "worker"
	layoutOfVolumes = 1
)

// identity is the content of volume.json.
type identity struct {
	ID     string `json:"id"`
	Layout int    `json:"layout"`
}

// mounted refuses a root that is not the shared volume but the directory
// underneath: what is written there would be lost, and fill the unit's disk.
func mounted(root string) error {
	attach := fmt.Sprintf("attach it again with `lxc config device add MACHINE concourse-data disk pool=POOL source=VOLUME path=%s`", root)
	if _, err := os.Stat(root); err != nil {
		return fmt.Errorf("%w: %s is not there: %s", ErrNotMounted, root, attach)
	}
	ok, err := mountPoint(root)
	if err != nil {
		return fmt.Errorf("%w: cannot look at %s: %w: %s", ErrNotMounted, root, err, attach)
	}
	if !ok {
		return fmt.Errorf("%w: %s is a directory on the machine's own disk: %s", ErrNotMounted, root, attach)
	}
	if _, err := os.Stat(filepath.Join(root, Marker)); err != nil {
		return fmt.Errorf("%w: %s has no %s: if the right volume is mounted there, say so with `touch %s`, else %s",
			ErrNotMounted, root, Marker, filepath.Join(root, Marker), attach)
	}
	return nil
}

// mountPoint tells whether something is mounted on a directory. Its device
// differs from that of its parent then, except for a bind mount within one file
// system, which the kernel marks as the root of a mount.
func mountPoint(dir string) (bool, error) {
	var own, above unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, dir, 0, unix.STATX_BASIC_STATS, &own); err != nil {
		return false, err
	}
	if own.Attributes_mask&own.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0 {
		return true, nil
	}
	if err := unix.Statx(unix.AT_FDCWD, filepath.Dir(dir), 0, unix.STATX_BASIC_STATS, &above); err != nil {
		return false, err
	}
	return own.Dev_major != above.Dev_major || own.Dev_minor != above.Dev_minor, nil
}

// identify returns the id of the volume at root.
//
// A volume that has none yet is asked again for a while: a client of a network
// file system may not see for a second what another unit has put there, and
// must not tell an operator that the volume is another one.
func identify(root string) (string, error) {
	path := filepath.Join(root, volumeFile)
	data, err := os.ReadFile(path)
	for start := time.Now(); transient(err) && time.Since(start) < durable.Settle; {
		time.Sleep(50 * time.Millisecond)
		data, err = os.ReadFile(path)
	}
	if err != nil {
		return "", err
	}
	var v identity
	if err := json.Unmarshal(data, &v); err != nil || v.ID == "" {
		return "", fmt.Errorf("%w: %s is unreadable: restore it from a backup, or attach a fresh volume", ErrForeignVolume, path)
	}
	if v.Layout != layoutOfVolumes {
		return "", fmt.Errorf("%w: %s has layout %d, this program knows %d: refresh the older units", ErrForeignVolume, root, v.Layout, layoutOfVolumes)
	}
	return v.ID, nil
}

func transient(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESTALE)
}

// christen gives the volume an id unless it has one, and returns it.
func christen(root string) (string, error) {
	path := filepath.Join(root, volumeFile)
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		return identify(root)
	}
	data, err := json.Marshal(identity{ID: rand.Text(), Layout: layoutOfVolumes})
	if err != nil {
		return "", err
	}
	if err := durable.Create(path, append(data, '\n')); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", err
	}
	return identify(root)
}

// Check tells whether the root is still mounted and still the volume that was
// opened: nil, ErrNotMounted or ErrForeignVolume. It takes three system calls,
// and every method that writes begins with it.
func (c *Coordinator) Check() error {
	if c.options.Shared {
		if err := mounted(c.root); err != nil {
			return err
		}
	}
	return c.same(identify(c.root))
}

// reason returns why a call failed with err: whatever failed on a volume that
// is gone, that it is gone is the reason.
func (c *Coordinator) reason(err error) error {
	if err == nil {
		return nil
	}
	if gone := c.Check(); gone != nil {
		return gone
	}
	return err
}

func (c *Coordinator) same(id string, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%w: %s has no %s, but this unit knows volume %s: attach that one, or reset what the unit remembers", ErrForeignVolume, c.root, volumeFile, c.id)
	case errors.Is(err, ErrForeignVolume):
		return err
	case err != nil:
		return fmt.Errorf("%w: cannot identify %s: %w", ErrNotMounted, c.root, err)
	case id != c.id:
		return fmt.Errorf("%w: %s is volume %s, but this unit knows %s: attach that one, or reset what the unit remembers", ErrForeignVolume, c.root, id, c.id)
	}
	return nil
}

// free returns the bytes that can be written to the volume.
func (c *Coordinator) free() (uint64, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(c.root, &s); err != nil {
		return 0, fmt.Errorf("cannot measure the free space of %s: %w", c.root, err)
	}
	return s.Bavail * uint64(s.Bsize), nil
}

package unpack

import (
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// early is the size from which a file is written out by itself. Below it, that
// costs more than the file: 60,000 times 0.2 ms of a processor on ext4.
const early = 1 << 20

// syncers is how many files are synced at a time: enough to keep a disk busy.
const syncers = 8

// Sync makes the contents of unpacked files survive a power cut.
//
// One syncfs(2) does for all of them what takes as many fsync(2) otherwise, and
// each of those may be a commit of the file system's journal. It is used where
// it is known to wait for the disk, and to report what it could not write: on
// file systems of the kernel itself, since Linux 5.8. Everywhere else, network
// file systems among them, each file is synced. Directories, and with them the
// files' names, are left to the caller.
func Sync(root *os.Root, files []File) error {
	dir, err := root.Open(".")
	if err != nil {
		return fmt.Errorf("cannot sync: %w", err)
	}
	defer dir.Close()
	if whole(dir) {
		if err := unix.Syncfs(int(dir.Fd())); err != nil {
			return fmt.Errorf("cannot sync the volume: %w", err)
		}
		return nil
	}
	return each(root, files)
}

func each(root *os.Root, files []File) error {
	var group errgroup.Group
	group.SetLimit(syncers)
	for _, f := range files {
		if f.Link != "" {
			continue
		}
		group.Go(func() error {
			file, err := root.Open(f.Path)
			if err != nil {
				return fmt.Errorf("cannot sync: %w", err)
			}
			err = file.Sync()
			// Network file systems report a full disk here at the latest.
			if closeErr := file.Close(); err == nil {
				err = closeErr
			}
			if err != nil {
				return fmt.Errorf("cannot sync %s: %w", f.Path, err)
			}
			return nil
		})
	}
	return group.Wait()
}

// settle gives a written file its mode, whatever the umask made of it, and has the
// kernel begin to write it out: it would wait until a tenth of the memory is to be
// written, and the disk would be idle until Sync. It waits for nothing itself.
func settle(f *os.File, mode fs.FileMode) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if info.Mode() != mode {
		if err := f.Chmod(mode); err != nil {
			return err
		}
	}
	if info.Size() >= early {
		// Where that is unknown, Sync has more to do.
		_ = unix.SyncFileRange(int(f.Fd()), 0, 0, unix.SYNC_FILE_RANGE_WRITE)
	}
	return nil
}

// whole tells whether syncfs can be relied on.
func whole(dir *os.File) bool {
	var kernel unix.Utsname
	if unix.Uname(&kernel) != nil {
		return false
	}
	var major, minor int
	if n, _ := fmt.Sscanf(unix.ByteSliceToString(kernel.Release[:]), "%d.%d", &major, &minor); n != 2 || major < 5 || major == 5 && minor < 8 {
		return false
	}
	var s unix.Statfs_t
	if unix.Fstatfs(int(dir.Fd()), &s) != nil {
		return false
	}
	switch s.Type {
	case unix.EXT4_SUPER_MAGIC, unix.XFS_SUPER_MAGIC, unix.BTRFS_SUPER_MAGIC, unix.TMPFS_MAGIC:
		return true
	}
	return false
}

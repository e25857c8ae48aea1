package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// syncers is how many files are synced at a time: enough to keep a disk busy.
const syncers = 8

// Writes is what is written to a volume since Begin. It is for one goroutine.
type Writes struct {
	root   *os.Root
	volume *os.File
	whole  bool  // syncfs can be relied on
	lost   error // the kernel tells it once only
}

// Begin opens the volume of root. It has to be closed. Nothing is sent to the disk
// until Sync: what is removed before, as an archive is, never has to go there.
func Begin(root *os.Root) (*Writes, error) {
	volume, err := root.Open(".")
	if err != nil {
		return nil, fmt.Errorf("cannot begin to write: %w", err)
	}
	w := &Writes{root: root, volume: volume, whole: on(volume).syncfs && syncfsReports()}
	if w.whole {
		// An error from before that nobody was told of is told to the first who
		// syncs: it says nothing about what comes.
		_ = unix.Syncfs(int(volume.Fd()))
	}
	return w, nil
}

// Close ends what Begin began. It syncs nothing, and waits for nothing.
func (w *Writes) Close() error { return w.volume.Close() }

// Sync makes everything below a directory, and the directory, survive a power
// cut: what they hold and their names.
//
// One syncfs(2) does for all of them what takes as many fsync(2) otherwise, and
// each of those may be a commit of the file system's journal. It is used where
// it is known to wait for the disk, and to report what could not be written
// since Begin, since Linux 5.8. Everywhere else, on network file systems above all,
// each file and directory is synced.
func (w *Writes) Sync(dir string) error {
	if !w.whole {
		return w.each(dir)
	}
	if err := unix.Syncfs(int(w.volume.Fd())); err != nil && w.lost == nil {
		w.lost = fmt.Errorf("cannot sync the volume: %w", err)
	}
	return w.lost
}

func (w *Writes) each(dir string) error {
	var group errgroup.Group
	group.SetLimit(syncers)
	err := fs.WalkDir(w.root.FS(), dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		switch {
		case d.IsDir():
			group.Go(func() error { return SyncDir(w.root, name) })
		case d.Type().IsRegular():
			group.Go(func() error { return syncFile(w.root, name) })
		}
		return nil
	})
	if err = errors.Join(err, group.Wait()); err != nil {
		return fmt.Errorf("cannot sync what was written: %w", err)
	}
	return nil
}

func syncFile(root *os.Root, name string) error {
	f, err := root.Open(name)
	if err != nil {
		return err
	}
	// Network file systems report a full disk when it is closed, at the latest.
	return errors.Join(f.Sync(), f.Close())
}

// syncfsReports tells whether syncfs reports what could not be written since its
// descriptor was opened.
func syncfsReports() bool {
	var kernel unix.Utsname
	if unix.Uname(&kernel) != nil {
		return false
	}
	var major, minor int
	n, _ := fmt.Sscanf(unix.ByteSliceToString(kernel.Release[:]), "%d.%d", &major, &minor)
	return n == 2 && (major > 5 || major == 5 && minor >= 8)
}

// Whole tells whether Sync syncs all that was written to the volume.
func (w *Writes) Whole() bool { return w.whole }

// Local tells whether a volume is on a file system of this kernel, on which
// everyone sees a name as soon as it is there. Of others nobody knows.
func Local(root *os.Root) bool {
	dir, err := root.Open(".")
	if err != nil {
		return false
	}
	defer dir.Close()
	return on(dir).local
}

// fileSystem is what can be relied on. Of the kinds that are not listed, nothing can.
type fileSystem struct {
	// syncfs waits for all that was written, and reports what was lost.
	syncfs bool
	// local: no other machine changes it, so that nobody sees a change late.
	local bool
}

// on returns what can be relied on where dir is.
func on(dir *os.File) fileSystem {
	var s unix.Statfs_t
	if unix.Fstatfs(int(dir.Fd()), &s) != nil {
		return fileSystem{}
	}
	return fileSystemOf(uint32(s.Type))
}

// The kernel's own headers lack these.
const (
	zfs  = 0x2fc12fc1 // ZFS_SUPER_MAGIC, OpenZFS
	gfs2 = 0x01161970 // GFS2_MAGIC, linux/gfs2_ondisk.h
)

// fileSystemOf decides by the type that statfs(2) returns.
func fileSystemOf(kind uint32) fileSystem {
	switch kind {
	// What could not be written of a file is kept for each open descriptor of the
	// volume. One that cannot write its journal becomes read-only, or shuts down: then
	// the rename that publishes fails. What is on tmpfs does not survive in any case.
	case unix.EXT4_SUPER_MAGIC, unix.XFS_SUPER_MAGIC, unix.BTRFS_SUPER_MAGIC, unix.TMPFS_MAGIC:
		return fileSystem{syncfs: true, local: true}
	// Syncfs commits all of the intent log. Nothing is lost later that write(2) took: a
	// pool that cannot write is suspended, and keeps it. Syncfs does not wait for a
	// suspended pool, but the rename that publishes does.
	case zfs:
		return fileSystem{syncfs: true, local: true}
	// The log's error is returned, but other machines write to the same disk.
	case gfs2:
		return fileSystem{syncfs: true}
	// Syncfs of f2fs succeeds after a failed checkpoint, and with checkpoints switched
	// off. That of bcachefs, which has left the kernel, is not known well enough.
	case unix.F2FS_SUPER_MAGIC, unix.BCACHEFS_SUPER_MAGIC:
		return fileSystem{local: true}
	}
	// Among the rest: overlayfs passes syncfs on, but not what was lost before, and its
	// lower layers may be anywhere; ocfs2 ignores that its journal cannot be written.
	return fileSystem{}
}

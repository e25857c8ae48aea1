package durable

import (
	"os"

	"golang.org/x/sys/unix"
)

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

package probe

import (
	"cmp"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Volume is what the kernel tells of a mount and of the file system on it.
type Volume struct {
	// FileSystem is a name for people: "ext4" (also for ext2 and ext3), "nfs",
	// "fuse", and a number like "0x1badface" for what is not known here. It is
	// empty where the mount did not answer.
	FileSystem string `json:"file_system,omitempty"`
	ReadOnly   bool   `json:"read_only"`
	Inodes     Inodes `json:"inodes"`
}

// Inodes are the files and directories that a volume has room for. Total is 0
// where the file system sets no limit, or does not tell.
type Inodes struct {
	Free  uint64 `json:"free"`
	Total uint64 `json:"total"`
}

// short tells whether n more files do not fit.
func (i Inodes) short(n uint64) bool { return i.Total > 0 && i.Free < n }

func (v Volume) String() string {
	s := cmp.Or(v.FileSystem, "unknown file system")
	if v.ReadOnly {
		s += ", read-only"
	}
	if v.Inodes.Total > 0 {
		s += fmt.Sprintf(", %d of %d inodes free", v.Inodes.Free, v.Inodes.Total)
	}
	return s
}

// Flags tells, without writing, whether a mount has a flag with which it cannot carry a
// release: nil, ErrReadOnly, or, if files of it are executed, ErrNoExec.
func Flags(root *os.Root, execute bool) error {
	v, noExec, err := volumeOf(root, ".")
	switch {
	case err != nil:
		return fmt.Errorf("cannot read the flags of %s: %w", root.Name(), err)
	case v.ReadOnly:
		return refusal(ErrReadOnly, "%s is mounted so", root.Name())
	case noExec && execute:
		return refusal(ErrNoExec, "%s is mounted noexec", root.Name())
	}
	return nil
}

// volumeOf asks statfs of a directory, which writes nothing. It also tells whether the
// mount has the flag noexec.
func volumeOf(root *os.Root, name string) (v Volume, noExec bool, err error) {
	dir, err := root.OpenFile(name, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return v, false, err
	}
	defer dir.Close()
	var s unix.Statfs_t
	if err := unix.Fstatfs(int(dir.Fd()), &s); err != nil {
		return v, false, os.NewSyscallError("statfs", err)
	}
	// The types of these fields differ between architectures.
	kind, flags := uint32(s.Type), uint64(s.Flags)
	name, ok := fileSystems[kind]
	if !ok {
		name = fmt.Sprintf("%#x", kind)
	}
	return Volume{name, flags&unix.ST_RDONLY != 0, Inodes{s.Ffree, s.Files}}, flags&unix.ST_NOEXEC != 0, nil
}

// fileSystems are the magic numbers of statfs(2), and those of file systems that
// the kernel does not come with.
var fileSystems = map[uint32]string{
	unix.EXT4_SUPER_MAGIC: "ext4", unix.XFS_SUPER_MAGIC: "xfs", unix.BTRFS_SUPER_MAGIC: "btrfs", unix.F2FS_SUPER_MAGIC: "f2fs",
	unix.TMPFS_MAGIC: "tmpfs", unix.OVERLAYFS_SUPER_MAGIC: "overlay", unix.FUSE_SUPER_MAGIC: "fuse", unix.V9FS_MAGIC: "9p",
	unix.NFS_SUPER_MAGIC: "nfs", unix.CIFS_SUPER_MAGIC: "smb", unix.SMB2_SUPER_MAGIC: "smb", unix.AFS_FS_MAGIC: "afs",
	unix.CEPH_SUPER_MAGIC: "ceph", unix.OCFS2_SUPER_MAGIC: "ocfs2", 0x01161970: "gfs2", 0x0bd00bd0: "lustre", 0x47504653: "gpfs", 0x19830326: "beegfs",
	unix.MSDOS_SUPER_MAGIC: "vfat", unix.EXFAT_SUPER_MAGIC: "exfat", 0x5346544e: "ntfs", 0x7366746e: "ntfs3", 0x2fc12fc1: "zfs", 0xca451a4e: "bcachefs",
}

package certify

import (
	"io/fs"
	"os"
	"os/exec"
	"syscall"

	"github.com/gofrs/flock"
	"golang.org/x/sys/unix"
)

// files is what the checks ask a file system for. Tests have some that lie.
type files interface {
	Mkdir(path string) error
	Write(path string, data []byte, mode fs.FileMode) error
	Create(path string) error // where nothing is
	Read(path string) ([]byte, error)
	Link(old, path string) error
	Symlink(target, path string) error
	Readlink(path string) (string, error)
	Rename(old, path string) error
	Chmod(path string, mode fs.FileMode) error
	Stat(path string) (identity, error) // follows no symbolic link
	Names(path string) ([]string, error)
	Sync(path string) error // a file or a directory
	Execute(path string) error
	Lock(path string) (lock, bool, error) // does not wait
	Room(path string) (room, error)
}

// lock is one that is held.
type lock interface{ Unlock() error }

// identity is what must not change of a file that nobody touches.
type identity struct {
	Inode    uint64      `json:"inode"`
	Size     int64       `json:"size"`
	Mode     fs.FileMode `json:"mode"`
	Modified int64       `json:"modified"` // by the server's clock, never compared with another one
}

// room is what is free.
type room struct {
	Bytes  uint64
	Inodes uint64
	// Countless: the file system does not say how many inodes there are.
	Countless bool
}

// disk is the file system as it is.
type disk struct{}

func (disk) Mkdir(path string) error { return os.Mkdir(path, 0o755) }

func (disk) Write(path string, data []byte, mode fs.FileMode) error {
	return os.WriteFile(path, data, mode)
}

func (disk) Create(path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	return f.Close()
}

func (disk) Read(path string) ([]byte, error)          { return os.ReadFile(path) }
func (disk) Link(old, path string) error               { return os.Link(old, path) }
func (disk) Symlink(target, path string) error         { return os.Symlink(target, path) }
func (disk) Readlink(path string) (string, error)      { return os.Readlink(path) }
func (disk) Rename(old, path string) error             { return syscall.Rename(old, path) }
func (disk) Chmod(path string, mode fs.FileMode) error { return os.Chmod(path, mode) }

func (disk) Stat(path string) (identity, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return identity{}, err
	}
	return identity{info.Sys().(*syscall.Stat_t).Ino, info.Size(), info.Mode(), info.ModTime().UnixNano()}, nil
}

func (disk) Names(path string) ([]string, error) {
	d, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	return d.Readdirnames(-1)
}

func (disk) Sync(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

func (disk) Execute(path string) error { return exec.Command(path).Run() }

func (disk) Lock(path string) (lock, bool, error) {
	f := flock.New(path)
	got, err := f.TryLock()
	return f, got, err
}

func (disk) Room(path string) (room, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(path, &s); err != nil {
		return room{}, os.NewSyscallError("statfs", err)
	}
	return room{Bytes: s.Bavail * uint64(s.Bsize), Inodes: s.Ffree, Countless: s.Files == 0}, nil
}

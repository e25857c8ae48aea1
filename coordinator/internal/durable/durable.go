// Package durable changes single names so that a power cut leaves the old
// state or the new one, never neither: the file is synced before it gets its
// name, and the directory after.
//
// All names are below an os.Root, which stays the same volume whatever is
// mounted over it or unmounted meanwhile.
package durable

import (
	"cmp"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"syscall"
)

// Replace puts data at name, in place of what is there. Readers see the old
// content or the new one. The guards are asked when all is written but the name, which
// an error of theirs prevents.
func Replace(root *os.Root, name string, data []byte, guards ...func() error) error {
	tmp, err := private(root, name, data, guards)
	if err != nil {
		return err
	}
	return swap(root, tmp, name)
}

// Create puts data at name if nothing is there. Of any number of callers on any
// number of machines one succeeds; the others get fs.ErrExist. The guards are those
// of Replace.
func Create(root *os.Root, name string, data []byte, guards ...func() error) error {
	tmp, err := private(root, name, data, guards)
	if err != nil {
		return err
	}
	defer root.Remove(tmp)
	if err := Link(root, tmp, name); err != nil {
		return fmt.Errorf("cannot create %s: %w", name, err)
	}
	return SyncDir(root, path.Dir(name))
}

// Symlink makes name a symbolic link to target, in place of what is there,
// unless it is that link already.
func Symlink(root *os.Root, target, name string) error {
	if old, err := root.Readlink(name); err == nil && old == target {
		return nil
	}
	tmp := hidden(name)
	if err := root.Symlink(target, tmp); err != nil {
		return fmt.Errorf("cannot link %s: %w", name, err)
	}
	return swap(root, tmp, name)
}

// swap gives what has the private name tmp another name.
func swap(root *os.Root, tmp, name string) error {
	if err := Rename(root, tmp, name); err != nil {
		// Only this process knows the private name. If it is gone, it was renamed,
		// and another process has replaced name since.
		if removeErr := root.Remove(tmp); !errors.Is(removeErr, fs.ErrNotExist) {
			return fmt.Errorf("cannot replace %s: %w", name, err)
		}
	}
	return SyncDir(root, path.Dir(name))
}

// Mkdir makes a directory with the mode, whatever the umask is. One that is
// there already is left as it is.
func Mkdir(root *os.Root, name string, mode fs.FileMode) error {
	err := root.Mkdir(name, mode)
	if errors.Is(err, fs.ErrExist) {
		if NotDir(root, name) {
			return fmt.Errorf("%w: %w", syscall.ENOTDIR, err)
		}
		return nil
	}
	if err != nil {
		// Made, and reported as a failure?
		if info, statErr := root.Lstat(name); statErr != nil || !info.IsDir() {
			return err
		}
	}
	if err := root.Chmod(name, mode); err != nil {
		return err
	}
	return SyncDir(root, path.Dir(name))
}

// NotDir tells whether a name is that of something else than a directory, or a link to
// one.
func NotDir(root *os.Root, name string) bool {
	if info, err := root.Stat(name); err == nil {
		return !info.IsDir()
	}
	_, err := root.Lstat(name)
	return err == nil
}

// SyncDir makes the names in a directory survive a power cut.
func SyncDir(root *os.Root, dir string) error {
	d, err := root.OpenFile(dir, os.O_RDONLY|syscall.O_DIRECTORY, 0)
	if err != nil {
		return fmt.Errorf("cannot sync directory: %w", err)
	}
	defer d.Close()
	// Where directories cannot be synced, their names need no such thing.
	if err := d.Sync(); err != nil && !errors.Is(err, syscall.EINVAL) && !errors.Is(err, syscall.ENOTSUP) {
		return fmt.Errorf("cannot sync directory: %w", err)
	}
	return nil
}

// OpenRoot opens a directory as a root of its own. A pipe is an error at once: the
// slash has Root look before it opens.
func OpenRoot(root *os.Root, dir string) (*os.Root, error) { return root.OpenRoot(dir + "/") }

// Names lists a directory, in no order. It looks at no file, which ReadDir does
// below a Root.
func Names(root *os.Root, dir string) ([]string, error) {
	d, err := root.OpenFile(dir, os.O_RDONLY|syscall.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	return d.Readdirnames(-1)
}

// ErrUnusable: what has the name of a file is no regular file, or is larger than such a
// file ever is.
var ErrUnusable = errors.New("not a regular file, or too large")

// Open opens a file for reading. Where there is something else, such as a pipe, which
// would not be open before somebody writes to it, or a link that leads nowhere or out
// of the root, the error is ErrUnusable.
func Open(root *os.Root, name string) (*os.File, error) {
	f, _, err := openSized(root, name)
	return f, err
}

func openSized(root *os.Root, name string) (f *os.File, size int64, err error) {
	f, err = root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		if info, statErr := root.Lstat(name); statErr == nil && !info.Mode().IsRegular() {
			err = fmt.Errorf("%s: %w: %v", name, ErrUnusable, err)
		}
		return nil, 0, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s: %w: it has mode %v", name, ErrUnusable, info.Mode())
	}
	if err != nil {
		f.Close()
		return nil, 0, err
	}
	return f, info.Size(), nil
}

// maxSmall is far more than anything that ReadFile is for.
const maxSmall = 64 << 10

// ReadFile reads a small file. One that another machine has just replaced may be
// stale: it is looked up once more then, by its name.
func ReadFile(root *os.Root, name string) ([]byte, error) {
	return Again(func() ([]byte, error) { return Read(root, name, maxSmall) })
}

// Again repeats what failed with ESTALE, which a network file system says once of
// a name that was replaced meanwhile.
func Again[T any](do func() (T, error)) (T, error) {
	v, err := do()
	if errors.Is(err, syscall.ESTALE) {
		v, err = do()
	}
	return v, err
}

// Read reads a file that has limit bytes at most.
func Read(root *os.Root, name string, limit int64) ([]byte, error) {
	f, size, err := openSized(root, name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if size > limit {
		return nil, fmt.Errorf("%s: %w: it has %d bytes", name, ErrUnusable, size)
	}
	data := make([]byte, size)
	_, err = io.ReadFull(f, data) // another read would cost a request to see the end
	return data, err
}

// Write writes a file in place, and syncs nothing. A pipe is an error at once.
func Write(root *os.Root, name string, data []byte) error {
	f, err := root.OpenFile(name, os.O_CREATE|os.O_TRUNC|os.O_WRONLY|syscall.O_NONBLOCK, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return cmp.Or(err, f.Close())
}

// private writes and syncs data under a hidden name beside name, and asks the guards.
func private(root *os.Root, name string, data []byte, guards []func() error) (string, error) {
	tmp := hidden(name)
	f, err := root.OpenFile(tmp, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return "", fmt.Errorf("cannot write %s: %w", name, err)
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Chmod(0o644)
	}
	if err == nil {
		err = f.Sync()
	}
	err = cmp.Or(err, f.Close())
	for _, guard := range guards {
		if err == nil {
			err = guard()
		}
	}
	if err != nil {
		root.Remove(tmp)
		return "", fmt.Errorf("cannot write %s: %w", name, err)
	}
	return tmp, nil
}

// hidden returns an unused name beside name.
func hidden(name string) string {
	return path.Join(path.Dir(name), "."+path.Base(name)+"."+rand.Text())
}

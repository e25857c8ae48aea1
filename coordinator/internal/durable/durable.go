// Package durable changes single names so that a power cut leaves the old
// state or the new one, never neither: the file is synced before it gets its
// name, and the directory after.
package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// Replace puts data at path, in place of what is there. Readers see the old
// content or the new one.
func Replace(path string, data []byte) error {
	tmp, err := private(path, data)
	if err != nil {
		return err
	}
	if err := Rename(tmp, path); err != nil {
		os.Remove(tmp)
		return fmt.Errorf("cannot replace %s: %w", path, err)
	}
	return SyncDir(filepath.Dir(path))
}

// Create puts data at path if nothing is there. Of any number of callers on any
// number of machines one succeeds; the others get fs.ErrExist.
func Create(path string, data []byte) error {
	tmp, err := private(path, data)
	if err != nil {
		return err
	}
	defer os.Remove(tmp)
	if err := link(tmp, path); err != nil {
		return fmt.Errorf("cannot create %s: %w", path, err)
	}
	return SyncDir(filepath.Dir(path))
}

// Symlink makes path a symbolic link to target, in place of what is there,
// unless it is that link already.
func Symlink(target, path string) error {
	if old, err := os.Readlink(path); err == nil && old == target {
		return nil
	}
	// An unused name can be had for files only: a private file lends its own.
	tmp, err := private(path, nil)
	if err != nil {
		return err
	}
	defer os.Remove(tmp)
	if err := os.Symlink(target, tmp+".link"); err != nil {
		return fmt.Errorf("cannot link %s: %w", path, err)
	}
	if err := Rename(tmp+".link", path); err != nil {
		os.Remove(tmp + ".link")
		return fmt.Errorf("cannot replace %s: %w", path, err)
	}
	return SyncDir(filepath.Dir(path))
}

// Mkdir makes the directory path with the mode, whatever the umask is. A
// directory that is there already is left as it is.
func Mkdir(path string, mode fs.FileMode) error {
	err := os.Mkdir(path, mode)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		// Made, and reported as a failure?
		if info, statErr := os.Lstat(path); statErr != nil || !info.IsDir() {
			return err
		}
	}
	if err := os.Chmod(path, mode); err != nil {
		return err
	}
	return SyncDir(filepath.Dir(path))
}

// SyncDir makes the names in a directory survive a power cut.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
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

// private writes and syncs data under a hidden name beside path.
func private(path string, data []byte) (string, error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return "", fmt.Errorf("cannot write %s: %w", path, err)
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Chmod(0o644)
	}
	if err == nil {
		err = f.Sync()
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		os.Remove(f.Name())
		return "", fmt.Errorf("cannot write %s: %w", path, err)
	}
	return f.Name(), nil
}

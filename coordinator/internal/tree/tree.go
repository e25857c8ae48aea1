// Package tree removes directory trees, but nothing that is mounted in them, and
// unmounts what a dead process has left there.
package tree

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrMounted: something is mounted in the tree.
var ErrMounted = errors.New("something is mounted there")

const (
	// batch is how many names of a directory are read at a time.
	batch = 1024
	// openLevels is how many directories of one path are open at a time.
	openLevels = 64
)

// Remove removes what has the name below root: a file, or a directory with all
// that is in it. It never enters what is mounted there, follows no symbolic link,
// and goes on after a failure: the error names each mount point that is left, and is
// ErrMounted then, and the first of the other failures. A name that does not exist
// is no error; one that is not below root is fs.ErrInvalid.
//
// Others may change the tree meanwhile. What they add is removed, too: while they
// do not stop, only the end of ctx ends the removal.
func Remove(ctx context.Context, root *os.Root, name string) error {
	return remove(ctx, root, name, openBelow)
}

func remove(ctx context.Context, root *os.Root, name string, open opener) error {
	if !fs.ValidPath(name) || name == "." {
		return fmt.Errorf("cannot remove %q: %w", name, fs.ErrInvalid)
	}
	parent, err := root.OpenFile(path.Dir(name), os.O_RDONLY|unix.O_DIRECTORY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("cannot remove %s: %w", name, err)
	}
	defer parent.Close()
	r := remover{ctx: ctx, open: open}
	r.remove(parent, path.Base(name))
	if ctx.Err() != nil {
		return fmt.Errorf("cannot remove %s: %w", name, context.Cause(ctx))
	}
	if err = r.failed; r.more > 0 {
		err = fmt.Errorf("%w (and %d more)", err, r.more)
	}
	if r.mounts != nil {
		mounts := strings.Join(r.mounts, ", ")
		err = errors.Join(err, fmt.Errorf("cannot remove %s: %w: unmount it first", mounts, ErrMounted))
	}
	return err
}

// remover walks a tree. It holds directories by their descriptors, so that a name
// which somebody replaces by a symbolic link leads nowhere.
type remover struct {
	ctx     context.Context
	open    opener
	way     []*os.File // from the top of the tree to where the walk is
	removed int        // how many names
	mounts  []string
	failed  error // the first failure
	more    int   // how many others
}

// errTold: what is left in a directory has been told.
var errTold = errors.New("something is left")

// remove tells whether nothing in dir has the name any more.
func (r *remover) remove(dir *os.File, name string) (gone bool) {
	for busy := false; r.ctx.Err() == nil; {
		err := unlink(dir, name, 0)
		if err != nil && err != unix.ENOENT {
			err = r.removeDir(dir, name, err)
		}
		switch {
		case err == nil || err == unix.ENOENT:
			r.removed++
			return true
		case err == unix.EXDEV:
			r.mounts = append(r.mounts, filepath.Join(dir.Name(), name))
			return false
		case err == errTold:
			return false
		case err == unix.ENOTDIR || err == unix.ELOOP:
			// It was a directory a moment ago: try again.
		case err == unix.EBUSY && !busy:
			busy = true // something may be mounted there by now: try again
		default:
			return r.fail(filepath.Join(dir.Name(), name), err)
		}
	}
	return false
}

// removeDir removes a directory with what is in it. why is the reason for which it
// could not be unlinked, as what is no directory cannot be either.
func (r *remover) removeDir(parent *os.File, name string, why error) error {
	fd, err := r.open(int(parent.Fd()), name)
	if err != nil && err != unix.EXDEV && why != unix.EISDIR {
		return why
	}
	if err != nil {
		return err
	}
	dir := os.NewFile(uintptr(fd), filepath.Join(parent.Name(), name))
	defer dir.Close()
	// What lies deep is moved to the top of the tree, where its turn comes later: it
	// neither takes a descriptor for each level, nor a way back through "..", which may
	// lead elsewhere by then. Where it cannot be moved, descriptors have to do.
	if len(r.way) >= openLevels && unix.Renameat(int(parent.Fd()), name, int(r.way[0].Fd()), rand.Text()) == nil {
		return nil
	}
	r.way = append(r.way, dir)
	defer func() { r.way = r.way[:len(r.way)-1] }()
	left := map[string]bool{}
	// Reading may skip names while others are removed, and somebody may add some: what
	// is not empty is read again, until that removes nothing.
	for before := -1; ; before = r.removed {
		r.empty(dir, left)
		if r.ctx.Err() != nil {
			return errTold
		}
		err := unlink(parent, name, unix.AT_REMOVEDIR)
		if err != unix.ENOTEMPTY && err != unix.EEXIST {
			return err
		}
		if r.removed == before {
			if len(left) > 0 {
				return errTold
			}
			return err
		}
		if _, seekErr := dir.Seek(0, io.SeekStart); seekErr != nil {
			return seekErr
		}
	}
}

// empty reads a directory to its end and removes what is not known to be left.
func (r *remover) empty(dir *os.File, left map[string]bool) {
	for r.ctx.Err() == nil {
		names, err := dir.Readdirnames(batch)
		for _, name := range names {
			if !left[name] && !r.remove(dir, name) {
				left[name] = true
			}
		}
		if err != nil {
			if err != io.EOF && !errors.Is(err, fs.ErrNotExist) {
				left["."] = true
				r.fail(dir.Name(), err)
			}
			return
		}
	}
}

func (r *remover) fail(name string, err error) (gone bool) {
	if r.failed == nil {
		r.failed = fmt.Errorf("cannot remove %s: %w", name, err)
	} else {
		r.more++
	}
	return false
}

func unlink(dir *os.File, name string, flags int) error {
	for {
		if err := unix.Unlinkat(int(dir.Fd()), name, flags); err != unix.EINTR {
			return err
		}
	}
}

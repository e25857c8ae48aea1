// Package tree removes directory trees, but nothing that is mounted in them, and
// unmounts what a dead process has left there.
package tree

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrMounted: something is mounted in the tree.
var ErrMounted = errors.New("something is mounted there")

// MountedError names the mount points that Remove left. It is ErrMounted.
type MountedError struct{ Paths []string }

func (e *MountedError) Error() string {
	return fmt.Sprintf("cannot remove %s: %v: unmount it first", strings.Join(e.Paths, ", "), ErrMounted)
}

func (e *MountedError) Unwrap() error { return ErrMounted }

// Remove removes what has the name below root: a file, or a directory with all
// that is in it. It never enters what is mounted there, follows no symbolic link,
// and goes on after a failure: the error names each mount point that is left
// (*MountedError) and the first of the other failures. A name that does not exist
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
	r := remover{open: open, stack: []*level{{name: parent.Name(), dir: parent, names: []string{path.Base(name)}, read: true}}}
	defer r.close()
	for {
		l := r.stack[len(r.stack)-1]
		switch {
		case ctx.Err() != nil:
			return fmt.Errorf("cannot remove %s: %w", name, context.Cause(ctx))
		case r.next(l):
			r.entry(l)
		case len(r.stack) == 1:
			return r.outcome()
		default:
			if err := r.leave(l); err != nil {
				return errors.Join(err, r.outcome())
			}
		}
	}
}

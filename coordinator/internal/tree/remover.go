package tree

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

const (
	// batch is how many names of a directory are read at a time.
	batch = 1024
	// openLevels is how many directories of one path are open at a time.
	openLevels = 64
)

// remover walks a tree. It holds directories by their descriptors, so that a name
// which somebody replaces by a symbolic link leads nowhere.
type remover struct {
	open   opener
	stack  []*level // from the parent of the tree to where the walk is
	mounts []string
	failed error // the first failure
	more   int   // how many others
}

// level is a directory that is being emptied.
type level struct {
	name  string
	dir   *os.File        // nil while too many are open
	inode unix.Stat_t     // of dir, while that is nil
	names []string        // to be removed next
	read  bool            // to the end
	left  map[string]bool // what cannot be removed
	again bool            // something may be there that was not read
}

func (l *level) fd() int { return int(l.dir.Fd()) }

func (l *level) leave(name string) {
	if l.left == nil {
		l.left = map[string]bool{}
	}
	l.left[name] = true
}

// next tells whether there is something to remove: the last of l.names.
func (r *remover) next(l *level) bool {
	for {
		for i := len(l.names) - 1; i >= 0; i-- {
			if !l.left[l.names[i]] {
				l.names = l.names[:i+1]
				return true
			}
		}
		if l.names = nil; l.read {
			return false
		}
		var err error
		l.names, err = l.dir.Readdirnames(batch)
		l.read = err != nil
		if err != nil && err != io.EOF && !errors.Is(err, fs.ErrNotExist) {
			r.fail(l, ".", err)
		}
	}
}

// entry removes the last of l.names, or enters it if it is a directory.
func (r *remover) entry(l *level) {
	name := l.names[len(l.names)-1]
	err := unlink(l.fd(), name, 0)
	if err == nil || err == unix.ENOENT {
		l.names = l.names[:len(l.names)-1]
		l.again = true
		return
	}
	dir, openErr := r.open(l.fd(), name)
	switch {
	case openErr == nil:
		l.names = l.names[:len(l.names)-1]
		r.enter(name, dir)
	case openErr == unix.EXDEV:
		r.mounted(l, name)
	case err != unix.EISDIR:
		r.fail(l, name, err)
	case openErr != unix.ENOENT && openErr != unix.ENOTDIR && openErr != unix.ELOOP:
		r.fail(l, name, openErr)
	default:
		// It was a directory a moment ago: try again.
	}
}

// enter goes on in a directory. The highest of many is closed meanwhile.
func (r *remover) enter(name string, dir int) {
	r.stack = append(r.stack, &level{name: name, dir: os.NewFile(uintptr(dir), name), again: true})
	if i := len(r.stack) - openLevels; i > 0 {
		l := r.stack[i]
		if unix.Fstat(l.fd(), &l.inode) == nil {
			l.dir.Close()
			l.dir = nil
		}
	}
}

// leave removes a directory that has been read to its end. While it is not empty it
// is read again, until that removes nothing: reading may skip names while others are
// removed, and somebody may add some.
func (r *remover) leave(l *level) error {
	up := r.stack[len(r.stack)-2]
	if up.dir == nil {
		if err := r.reopen(up, l); err != nil {
			return err
		}
	}
	err := unlink(up.fd(), l.name, unix.AT_REMOVEDIR)
	if (err == unix.ENOTEMPTY || err == unix.EEXIST) && l.again {
		l.again, l.read = false, false
		if _, err := l.dir.Seek(0, io.SeekStart); err == nil {
			return nil
		}
	}
	l.dir.Close()
	r.stack = r.stack[:len(r.stack)-1]
	switch {
	case err == nil || err == unix.ENOENT:
		up.again = true
	case err == unix.ENOTDIR: // replaced meanwhile
		up.names = append(up.names, l.name)
	case err == unix.EBUSY && r.isMount(up, l.name):
		r.mounted(up, l.name)
	case len(l.left) > 0: // which has been told
		up.leave(l.name)
	default:
		r.fail(up, l.name, err)
	}
	return nil
}

// reopen opens a directory anew, as the parent of one below. If that was moved,
// its parent is another one, in which nothing must be touched.
func (r *remover) reopen(l, below *level) error {
	var inode unix.Stat_t
	fd, err := r.open(below.fd(), "..")
	if err == nil {
		l.dir = os.NewFile(uintptr(fd), l.name)
		err = unix.Fstat(fd, &inode)
	}
	if err != nil {
		return fmt.Errorf("cannot go back to %s: %w", r.path(l, "."), err)
	}
	if inode.Dev != l.inode.Dev || inode.Ino != l.inode.Ino {
		return fmt.Errorf("cannot remove %s: it was moved meanwhile", r.path(below, "."))
	}
	l.read = false // from the beginning
	return nil
}

func (r *remover) isMount(l *level, name string) bool {
	fd, err := r.open(l.fd(), name)
	if err == nil {
		unix.Close(fd)
	}
	return err == unix.EXDEV
}

func (r *remover) mounted(l *level, name string) {
	l.leave(name)
	r.mounts = append(r.mounts, r.path(l, name))
}

func (r *remover) fail(l *level, name string, err error) {
	l.leave(name)
	if r.failed == nil {
		r.failed = fmt.Errorf("cannot remove %s: %w", r.path(l, name), err)
	} else {
		r.more++
	}
}

// path returns the path of a name in a level.
func (r *remover) path(l *level, name string) string {
	var names []string
	for _, above := range r.stack {
		names = append(names, above.name)
		if above == l {
			break
		}
	}
	return filepath.Join(append(names, name)...)
}

func (r *remover) outcome() error {
	err := r.failed
	if r.more > 0 {
		err = fmt.Errorf("%w (and %d more)", err, r.more)
	}
	if r.mounts != nil {
		err = errors.Join(err, &MountedError{r.mounts})
	}
	return err
}

func (r *remover) close() {
	for _, l := range r.stack {
		l.dir.Close() // also nil
	}
}

func unlink(dir int, name string, flags int) error {
	for {
		if err := unix.Unlinkat(dir, name, flags); err != unix.EINTR {
			return err
		}
	}
}

package coordinator

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/probe"
)

// leastBytes have to be free: with less, not even what units note down can be written.
const leastBytes = 1 << 20

// Check is View.Check, and tells a unit whether it can work with the volume as it is
// mounted now: ErrReadOnly, ErrNoExec if the product has executables, and ErrNoSpace when
// nothing more can be written. It writes nothing.
func (c *Coordinator) Check(ctx context.Context) error {
	_, err := read(ctx, &c.View, task{doing: "use", what: c.dir}, func(_ context.Context, in *volume) (struct{}, error) {
		if err := probe.Flags(in.root, len(c.product.Executables) > 0); err != nil {
			return struct{}{}, err
		}
		free, err := in.room()
		switch { // without numbers, which would be news each time
		case err != nil:
		case free.files == 0:
			err = fmt.Errorf("%w: no inode is free", ErrNoSpace)
		case free.bytes < leastBytes:
			err = fmt.Errorf("%w: less than %s is free", ErrNoSpace, megabytes(leastBytes))
		}
		return struct{}{}, err
	})
	return err
}

// Executable tells whether a user of this machine can start the programs of a release by
// its link: nil, or ErrNoAccess, which names what is in the way. It is for who starts them
// as another user: root may do everything. Errors are those of Installed, too.
func (v *View) Executable(ctx context.Context, version string, uid, gid int) error {
	t := v.about("execute", version)
	_, err := read(ctx, v, t, func(_ context.Context, in *volume) (struct{}, error) {
		e, err := in.place(t.version)
		if err != nil {
			return struct{}{}, err
		}
		paths := []string{filepath.Join(v.dir, releasesDir)}
		for _, name := range v.product.Executables {
			paths = append(paths, filepath.Join(v.dir, path.Join(e.dir(), name)))
		}
		return struct{}{}, asUser(uid, gid, func() error { return passable(paths) })
	})
	return err
}

// passable names the first part of a path that shuts the user out.
func passable(paths []string) error {
	for _, name := range paths {
		for i := 1; i <= len(name); i++ {
			if i < len(name) && name[i] != '/' {
				continue
			}
			if part := name[:i]; errors.Is(unix.Faccessat(unix.AT_FDCWD, part, unix.X_OK, unix.AT_EACCESS), fs.ErrPermission) {
				return fmt.Errorf("%w: %s shuts it out: run `chmod o+rx %s`", ErrNoAccess, part, part)
			}
		}
	}
	return nil // what is not there is another matter
}

// asUser does something in a thread that has another user's rights on files, and ends with
// it. The kernel then answers with all that it knows: modes, lists, the rules of a server.
func asUser(uid, gid int, do func() error) error {
	result := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked
		// Who may not become another user asks for itself.
		unix.RawSyscall(unix.SYS_SETGROUPS, 0, 0, 0)
		result <- errors.Join(unix.Setfsgid(gid), unix.Setfsuid(uid), do())
	}()
	return <-result
}

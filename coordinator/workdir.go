package coordinator

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/durable"
	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/mount"
	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/tree"
	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/probe"
)

// workerMode is that of a worker's directory. Nobody but root can list it, but all can
// pass: the root of a build's user namespace reaches its file system through it.
const workerMode = os.ModeDir | 0o711

// WorkerDir makes, and returns, the directory for this unit's own state on the volume:
// ROOT/worker/APP-N, with mode 0711.
func (c *Coordinator) WorkerDir(ctx context.Context) (string, error) {
	dir := path.Join(workerDir, fileName(c.options.Unit))
	full := filepath.Join(c.dir, dir)
	return write(ctx, c, task{doing: "make", what: full}, func(_ context.Context, u *unit) (string, error) {
		return full, makeWorkerDir(u.root, dir)
	})
}

func makeWorkerDir(root *os.Root, dir string) error {
	// One that is right costs no change: a volume that is full refuses even that.
	if info, err := root.Lstat(dir); err == nil && info.Mode() == workerMode {
		return nil
	}
	// Mkdir leaves one that is there as it is, with whatever mode.
	return errors.Join(durable.Mkdir(root, dir, workerMode.Perm()), root.Chmod(dir, workerMode.Perm()))
}

// WorkerDirBelow makes, and returns, the directory for this unit's own state outside of the
// volume: DIR/APP-N, as WorkerDir makes it, and what is missing above it. The path that it
// returns has no symbolic links.
//
// made are the paths that it has returned before. A directory that is there and is none of
// them is somebody else's, unless it is empty: the error is fs.ErrExist. Other errors are
// ErrOptions for a directory that is on the volume, ErrReadOnly, ErrNoExec as no build
// could execute anything there, and ErrNoAccess if a directory above lets only its owner
// pass. ErrHung may be about the mount of DIR, too.
func (c *Coordinator) WorkerDirBelow(ctx context.Context, dir string, made []string) (string, error) {
	full := filepath.Join(dir, fileName(c.options.Unit))
	made = slices.Clone(made) // the call may be left behind
	volume, err := read(ctx, &c.View, task{doing: "make", what: full}, func(_ context.Context, in *volume) (string, error) {
		return filepath.EvalSymlinks(in.view.dir)
	})
	if err != nil {
		return "", err
	}
	real, err := mount.Call(ctx, mount.At(full), func(ctx context.Context) (string, error) {
		return workerDirOutside(ctx, volume, full, made)
	})
	return real, failed("make", full, err)
}

func workerDirOutside(ctx context.Context, volume, full string, made []string) (string, error) {
	above, name := filepath.Dir(full), filepath.Base(full)
	if err := os.MkdirAll(above, 0o755); err != nil {
		return "", err
	}
	above, err := filepath.EvalSymlinks(above)
	if err != nil {
		return "", err
	}
	if full = filepath.Join(above, name); strings.HasPrefix(full, volume+"/") {
		return "", fmt.Errorf("%w: it is on the volume %s", ErrOptions, volume)
	}
	root, err := os.OpenRoot(above)
	if err != nil {
		return "", err
	}
	defer root.Close()
	if ctx.Err() != nil {
		return "", context.Cause(ctx)
	}
	if !slices.Contains(made, full) {
		// An empty one may have been made by a call of this unit that nobody remembers.
		if err := unix.Rmdir(full); err != nil && err != unix.ENOENT && err != unix.EROFS {
			return "", fmt.Errorf("%w: this unit has not made what is there: move it away", fs.ErrExist)
		}
	}
	if err := makeWorkerDir(root, name); err != nil {
		return "", err
	}
	it, err := durable.OpenRoot(root, name)
	if err != nil {
		return "", err
	}
	defer it.Close()
	if err := probe.Flags(it, true); err != nil {
		return "", err
	}
	const nobody = 65534 // as the root of a build's user namespace, it is nobody's owner
	return full, asUser(nobody, nobody, func() error { return passable([]string{full}) })
}

// RemoveWorkerDir removes what WorkerDir has made, of a unit whose worker keeps its state
// elsewhere, in the way that Leave does.
func (c *Coordinator) RemoveWorkerDir(ctx context.Context) error {
	dir := path.Join(workerDir, fileName(c.options.Unit))
	_, err := write(ctx, c, task{doing: "remove", what: filepath.Join(c.dir, dir)}, func(ctx context.Context, u *unit) (struct{}, error) {
		err := u.allow(ctx)
		if err == nil {
			err = removeWorkerDir(ctx, u.root, dir)
		}
		return struct{}{}, err
	})
	return err
}

// RemoveWorkerDir removes a directory that Coordinator.WorkerDirBelow has returned. No
// worker may run in it any more. Overlays that one has left there are unmounted; anything
// else that is mounted there is ErrMounted, which names it, and everything but it and what
// it lies in is removed. One that is not there is no error. ErrHung is about its mount.
func RemoveWorkerDir(ctx context.Context, dir string) error {
	_, err := mount.Call(ctx, mount.At(dir), func(ctx context.Context) (struct{}, error) {
		root, err := os.OpenRoot(filepath.Dir(dir))
		if errors.Is(err, fs.ErrNotExist) {
			return struct{}{}, nil
		}
		if err != nil {
			return struct{}{}, err
		}
		defer root.Close()
		return struct{}{}, removeWorkerDir(ctx, root, filepath.Base(dir))
	})
	return failed("remove", dir, err)
}

// removeWorkerDir removes what is in the tree itself. What a dead worker has mounted there
// is in the way; what anybody else has is none of this unit's business.
func removeWorkerDir(ctx context.Context, root *os.Root, dir string) error {
	full := filepath.Join(root.Name(), dir)
	_, unmountErr := tree.Unmount(ctx, full, tree.OverlayWithin(full))
	if err := tree.Remove(ctx, root, dir); err != nil {
		return errors.Join(err, unmountErr)
	}
	return nil
}

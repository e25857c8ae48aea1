package coordinator

import (
	"context"
	"errors"
	"fmt"
	"path"
	"path/filepath"
	"strings"

	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/durable"
	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/tree"
)

// WorkerDir makes, and returns, the directory for this unit's own state:
// ROOT/worker/APP-N. Nobody but root can list it, but all can pass (mode 0711):
// the root of a build's user namespace reaches its file system through it.
func (c *Coordinator) WorkerDir(ctx context.Context) (string, error) {
	dir := path.Join(workerDir, fileName(c.options.Unit))
	full := filepath.Join(c.dir, dir)
	return write(ctx, c, "make", full, func(_ context.Context, u *unit) (string, error) {
		// Mkdir leaves one that is there as it is, with whatever mode.
		return full, errors.Join(durable.Mkdir(u.root, dir, 0o711), u.root.Chmod(dir, 0o711))
	})
}

// Leave is Forget for this unit: it goes away for good.
func (c *Coordinator) Leave(ctx context.Context) error { return c.Forget(ctx, c.options.Unit) }

// Forget removes a unit's pin, its worker directory, what it has noted about its
// mount and what it has staged: the unit is gone for good, and must not run any more.
// What is mounted below the worker directory is not touched: overlays that a worker of
// this machine has left there are unmounted; anything else is ErrMounted, which names
// it, and everything but it and what it lies in is removed.
func (c *Coordinator) Forget(ctx context.Context, unitName string) error {
	if !validUnit(unitName) {
		return failed("forget", unitName, fmt.Errorf("%w: %q is no name of a unit, such as ci/0", ErrOptions, unitName))
	}
	_, err := write(ctx, c, "forget", unitName, func(ctx context.Context, u *unit) (struct{}, error) {
		return struct{}{}, u.forget(ctx, fileName(unitName))
	})
	return err
}

func (u *unit) forget(ctx context.Context, name string) error {
	pins, err := durable.Names(u.root, pinsDir)
	if err != nil {
		return fmt.Errorf("cannot read the pins: %w", err)
	}
	if err := u.allow(ctx); err != nil {
		return err
	}
	for _, pin := range pins {
		if owner, _, _ := strings.Cut(pin, "."); owner == name {
			err = errors.Join(err, tree.Remove(ctx, u.root, path.Join(pinsDir, pin)))
		}
	}
	return errors.Join(
		err,
		tree.Remove(ctx, u.root, path.Join(probesDir, name)),
		u.removeWorkerDir(ctx, path.Join(workerDir, name)),
		u.sweep(ctx, func(s staged) bool { return s.unit == name }),
	)
}

// removeWorkerDir removes what is on the volume itself. What a dead worker has mounted
// there is in the way; what anybody else has is none of this unit's business.
func (u *unit) removeWorkerDir(ctx context.Context, dir string) error {
	full := filepath.Join(u.view.dir, dir)
	if _, err := tree.Unmount(ctx, full, tree.OverlayWithin(full)); err != nil {
		u.c.options.Log.Warn("cannot unmount what a worker has left", "error", err)
	}
	return tree.Remove(ctx, u.root, dir)
}

package coordinator

import (
	"context"
	"errors"
	"fmt"

	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/claim"
)

// Inspect describes the volume. Only releases that pass the quick check are
// listed. It changes nothing, and works beside a download.
func (c *Coordinator) Inspect(ctx context.Context) (Report, error) {
	r, err := c.inspect(ctx)
	if err != nil {
		return Report{}, fmt.Errorf("cannot inspect %s: %w", c.root, err)
	}
	return r, nil
}

func (c *Coordinator) inspect(ctx context.Context) (Report, error) {
	if err := c.Check(); err != nil {
		return Report{}, err
	}
	r := Report{Root: c.root, VolumeID: c.id}
	current, err := c.Current()
	if err == nil {
		r.Current = &current
	} else if !errors.Is(err, ErrNotActivated) {
		return Report{}, err
	}
	versions, err := c.versions()
	if err != nil {
		return Report{}, err
	}
	for _, v := range versions {
		if err := ctx.Err(); err != nil {
			return Report{}, err
		}
		release, err := c.release(v)
		if err == nil {
			r.Releases = append(r.Releases, release)
		} else if !absent(err) {
			return Report{}, err
		}
	}
	if holder, err := claim.Read(c.path(lockFile)); err == nil {
		r.Holder = holder.Unit
	}
	if p, err := c.progress(); err == nil && p.Unit == r.Holder {
		r.Progress = &p
	}
	if r.Pins, err = c.pins(); err != nil {
		return Report{}, err
	}
	if r.Free, err = c.free(); err != nil {
		return Report{}, err
	}
	return r, nil
}

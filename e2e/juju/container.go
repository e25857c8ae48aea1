package juju

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	lxd "github.com/canonical/lxd/client"
	"github.com/canonical/lxd/shared/api"
	"golang.org/x/sync/errgroup"

	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/cluster"
)

// Exec runs a command in the unit's container.
func (c *Cluster) Exec(ctx context.Context, unit string, argv ...string) (string, error) {
	name, err := c.instance(ctx, unit)
	if err != nil {
		return "", err
	}
	out, err := c.execIn(ctx, name, argv...)
	if err != nil {
		return out, fmt.Errorf("on %s: %w", unit, err)
	}
	return out, nil
}

// instance returns the name of a unit's container, or ErrNoUnit while there is
// none.
func (c *Cluster) instance(ctx context.Context, unit string) (string, error) {
	status, err := c.Status(ctx)
	if err != nil {
		return "", err
	}
	u, ok := status.Unit(unit)
	if !ok || u.Instance == "" {
		return "", fmt.Errorf("%s: %w", unit, cluster.ErrNoUnit)
	}
	return u.Instance, nil
}

func (c *Cluster) execIn(ctx context.Context, instance string, argv ...string) (string, error) {
	var stdout, stderr bytes.Buffer
	drained := make(chan bool)
	op, err := c.lxd.ExecInstance(instance, api.InstanceExecPost{Command: argv, WaitForWS: true}, &lxd.InstanceExecArgs{
		Stdin:    bytes.NewReader(nil),
		Stdout:   &stdout,
		Stderr:   &stderr,
		DataDone: drained,
	})
	if err == nil {
		err = op.WaitContext(ctx)
	}
	if err != nil {
		return "", fmt.Errorf("cannot run %q: %w", argv, err)
	}
	select {
	case <-drained:
	case <-ctx.Done():
		return "", fmt.Errorf("reading the output of %q: %w", argv, context.Cause(ctx))
	}
	code, ok := op.Get().Metadata["return"].(float64)
	if !ok || code != 0 {
		return stdout.String(), fmt.Errorf("%q ended with %v: %s", argv, op.Get().Metadata["return"], strings.TrimSpace(stderr.String()))
	}
	return stdout.String(), nil
}

// containerPrefix begins the names that Juju gives to a model's containers.
func (c *Cluster) containerPrefix() string {
	return "juju-" + c.modelUUID[len(c.modelUUID)-6:] + "-"
}

// deletePatience is how long a container may resist being deleted.
const deletePatience = time.Minute

// deleteContainers removes what is left of the model's containers by force.
func (c *Cluster) deleteContainers(ctx context.Context) error {
	instances, err := c.lxd.GetInstances(api.InstanceTypeAny)
	if err != nil {
		return fmt.Errorf("cannot list containers of model %s: %w", c.name, err)
	}
	var deletions errgroup.Group
	for _, instance := range instances {
		if !strings.HasPrefix(instance.Name, c.containerPrefix()) {
			continue
		}
		deletions.Go(func() error { return c.deleteContainer(ctx, instance.Name) })
	}
	return deletions.Wait()
}

// deleteContainer removes a container that Juju may be removing as well: what
// fails because the other is at it is tried again until the container is gone.
func (c *Cluster) deleteContainer(ctx context.Context, name string) error {
	for start := time.Now(); ; {
		if op, err := c.lxd.UpdateInstanceState(name, api.InstanceStatePut{Action: "stop", Force: true, Timeout: -1}, ""); err == nil {
			// It may be stopped already, or stopping: the deletion tells.
			_ = op.WaitContext(ctx)
		}
		op, err := c.lxd.DeleteInstance(name)
		if err == nil {
			err = op.WaitContext(ctx)
		}
		if err == nil {
			return nil
		}
		if _, _, gone := c.lxd.GetInstance(name); api.StatusErrorCheck(gone, http.StatusNotFound) {
			return nil
		}
		if time.Since(start) > deletePatience {
			return fmt.Errorf("cannot delete container %s: %w", name, err)
		}
		if err := sleep(ctx, 500*time.Millisecond); err != nil {
			return fmt.Errorf("deleting container %s: %w", name, err)
		}
	}
}

package juju

import (
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

// lookupPatience is how long Juju may take to say which container a unit is in, before
// what it said earlier is taken.
const lookupPatience = 15 * time.Second

// instance returns the name of a unit's container, or ErrNoUnit while there is
// none. A unit never moves, so what was once seen holds also when Juju is gone.
func (c *Cluster) instance(ctx context.Context, unit string) (string, error) {
	patient, cancel := context.WithTimeout(ctx, lookupPatience)
	defer cancel()
	status, err := c.Status(patient)
	if err != nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		if name := c.instanceNames[unit]; name != "" && ctx.Err() == nil {
			return name, nil
		}
		return "", err
	}
	u, ok := status.Unit(unit)
	if !ok || u.Instance == "" {
		return "", fmt.Errorf("%s: %w", unit, cluster.ErrNoUnit)
	}
	return u.Instance, nil
}

// containerPrefix begins the names that Juju gives to a model's containers.
func containerPrefix(modelUUID string) string {
	return "juju-" + modelUUID[max(0, len(modelUUID)-6):] + "-"
}

// machineNumber is Juju's number of the machine that a container is.
func machineNumber(modelUUID, instance string) (string, error) {
	number, ok := strings.CutPrefix(instance, containerPrefix(modelUUID))
	if !ok || number == "" {
		return "", fmt.Errorf("container %s is not named as Juju names those of model %s", instance, modelUUID)
	}
	return number, nil
}

// containers lists the model's containers; there are none without a model.
func (c *Cluster) containers(ctx context.Context) ([]api.Instance, error) {
	if c.modelUUID == "" {
		return nil, nil
	}
	instances, err := c.lxd.instances(ctx, containerPrefix(c.modelUUID))
	if err != nil {
		return nil, fmt.Errorf("cannot list containers of model %s: %w", c.name, err)
	}
	return instances, nil
}

// deletePatience is how long a container may resist being deleted.
const deletePatience = time.Minute

// deleteContainers removes what is left of the model's containers by force.
func (c *Cluster) deleteContainers(ctx context.Context) error {
	instances, err := c.containers(ctx)
	if err != nil {
		return err
	}
	var deletions errgroup.Group
	for _, instance := range instances {
		deletions.Go(func() error { return c.deleteContainer(ctx, instance.Name) })
	}
	return deletions.Wait()
}

// deleteContainer removes a container that Juju may be removing as well: what
// fails because the other is at it is tried again until the container is gone.
func (c *Cluster) deleteContainer(ctx context.Context, name string) error {
	return cluster.Poll(ctx, "the end of container "+name, 500*time.Millisecond, deletePatience, func(ctx context.Context) (bool, error) {
		// It may be stopped already, or stopping: the deletion tells.
		_ = c.lxd.change(ctx, name, "stop")
		err := c.lxd.operate(ctx, func(client lxd.InstanceServer) (lxd.Operation, error) {
			return client.DeleteInstance(name)
		})
		if err == nil {
			return true, nil
		}
		if _, gone := c.lxd.state(ctx, name); api.StatusErrorCheck(gone, http.StatusNotFound) {
			return true, nil
		}
		return false, err
	})
}

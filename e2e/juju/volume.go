package juju

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/canonical/lxd/shared/api"

	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/cluster"
)

const (
	volumeDevice = "concourse-data"
	mountPoint   = "/var/lib/concourse"
	// marker says that the mount is shared on purpose; the charm writes
	// nothing to a volume without it.
	marker = mountPoint + "/.lxc_shared_storage"
	// attachPatience is how long a unit's container may take to exist and run.
	attachPatience = 10 * time.Minute
)

func (c *Cluster) createVolume(ctx context.Context) error {
	config := map[string]string{}
	if c.options.VolumeSize != "" {
		config["size"] = c.options.VolumeSize
	}
	op, err := c.lxd.CreateStoragePoolVolume(c.options.Pool, api.StorageVolumesPost{
		Name:             c.name,
		Type:             "custom",
		ContentType:      "filesystem",
		StorageVolumePut: api.StorageVolumePut{Config: config, Description: "shared by the units of Juju model " + c.name},
	})
	if err == nil {
		err = op.WaitContext(ctx)
	}
	if err != nil {
		return fmt.Errorf("cannot create volume %s in LXD pool %s: %w", c.name, c.options.Pool, err)
	}
	return nil
}

func (c *Cluster) deleteVolume(ctx context.Context) error {
	op, err := c.lxd.DeleteStoragePoolVolume(c.options.Pool, "custom", c.name)
	if err == nil {
		err = op.WaitContext(ctx)
	}
	if err != nil && !api.StatusErrorCheck(err, http.StatusNotFound) {
		return fmt.Errorf("cannot delete volume %s in LXD pool %s: %w", c.name, c.options.Pool, err)
	}
	return nil
}

// attachLater attaches the volume in the background; Status shows a failure.
func (c *Cluster) attachLater(unit string) {
	c.attachers.Go(func() {
		ctx, cancel := context.WithTimeoutCause(c.ctx, attachPatience, fmt.Errorf("no running container after %s", attachPatience))
		defer cancel()
		err := c.AttachVolume(ctx, unit)
		if err == nil || c.ctx.Err() != nil {
			return
		}
		c.mu.Lock()
		c.attachErrors[unit] = err
		c.mu.Unlock()
	})
}

// AttachVolume attaches the volume as soon as the unit's container runs.
//
// Not before, and one at a time: LXD shifts a volume's owners to the id map of
// the first container, and refuses when another user of the volume has none
// yet, which is so while it starts ("Idmaps of container and storage volume
// are not identical").
func (c *Cluster) AttachVolume(ctx context.Context, unit string) error {
	for {
		name, err := c.instance(ctx, unit)
		if err == nil && c.runs(name) {
			c.attaching.Lock()
			err = c.changeDevices(ctx, name, func(devices map[string]map[string]string) {
				devices[volumeDevice] = map[string]string{"type": "disk", "pool": c.options.Pool, "source": c.name, "path": mountPoint}
			})
			c.attaching.Unlock()
			if err != nil {
				return fmt.Errorf("cannot attach the volume to %s: %w", unit, err)
			}
			// One that was stopped meanwhile has no mount to put the marker on.
			if _, err := c.execIn(ctx, name, "sh", "-c", "mountpoint -q "+mountPoint+" && touch "+marker); err == nil {
				c.log.Info("volume attached", "unit", unit, "instance", name)
				return nil
			}
		} else if err != nil && !errors.Is(err, cluster.ErrNoUnit) {
			c.log.Warn("cannot look up a unit's container yet", "unit", unit, "error", err)
		}
		if err := sleep(ctx, time.Second); err != nil {
			return fmt.Errorf("attaching the volume to %s: %w", unit, err)
		}
	}
}

func (c *Cluster) runs(instance string) bool {
	state, _, err := c.lxd.GetInstanceState(instance)
	return err == nil && state.StatusCode == api.Running
}

// DetachVolume removes the device from the container while it runs.
func (c *Cluster) DetachVolume(ctx context.Context, unit string) error {
	name, err := c.instance(ctx, unit)
	if err == nil {
		err = c.changeDevices(ctx, name, func(devices map[string]map[string]string) { delete(devices, volumeDevice) })
	}
	if err != nil {
		return fmt.Errorf("cannot detach the volume from %s: %w", unit, err)
	}
	return nil
}

// changeDevices edits an instance's own devices. Juju edits the instance while
// it makes it, so a change that lost that race is tried again.
func (c *Cluster) changeDevices(ctx context.Context, name string, change func(map[string]map[string]string)) error {
	for {
		instance, etag, err := c.lxd.GetInstance(name)
		if err != nil {
			return fmt.Errorf("cannot read instance %s: %w", name, err)
		}
		_, before := instance.Devices[volumeDevice]
		change(instance.Devices)
		if _, after := instance.Devices[volumeDevice]; before == after {
			return nil
		}
		op, err := c.lxd.UpdateInstance(name, instance.Writable(), etag)
		if err == nil {
			err = op.WaitContext(ctx)
		}
		if err == nil {
			return nil
		}
		lostRace := api.StatusErrorCheck(err, http.StatusPreconditionFailed) || strings.Contains(err.Error(), "is busy")
		if !lostRace || ctx.Err() != nil {
			return fmt.Errorf("cannot update instance %s: %w", name, err)
		}
		if err := sleep(ctx, 200*time.Millisecond); err != nil {
			return err
		}
	}
}

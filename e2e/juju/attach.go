package juju

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	lxd "github.com/canonical/lxd/client"
	"github.com/canonical/lxd/shared/api"

	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/cluster"
)

// place is where a disk is in an instance. LXD mounts one at a path. Ours have a name of
// their own; those of Juju's storage have Juju's.
type place struct{ device, path string }

var (
	volumePlace = place{"concourse-data", mountPoint}
	// A volume that the unit must not be able to write to is marked through a second
	// mount, which is then taken away.
	markingPlace = place{"concourse-marking", "/mnt/concourse-marking"}
)

const (
	mountPoint = "/var/lib/concourse"
	// marker says that the mount is shared on purpose; the charm writes
	// nothing to a volume without it.
	marker = ".lxc_shared_storage"

	// attachPatience is how long a unit's container may take to exist and run.
	attachPatience = 10 * time.Minute
	// devicePatience is how long an instance may be changed by somebody else.
	devicePatience = time.Minute
)

// attachLater attaches a volume to a new unit in the background, unless the scenario sees
// to the unit itself before that is done. Status shows a failure.
func (c *Cluster) attachLater(unit string, v *volume) {
	c.mu.Lock()
	delete(c.byScenario, unit)
	delete(c.attachErrors, unit)
	c.mu.Unlock()
	wanted := func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		app, _, _ := strings.Cut(unit, "/")
		return c.volumeOf[app] == v && !c.byScenario[unit]
	}
	c.attachers.Go(func() {
		err := v.attach(c.ctx, unit, nil, wanted)
		if err == nil || c.ctx.Err() != nil {
			return
		}
		c.mu.Lock()
		c.attachErrors[unit] = err
		c.mu.Unlock()
	})
}

// takeOver ends what attachLater does for a unit.
func (c *Cluster) takeOver(unit string) {
	c.mu.Lock()
	c.byScenario[unit] = true
	c.mu.Unlock()
}

// Attach attaches the volume as soon as the unit's container runs. Another volume, and
// this one if it is attached in another way, is taken away first. A process that has a
// file open keeps what was mounted before.
func (v *volume) Attach(ctx context.Context, unit string, how ...cluster.Attachment) error {
	v.cluster.takeOver(unit)
	return v.attach(ctx, unit, how, func() bool { return true })
}

// attach attaches as long as that is wanted.
func (v *volume) attach(ctx context.Context, unit string, how []cluster.Attachment, wanted func() bool) error {
	c := v.cluster
	readOnly, marked := slices.Contains(how, cluster.AsReadOnly), !slices.Contains(how, cluster.Unmarked)
	err := cluster.Poll(ctx, "the mount on "+unit, time.Second, attachPatience, func(ctx context.Context) (bool, error) {
		if !wanted() {
			return true, nil
		}
		instance, err := c.instance(ctx, unit)
		if err != nil {
			return false, err
		}
		if !c.lxd.is(ctx, instance, api.Running) {
			return false, fmt.Errorf("container %s does not run", instance)
		}
		if err := c.setDevice(ctx, instance, volumePlace, v.device(readOnly), wanted); err != nil {
			return true, err
		}
		if !wanted() {
			return true, nil
		}
		// One that was stopped meanwhile has no mount to put the marker on.
		if err := v.mark(ctx, instance, readOnly, marked); err != nil {
			return false, err
		}
		c.mu.Lock()
		c.volumeAt[unit] = v
		delete(c.attachErrors, unit)
		c.mu.Unlock()
		c.log.Info("volume attached", "volume", v.name, "unit", unit, "instance", instance, "readonly", readOnly)
		return true, nil
	})
	if err != nil {
		return fmt.Errorf("cannot attach volume %s to %s: %w", v.name, unit, err)
	}
	return nil
}

// mark sees to it that the volume is mounted in an instance, and marks it if that is
// asked for.
func (v *volume) mark(ctx context.Context, instance string, readOnly, marked bool) error {
	c := v.cluster
	if _, err := c.lxd.exec(ctx, instance, nil, "mountpoint", "-q", mountPoint); err != nil || !marked {
		return describe(err, "nothing is mounted at "+mountPoint)
	}
	if !readOnly {
		_, err := c.lxd.exec(ctx, instance, nil, "touch", mountPoint+"/"+marker)
		return describe(err, "cannot mark the volume")
	}
	if _, err := c.lxd.exec(ctx, instance, nil, "test", "-e", mountPoint+"/"+marker); err == nil {
		return nil
	}
	always := func() bool { return true }
	second := v.device(false)
	second["path"] = markingPlace.path
	err := c.setDevice(ctx, instance, markingPlace, second, always)
	if err == nil {
		_, err = c.lxd.exec(ctx, instance, nil, "touch", markingPlace.path+"/"+marker)
		err = errors.Join(err, c.setDevice(ctx, instance, markingPlace, nil, always))
	}
	return describe(err, "cannot mark the volume")
}

func describe(err error, what string) error {
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// Detach removes the device from the container while it runs, as a lost mount does. Also
// a unit that is not there yet, which is an error, will be left without a volume.
func (v *volume) Detach(ctx context.Context, unit string) error {
	c := v.cluster
	c.takeOver(unit)
	instance, err := c.instance(ctx, unit)
	if err == nil {
		err = c.setDevice(ctx, instance, volumePlace, nil, func() bool { return true })
	}
	if err != nil {
		return fmt.Errorf("cannot detach volume %s from %s: %w", v.name, unit, err)
	}
	c.mu.Lock()
	delete(c.volumeAt, unit)
	c.mu.Unlock()
	return nil
}

// setDevice gives an instance a disk at a place, or with nil takes away what is there, if
// that is still wanted when its turn comes.
//
// One instance at a time: LXD shifts a volume's owners to the id map of the first
// container, and refuses when another user of the volume has none yet, which is so while
// it starts ("Idmaps of container and storage volume are not identical").
func (c *Cluster) setDevice(ctx context.Context, instance string, at place, want map[string]string, wanted func() bool) error {
	if err := c.devices.Acquire(ctx, 1); err != nil {
		return context.Cause(ctx)
	}
	defer c.devices.Release(1)
	if !wanted() {
		return nil
	}
	return cluster.Poll(ctx, "the devices of "+instance, 200*time.Millisecond, devicePatience, func(ctx context.Context) (bool, error) {
		type reading struct {
			*api.Instance
			etag string
		}
		r, err := askLXD(ctx, c.lxd, func(client lxd.InstanceServer) (reading, error) {
			i, etag, err := client.GetInstance(instance)
			return reading{i, etag}, err
		})
		if err != nil {
			return true, fmt.Errorf("cannot read instance %s: %w", instance, err)
		}
		devices, there := nextDevices(r.Devices, at, want)
		if there {
			return true, nil
		}
		update := r.Writable()
		update.Devices = devices
		err = c.lxd.operate(ctx, func(client lxd.InstanceServer) (lxd.Operation, error) {
			return client.UpdateInstance(instance, update, r.etag)
		})
		if err != nil {
			// Juju edits the instance while it makes it.
			lostRace := api.StatusErrorCheck(err, http.StatusPreconditionFailed) || strings.Contains(err.Error(), "is busy")
			return !lostRace, fmt.Errorf("cannot update instance %s: %w", instance, err)
		}
		return false, nil
	})
}

// nextDevices are the devices that an instance gets next on the way to having one at a
// place as it is wanted, nil for not at all. One that differs is taken away first, so that
// it is mounted anew whatever LXD can change in place.
func nextDevices(have map[string]map[string]string, at place, want map[string]string) (next map[string]map[string]string, there bool) {
	for name, device := range have {
		if device["path"] == at.path {
			at.device = name
		}
	}
	device, has := have[at.device]
	if sameDevice(device, want) {
		return have, true
	}
	next = maps.Clone(have)
	if has {
		delete(next, at.device)
		return next, false
	}
	if next == nil {
		next = map[string]map[string]string{}
	}
	next[at.device] = want
	return next, false
}

// sameDevice compares what two devices say. Without a device is as empty.
func sameDevice(a, b map[string]string) bool {
	return len(a) == len(b) && maps.Equal(a, b)
}

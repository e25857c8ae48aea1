package juju

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"

	lxd "github.com/canonical/lxd/client"
	"github.com/canonical/lxd/shared/api"
	"github.com/canonical/lxd/shared/units"

	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/cluster"
)

// volume is a custom volume of the pool, or a directory of this host.
type volume struct {
	cluster *Cluster
	pool    string // empty for a directory
	name    string
	size    int64 // 0: as large as what it is in
}

var _ cluster.Volume = (*volume)(nil)

// Name is the volume's name in the pool, or of its directory.
func (v *volume) Name() string { return v.name }

// volumeName is the name of a model's nth volume, from 1.
func volumeName(model string, n int) string {
	if n == 1 {
		return model
	}
	return fmt.Sprintf("%s-%d", model, n)
}

// NewVolume makes a volume of the pool, or a directory if Options say so.
func (c *Cluster) NewVolume(ctx context.Context, size string) (cluster.Volume, error) {
	c.mu.Lock()
	c.volumes++
	v := &volume{cluster: c, name: volumeName(c.name, c.volumes)}
	c.mu.Unlock()
	bytes, err := units.ParseByteSizeString(size)
	if err != nil {
		return nil, fmt.Errorf("cannot make a volume of size %q: %w", size, err)
	}
	v.size = bytes
	if c.options.HostPath != "" {
		return v, c.makeDirectory(ctx, v)
	}
	v.pool = c.options.Pool
	config := map[string]string{}
	if size != "" {
		config["size"] = size
	}
	err = c.lxd.operate(ctx, func(client lxd.InstanceServer) (lxd.Operation, error) {
		return client.CreateStoragePoolVolume(v.pool, api.StorageVolumesPost{
			Name:             v.name,
			Type:             "custom",
			ContentType:      "filesystem",
			StorageVolumePut: api.StorageVolumePut{Config: config, Description: "of Juju model " + c.name},
		})
	})
	if err != nil {
		return nil, fmt.Errorf("cannot create volume %s in LXD pool %s: %w", v.name, v.pool, err)
	}
	return v, nil
}

// makeDirectory makes the directory that a volume is, if LXD can attach it.
func (c *Cluster) makeDirectory(ctx context.Context, v *volume) error {
	if v.size != 0 {
		return fmt.Errorf("cannot limit the size of a directory: make volume %s without Options.HostPath, or without a size", v.name)
	}
	server, err := askLXD(ctx, c.lxd, func(client lxd.InstanceServer) (*api.Server, error) {
		server, _, err := client.GetServer()
		return server, err
	})
	if err != nil {
		return fmt.Errorf("cannot ask LXD what it can do: %w", err)
	}
	if server.Environment.KernelFeatures["idmapped_mounts"] != "true" {
		return errors.New("LXD cannot map owners at a mount here, and cannot attach a directory with shift=true: leave Options.HostPath empty")
	}
	if err := os.MkdirAll(filepath.Join(c.options.HostPath, v.name), 0o755); err != nil {
		return fmt.Errorf("cannot make volume %s: %w", v.name, err)
	}
	return nil
}

// deleteVolumes deletes all that can be a volume of this model, whoever made it.
func (c *Cluster) deleteVolumes(ctx context.Context) error {
	var failed []error
	if c.options.HostPath != "" {
		// The name has no character that a pattern gives a meaning to.
		directories, _ := filepath.Glob(filepath.Join(c.options.HostPath, c.name+"*"))
		for _, dir := range directories {
			failed = append(failed, within(ctx, func() error { return os.RemoveAll(dir) }))
		}
	}
	volumes, err := c.volumesOfModel(ctx)
	failed = append(failed, err)
	for _, v := range volumes {
		err := c.lxd.operate(ctx, func(client lxd.InstanceServer) (lxd.Operation, error) {
			return client.DeleteStoragePoolVolume(v.Pool, v.Type, v.Name)
		})
		if err != nil && !api.StatusErrorCheck(err, http.StatusNotFound) {
			failed = append(failed, fmt.Errorf("cannot delete volume %s in LXD pool %s: %w", v.Name, v.Pool, err))
		}
	}
	return errors.Join(failed...)
}

// device is the volume as a device of an instance.
func (v *volume) device(readOnly bool) map[string]string {
	device := map[string]string{"type": "disk", "path": mountPoint}
	if v.pool == "" {
		device["source"], device["shift"] = filepath.Join(v.cluster.options.HostPath, v.name), "true"
	} else {
		device["source"], device["pool"] = v.name, v.pool
	}
	if readOnly {
		device["readonly"] = "true"
	}
	return device
}

// writableIn returns the running containers that can write to the volume, as LXD has
// them.
func (v *volume) writableIn(ctx context.Context) ([]string, error) {
	instances, err := v.cluster.containers(ctx)
	if err != nil {
		return nil, err
	}
	var found []string
	for _, i := range instances {
		if _, there := nextDevices(i.Devices, volumePlace, v.device(false)); there && i.StatusCode == api.Running {
			found = append(found, i.Name)
		}
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("volume %s is attached to no machine that runs and can write to it", v.name)
	}
	return found, nil
}

// units are those that have the volume now.
func (v *volume) units() []string {
	v.cluster.mu.Lock()
	defer v.cluster.mu.Unlock()
	var found []string
	for unit, at := range v.cluster.volumeAt {
		if at == v {
			found = append(found, unit)
		}
	}
	slices.Sort(found)
	return found
}

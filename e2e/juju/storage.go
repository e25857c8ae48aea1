package juju

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	lxd "github.com/canonical/lxd/client"
	lxdapi "github.com/canonical/lxd/shared/api"
	"github.com/juju/juju/api"
	"github.com/juju/juju/api/client/application"
	"github.com/juju/juju/api/client/storage"
	corestorage "github.com/juju/juju/core/storage"
	"github.com/juju/juju/rpc/params"
	"github.com/juju/names/v6"

	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/cluster"
)

const (
	// storagePatience is how long Juju may take to make a unit's machine and to attach
	// its storage, or to take it away, which has to wait for the unit's hooks.
	storagePatience = 10 * time.Minute
	// labelModel is what Juju writes on the volumes that it makes in LXD.
	labelModel = "user.juju-model-uuid"
)

// How Juju says what became of a storage.
const (
	storageAttached = "attached"
	storageDetached = "detached"
)

// storageDirectives are those of an application, as Juju reads them.
func storageDirectives(app cluster.App) (map[string]corestorage.Directive, error) {
	directives := map[string]corestorage.Directive{}
	for name, text := range app.Storage {
		directive, err := corestorage.ParseDirective(text)
		if err != nil {
			return nil, fmt.Errorf("storage %s=%s: %w", name, text, err)
		}
		directives[name] = directive
	}
	return directives, nil
}

// AddUnitWithStorage asks for one more unit, which gets a storage that is there.
func (c *Cluster) AddUnitWithStorage(ctx context.Context, app, id string) (string, error) {
	units, err := ask(ctx, c, func(conn api.Connection) ([]string, error) {
		return application.NewClient(conn).AddUnits(ctx, application.AddUnitsParams{
			ApplicationName: app, NumUnits: 1, AttachStorage: []string{id},
		})
	})
	if err == nil && len(units) != 1 {
		err = fmt.Errorf("%d units were added", len(units))
	}
	if err != nil {
		return "", fmt.Errorf("cannot add a unit with storage %s to %s: %w", id, app, err)
	}
	return units[0], nil
}

// Storage waits for the storage of a unit.
func (c *Cluster) Storage(ctx context.Context, unit string) (cluster.Storage, error) {
	var found cluster.Storage
	err := cluster.Poll(ctx, "the storage of "+unit, time.Second, storagePatience, func(ctx context.Context) (bool, error) {
		all, err := c.filesystems(ctx)
		if err != nil {
			return false, err
		}
		for _, f := range all {
			if f.Storage == nil || f.Status.Status != storageAttached {
				continue
			}
			if _, of := f.Storage.Attachments[names.NewUnitTag(unit).String()]; !of {
				continue
			}
			tag, err := names.ParseStorageTag(f.Storage.StorageTag)
			if err != nil {
				return true, err
			}
			pool, name, ok := strings.Cut(f.Info.ProviderId, ":")
			if !ok {
				return true, fmt.Errorf("storage %s is %q, which is no volume of LXD", tag.Id(), f.Info.ProviderId)
			}
			found = cluster.Storage{Volume: &volume{cluster: c, pool: pool, name: name}, ID: tag.Id()}
			return true, nil
		}
		return false, errors.New("none is attached")
	})
	if err != nil {
		return cluster.Storage{}, fmt.Errorf("cannot find the storage of %s: %w", unit, err)
	}
	return found, nil
}

// RemoveStorage removes a storage from its unit and then from the model. Juju takes both
// orders at once, and then never takes the volume from the machine.
func (c *Cluster) RemoveStorage(ctx context.Context, id string) error {
	err := c.tell(ctx, func(conn api.Connection) error {
		return oneError(storage.NewClient(conn).Detach(ctx, []string{id}, nil, nil))
	})
	if err == nil {
		err = cluster.Poll(ctx, "storage "+id+" to be detached", time.Second, storagePatience, func(ctx context.Context) (bool, error) {
			all, err := c.filesystems(ctx)
			for _, f := range all {
				is := f.Status.Status
				if f.Storage != nil && f.Storage.StorageTag == names.NewStorageTag(id).String() && is != storageDetached {
					return false, fmt.Errorf("it is %s", is)
				}
			}
			return err == nil, err
		})
	}
	if err == nil {
		err = c.tell(ctx, func(conn api.Connection) error {
			const attachments, volume = false, true
			return oneError(storage.NewClient(conn).Remove(ctx, []string{id}, attachments, volume, nil, nil))
		})
	}
	if err != nil {
		return fmt.Errorf("cannot remove storage %s: %w", id, err)
	}
	return nil
}

func (c *Cluster) filesystems(ctx context.Context) ([]params.FilesystemDetails, error) {
	return ask(ctx, c, func(conn api.Connection) ([]params.FilesystemDetails, error) {
		results, err := storage.NewClient(conn).ListFilesystems(ctx, nil)
		if err != nil || len(results) == 0 {
			return nil, err
		}
		if results[0].Error != nil {
			return nil, results[0].Error
		}
		return results[0].Result, nil
	})
}

// oneError is the error of a call, or of the one thing that it was about.
func oneError(results []params.ErrorResult, err error) error {
	if err == nil && len(results) == 1 && results[0].Error != nil {
		return results[0].Error
	}
	return err
}

// volumesOfModel lists the custom volumes that were made for this model, by whoever it
// was, in whichever pool.
func (c *Cluster) volumesOfModel(ctx context.Context) ([]lxdapi.StorageVolume, error) {
	found, err := askLXD(ctx, c.lxd, func(client lxd.InstanceServer) ([]lxdapi.StorageVolume, error) {
		pools, err := client.GetStoragePoolNames()
		if err != nil {
			return nil, err
		}
		var found []lxdapi.StorageVolume
		for _, pool := range pools {
			all, err := client.GetStoragePoolVolumes(pool)
			if err != nil {
				return found, fmt.Errorf("pool %s: %w", pool, err)
			}
			for _, v := range all {
				byJuju := c.modelUUID != "" && v.Config[labelModel] == c.modelUUID
				if v.Type == "custom" && (byJuju || strings.HasPrefix(v.Name, c.name)) {
					v.Pool = pool // which it says only where it is asked for those of all pools
					found = append(found, v)
				}
			}
		}
		return found, nil
	})
	if err != nil {
		err = fmt.Errorf("cannot list volumes of model %s: %w", c.name, err)
	}
	return found, err
}

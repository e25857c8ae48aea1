package juju

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/juju/juju/api"
	"github.com/juju/juju/api/client/application"
	"github.com/juju/juju/api/client/charms"
	apicharm "github.com/juju/juju/api/common/charm"
	corebase "github.com/juju/juju/core/base"
	corecharm "github.com/juju/juju/core/charm"
	"gopkg.in/yaml.v3"

	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/cluster"
)

// base is what the charms support and what the environment has an image of.
const base = "ubuntu@24.04"

// namesPatience is how long Juju may take to name the units of a new application.
const namesPatience = time.Minute

// Deploy deploys a charm of Charmhub, or one that it uploads.
func (c *Cluster) Deploy(ctx context.Context, app cluster.App) error {
	var v *volume
	if app.Volume != nil {
		var ok bool
		if v, ok = app.Volume.(*volume); !ok || v.cluster != c {
			return fmt.Errorf("cannot deploy %s: volume %s is not of model %s", app.Name, app.Volume.Name(), c.name)
		}
	}
	err := c.tell(ctx, func(conn api.Connection) error {
		if name, ok := strings.CutPrefix(app.Charm, "ch:"); ok {
			return deployFromCharmhub(ctx, conn, name, app)
		}
		return deployFromFile(ctx, conn, app)
	})
	if err != nil {
		return fmt.Errorf("cannot deploy %s: %w", app.Name, err)
	}
	c.mu.Lock()
	delete(c.volumeOf, app.Name)
	if v != nil {
		c.volumeOf[app.Name] = v
	}
	c.mu.Unlock()
	if v == nil {
		return nil
	}
	// Their numbers need not begin with 0, if the model had such an application before.
	var units []cluster.UnitStatus
	err = cluster.Poll(ctx, "the names of the units of "+app.Name, time.Second, namesPatience, func(ctx context.Context) (bool, error) {
		status, err := c.Status(ctx)
		units = status.Units(app.Name)
		return len(units) >= app.Units, err
	})
	if err != nil {
		return err
	}
	for _, u := range units {
		c.attachLater(u.Name, v)
	}
	return nil
}

func deployFromCharmhub(ctx context.Context, conn api.Connection, charm string, app cluster.App) error {
	on, err := corebase.ParseBaseFromString(base)
	if err != nil {
		return err
	}
	directives, err := storageDirectives(app)
	if err != nil {
		return err
	}
	config, err := yaml.Marshal(map[string]map[string]string{app.Name: app.Config})
	if err != nil {
		return err
	}
	_, _, errs := application.NewClient(conn).DeployFromRepository(ctx, application.DeployFromRepositoryArg{
		CharmName:       charm,
		Channel:         &app.Channel,
		ApplicationName: app.Name,
		Base:            &on,
		NumUnits:        &app.Units,
		ConfigYAML:      string(config),
		Storage:         directives,
	})
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("charm %s of Charmhub, channel %q (does the controller reach the internet?): %w", charm, app.Channel, err)
	}
	return nil
}

func deployFromFile(ctx context.Context, conn api.Connection, app cluster.App) error {
	directives, err := storageDirectives(app)
	if err != nil {
		return err
	}
	id, err := upload(conn, app.Charm)
	if err != nil {
		return err
	}
	return application.NewClient(conn).Deploy(ctx, application.DeployArgs{
		CharmID:         id,
		CharmOrigin:     id.Origin,
		ApplicationName: app.Name,
		NumUnits:        app.Units,
		Config:          app.Config,
		Storage:         directives,
	})
}

// upload gives a .charm file to the controller.
func upload(conn api.Connection, path string) (id application.CharmID, err error) {
	archive, url, err := corecharm.NewCharmAtPath(path)
	if err != nil {
		return id, fmt.Errorf("cannot read charm %s: %w", path, err)
	}
	on, err := corebase.ParseBaseFromString(base)
	if err != nil {
		return id, err
	}
	uploader, err := charms.NewLocalCharmClient(conn)
	if err == nil {
		version, _ := conn.ServerVersion()
		url, err = uploader.AddLocalCharm(url, archive, false, version)
	}
	if err != nil {
		return id, fmt.Errorf("cannot upload charm %s: %w", path, err)
	}
	return application.CharmID{URL: url.String(), Origin: apicharm.Origin{
		Source:       apicharm.OriginLocal,
		Architecture: "amd64",
		Base:         on,
		Revision:     &url.Revision,
	}}, nil
}

// AddUnits asks for more units, each on a new machine.
func (c *Cluster) AddUnits(ctx context.Context, app string, n int) ([]string, error) {
	units, err := ask(ctx, c, func(conn api.Connection) ([]string, error) {
		return application.NewClient(conn).AddUnits(ctx, application.AddUnitsParams{ApplicationName: app, NumUnits: n})
	})
	if err != nil {
		return nil, fmt.Errorf("cannot add %d units to %s: %w", n, app, err)
	}
	c.mu.Lock()
	v := c.volumeOf[app]
	c.mu.Unlock()
	if v != nil {
		for _, unit := range units {
			c.attachLater(unit, v)
		}
	}
	return units, nil
}

// RemoveUnit asks Juju to remove a unit in the orderly way, its hooks included.
func (c *Cluster) RemoveUnit(ctx context.Context, unit string) error {
	return c.removeUnit(ctx, unit, application.DestroyUnitsParams{})
}

// RemoveLostUnit has Juju forget a unit.
func (c *Cluster) RemoveLostUnit(ctx context.Context, unit string) error {
	return c.removeUnit(ctx, unit, application.DestroyUnitsParams{Force: true, MaxWait: new(time.Duration)})
}

func (c *Cluster) removeUnit(ctx context.Context, unit string, how application.DestroyUnitsParams) error {
	how.Units = []string{unit}
	err := c.tell(ctx, func(conn api.Connection) error {
		results, err := application.NewClient(conn).DestroyUnits(ctx, how)
		if err == nil && len(results) == 1 && results[0].Error != nil {
			err = results[0].Error
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("cannot remove unit %s: %w", unit, err)
	}
	c.takeOver(unit)
	return nil
}

// RemoveApp asks Juju to remove an application in the orderly way.
func (c *Cluster) RemoveApp(ctx context.Context, app string) error {
	err := c.tell(ctx, func(conn api.Connection) error {
		results, err := application.NewClient(conn).DestroyApplications(ctx, application.DestroyApplicationsParams{
			Applications: []string{app},
		})
		if err == nil && len(results) == 1 && results[0].Error != nil {
			err = results[0].Error
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("cannot remove application %s: %w", app, err)
	}
	c.mu.Lock()
	delete(c.volumeOf, app)
	c.mu.Unlock()
	return nil
}

// Refresh uploads a charm and puts it in place of an application's. A unit whose hook
// has failed gets it when that is resolved, as with `juju refresh`.
func (c *Cluster) Refresh(ctx context.Context, app, charm string) error {
	err := c.tell(ctx, func(conn api.Connection) error {
		id, err := upload(conn, charm)
		if err != nil {
			return err
		}
		return application.NewClient(conn).SetCharm(ctx, application.SetCharmConfig{ApplicationName: app, CharmID: id})
	})
	if err != nil {
		return fmt.Errorf("cannot refresh %s: %w", app, err)
	}
	return nil
}

// Configure sets options of an application.
func (c *Cluster) Configure(ctx context.Context, app string, options map[string]string) error {
	err := c.tell(ctx, func(conn api.Connection) error {
		return application.NewClient(conn).SetConfig(ctx, app, "", options)
	})
	if err != nil {
		return fmt.Errorf("cannot configure %s: %w", app, err)
	}
	return nil
}

// Integrate relates two endpoints.
func (c *Cluster) Integrate(ctx context.Context, a, b string) error {
	err := c.tell(ctx, func(conn api.Connection) error {
		_, err := application.NewClient(conn).AddRelation(ctx, []string{a, b}, nil)
		return err
	})
	if err != nil {
		return fmt.Errorf("cannot integrate %s with %s: %w", a, b, err)
	}
	return nil
}

// Disintegrate asks for the end of a relation in the orderly way, its hooks included.
func (c *Cluster) Disintegrate(ctx context.Context, a, b string) error {
	err := c.tell(ctx, func(conn api.Connection) error {
		return application.NewClient(conn).DestroyRelation(ctx, nil, nil, a, b)
	})
	if err != nil {
		return fmt.Errorf("cannot take the relation of %s with %s away: %w", a, b, err)
	}
	return nil
}

// Resolve has a unit run the hook that failed again.
func (c *Cluster) Resolve(ctx context.Context, unit string) error {
	err := c.tell(ctx, func(conn api.Connection) error {
		const all, retry = false, true
		return application.NewClient(conn).ResolveUnitErrors(ctx, []string{unit}, all, retry)
	})
	if err != nil {
		return fmt.Errorf("cannot resolve %s: %w", unit, err)
	}
	return nil
}

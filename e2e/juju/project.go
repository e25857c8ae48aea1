package juju

import (
	"context"
	"fmt"
	"strings"

	lxd "github.com/canonical/lxd/client"
	lxdapi "github.com/canonical/lxd/shared/api"
	"github.com/juju/juju/api"
	"github.com/juju/juju/api/client/modelconfig"
)

// defaultProject is the LXD project that Juju uses unless it is told another.
const defaultProject = "default"

// learnProject asks Juju which LXD project the model's machines are in. It comes from
// the cloud's or the controller's configuration, or from Options.Config. All that is
// asked of LXD from then on is asked of that project, the volumes as well: a machine
// gets no volume of another one.
func (c *Cluster) learnProject(ctx context.Context) error {
	config, err := ask(ctx, c, func(conn api.Connection) (map[string]any, error) {
		return modelconfig.NewClient(conn).ModelGet(ctx)
	})
	if err != nil {
		return fmt.Errorf("cannot ask for the LXD project of model %s: %w", c.name, err)
	}
	c.useProject(projectOf(config))
	return nil
}

// projectOf is the LXD project that a model's configuration names.
func projectOf(config map[string]any) string {
	if project, _ := config["project"].(string); project != "" {
		return project
	}
	return defaultProject
}

func (c *Cluster) useProject(project string) {
	c.project = project
	c.lxd.client = c.lxd.client.UseProject(project)
	c.log.Info("LXD project", "model", c.name, "project", project)
}

// findProject finds the project of a model that Juju has told nothing of, by its
// containers: they must not be left because Juju is gone. Without any there is nothing
// to find.
func (c *Cluster) findProject(ctx context.Context) error {
	if c.project != "" || c.modelUUID == "" {
		return nil
	}
	all, err := askLXD(ctx, c.lxd, func(client lxd.InstanceServer) ([]lxdapi.Instance, error) {
		return client.GetInstancesAllProjects(lxdapi.InstanceTypeAny)
	})
	if err != nil {
		return fmt.Errorf("cannot look for model %s in the projects of LXD: %w", c.name, err)
	}
	for _, i := range all {
		if strings.HasPrefix(i.Name, containerPrefix(c.modelUUID)) {
			c.useProject(i.Project)
			break
		}
	}
	return nil
}

package juju

import (
	"context"
	"errors"
	"fmt"
	"time"

	apicloud "github.com/juju/juju/api/client/cloud"
	"github.com/juju/juju/api/client/modelmanager"
	"github.com/juju/juju/rpc/params"
	"github.com/juju/names/v6"

	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/cluster"
)

// modelPatience is how long a controller may take to forget a destroyed model.
const modelPatience = 2 * time.Minute

// createModel makes the model with hooks that run soon and fail visibly.
func (c *Cluster) createModel(ctx context.Context) error {
	uuid, err := askController(ctx, c, func(conn *controllerConnection) (string, error) {
		owner := names.NewUserTag(conn.user)
		credentials, err := apicloud.NewClient(conn).UserCredentials(ctx, owner, names.NewCloudTag(conn.cloud))
		if err != nil {
			return "", fmt.Errorf("cannot list credentials of %s for cloud %s: %w", conn.user, conn.cloud, err)
		}
		var credential names.CloudCredentialTag
		if len(credentials) > 0 {
			credential = credentials[0]
		}
		info, err := modelmanager.NewClient(conn).CreateModel(ctx, c.name, owner, conn.cloud, "", credential, c.modelConfig())
		return info.UUID, err
	})
	if err != nil {
		return fmt.Errorf("cannot create model %s on controller %s: %w", c.name, c.options.Controller, err)
	}
	c.modelUUID = uuid
	c.log.Info("model created", "model", c.name, "uuid", uuid)
	return c.learnProject(ctx)
}

func (c *Cluster) modelConfig() map[string]any {
	config := map[string]any{
		"update-status-hook-interval": "1m",
		// A hook that fails must show, not vanish in a retry.
		"automatically-retry-hooks": false,
		"test-mode":                 true,
		"enable-os-refresh-update":  false,
		"enable-os-upgrade":         false,
		"logging-config":            "<root>=INFO;unit=INFO;juju.worker.uniter.operation=DEBUG",
	}
	for k, v := range c.options.Config {
		config[k] = v
	}
	return config
}

// findModel returns the model's UUID, empty if the controller has no such model.
func (c *Cluster) findModel(ctx context.Context) (string, error) {
	uuid, err := askController(ctx, c, func(conn *controllerConnection) (string, error) {
		models, err := modelmanager.NewClient(conn).ListModels(ctx, conn.user)
		for _, m := range models {
			if m.Name == c.name {
				return m.UUID, nil
			}
		}
		return "", err
	})
	if err != nil {
		return "", fmt.Errorf("cannot see whether controller %s has model %s: %w", c.options.Controller, c.name, err)
	}
	return uuid, nil
}

// destroyModel asks for the model to be removed by force. It finds out its UUID if
// nobody has learned it.
func (c *Cluster) destroyModel(ctx context.Context) error {
	if c.modelUUID == "" {
		uuid, err := c.findModel(ctx)
		if err != nil || uuid == "" {
			return err
		}
		c.modelUUID = uuid
	}
	_, err := askController(ctx, c, func(conn *controllerConnection) (struct{}, error) {
		yes, now := true, time.Duration(0)
		return struct{}{}, modelmanager.NewClient(conn).DestroyModel(ctx, names.NewModelTag(c.modelUUID), &yes, &yes, &now, nil)
	})
	if err != nil && !params.IsCodeNotFound(err) && !params.IsCodeModelNotFound(err) {
		return fmt.Errorf("cannot destroy model %s: %w", c.name, err)
	}
	return nil
}

func (c *Cluster) awaitModelGone(ctx context.Context) error {
	return cluster.Poll(ctx, "the end of model "+c.name, time.Second, modelPatience, func(ctx context.Context) (bool, error) {
		uuid, err := c.findModel(ctx)
		if err == nil && uuid != "" {
			return false, errors.New("it is still being destroyed; `juju models` shows when it is gone")
		}
		return true, err
	})
}

package juju

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"github.com/juju/juju/api"
	"github.com/juju/juju/api/connector"
	"github.com/juju/juju/api/jujuclient"
)

// dialPatience is how long a controller may take to answer a connection. Juju's own
// default is 10 minutes.
const dialPatience = 30 * time.Second

// controllerConnection is a connection to the controller itself, with what its files
// in JujuData say.
type controllerConnection struct {
	api.Connection
	user  string // that is logged in
	cloud string // that the controller runs on
}

// dial opens a connection to the controller, or to one of its models, with the account
// found in JujuData. The connection ends with ctx.
func (c *Cluster) dial(ctx context.Context, modelUUID string) (*controllerConnection, error) {
	controllers, err := jujuclient.ReadControllersFile(filepath.Join(c.options.JujuData, "controllers.yaml"))
	if err != nil {
		return nil, fmt.Errorf("cannot read Juju's controllers: %w", err)
	}
	controller, ok := controllers.Controllers[c.options.Controller]
	if !ok {
		return nil, fmt.Errorf("no controller %q in %s", c.options.Controller, c.options.JujuData)
	}
	accounts, err := jujuclient.ReadAccountsFile(filepath.Join(c.options.JujuData, "accounts.yaml"))
	if err != nil {
		return nil, fmt.Errorf("cannot read Juju's accounts: %w", err)
	}
	account, ok := accounts[c.options.Controller]
	if !ok || account.Password == "" {
		return nil, fmt.Errorf("no password for controller %q in %s: log in with `juju login` as a user with a password", c.options.Controller, c.options.JujuData)
	}
	dialer, err := connector.NewSimple(connector.SimpleConfig{
		ControllerAddresses: controller.APIEndpoints,
		CACert:              controller.CACert,
		ModelUUID:           modelUUID,
		Username:            account.User,
		Password:            account.Password,
	}, func(o *api.DialOpts) { o.Timeout = dialPatience })
	if err != nil {
		return nil, fmt.Errorf("cannot connect to controller %q: %w", c.options.Controller, err)
	}
	conn, err := dialer.Connect(ctx)
	if err != nil {
		return nil, fmt.Errorf("cannot connect to controller %q: %w", c.options.Controller, err)
	}
	return &controllerConnection{conn, account.User, controller.Cloud}, nil
}

// askController makes calls of the controller's API, on a connection of their own.
func askController[T any](ctx context.Context, c *Cluster, call func(*controllerConnection) (T, error)) (T, error) {
	return valueWithin(ctx, func() (none T, err error) {
		conn, err := c.dial(ctx, "")
		if err != nil {
			return none, err
		}
		defer conn.Close()
		return call(conn)
	})
}

// ask makes calls of the model's API.
func ask[T any](ctx context.Context, c *Cluster, call func(api.Connection) (T, error)) (T, error) {
	return valueWithin(ctx, func() (none T, err error) {
		conn, err := c.connection(ctx)
		if err != nil {
			return none, err
		}
		return call(conn)
	})
}

// tell is ask without a result.
func (c *Cluster) tell(ctx context.Context, call func(api.Connection) error) error {
	_, err := ask(ctx, c, func(conn api.Connection) (struct{}, error) { return struct{}{}, call(conn) })
	return err
}

// connection returns a living connection to the model. It serves more calls than the
// one that needs it first, and a connection lives and dies with the context that it is
// made with: so it has the cluster's. Who cannot wait for it leaves it to the next one.
func (c *Cluster) connection(ctx context.Context) (api.Connection, error) {
	if err := c.dialing.Acquire(ctx, 1); err != nil {
		return nil, context.Cause(ctx)
	}
	defer c.dialing.Release(1)
	if c.model != nil {
		select {
		case <-c.model.Broken():
			c.model.Close()
			c.model = nil
		default:
			return c.model, nil
		}
	}
	conn, err := c.dial(c.ctx, c.modelUUID)
	if err != nil {
		return nil, err
	}
	c.model = conn.Connection
	return c.model, nil
}

// disconnect closes the connection to the model, for ever if the cluster's context has
// ended.
func (c *Cluster) disconnect(ctx context.Context) error {
	return within(ctx, func() error {
		if err := c.dialing.Acquire(ctx, 1); err != nil {
			return context.Cause(ctx)
		}
		defer c.dialing.Release(1)
		if c.model != nil {
			c.model.Close() // it may be broken; there is nothing to do about it
			c.model = nil
		}
		return nil
	})
}

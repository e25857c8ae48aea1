// Package juju is a cluster.Cluster on a real Juju controller whose machines
// are containers of a local LXD. Juju is spoken to through its API, LXD through
// its socket: attaching a volume, running commands and cleaning up work also
// while Juju's agents do not.
package juju

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"

	lxd "github.com/canonical/lxd/client"
	"github.com/juju/juju/api"
	apicloud "github.com/juju/juju/api/client/cloud"
	"github.com/juju/juju/api/client/modelmanager"
	"github.com/juju/juju/api/connector"
	"github.com/juju/juju/api/jujuclient"
	"github.com/juju/names/v6"

	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/cluster"
)

// Prefix begins the name of every model and volume that is made here, so that
// on a controller with other work left-overs can be told apart.
const Prefix = "ccbench-"

// Options say where a cluster is made.
type Options struct {
	JujuData   string // directory with controllers.yaml and accounts.yaml
	Controller string // name in controllers.yaml
	LXDSocket  string // unix socket of the LXD that the controller's cloud is
	Pool       string // LXD storage pool for the shared volume
	// VolumeSize limits the shared volume, in LXD's notation such as "4GiB".
	// Empty is as much as the pool has.
	VolumeSize string
	// Config overrides or adds to the model's configuration.
	Config map[string]any
	Log    *slog.Logger // nil discards
}

// Cluster is a model of its own with a shared volume.
type Cluster struct {
	name      string
	modelUUID string
	options   Options
	log       *slog.Logger
	lxd       lxd.InstanceServer

	// attachers hold a goroutine for every unit that waits for its volume.
	attachers sync.WaitGroup
	attaching sync.Mutex
	ctx       context.Context // of the attachers; ends with Destroy
	stop      context.CancelFunc

	mu           sync.Mutex
	model        api.Connection // reconnected when it broke
	shared       map[string]bool
	attachErrors map[string]error // by unit
}

var _ cluster.Cluster = (*Cluster)(nil)

// New makes a model and its volume. The caller destroys the cluster, also
// after a scenario that failed.
func New(ctx context.Context, o Options) (*Cluster, error) {
	suffix := make([]byte, 3)
	if _, err := rand.Read(suffix); err != nil {
		return nil, fmt.Errorf("cannot name a model: %w", err)
	}
	c := &Cluster{
		name:         Prefix + hex.EncodeToString(suffix),
		options:      o,
		log:          o.Log,
		shared:       map[string]bool{},
		attachErrors: map[string]error{},
	}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	c.ctx, c.stop = context.WithCancel(context.WithoutCancel(ctx))

	// The client keeps this context for all that it does; cleaning up comes
	// when the caller's may have ended.
	server, err := lxd.ConnectLXDUnixWithContext(context.WithoutCancel(ctx), o.LXDSocket, nil)
	if err != nil {
		return nil, fmt.Errorf("cannot connect to LXD at %s: %w", o.LXDSocket, err)
	}
	c.lxd = server
	if err := c.createModel(ctx); err != nil {
		c.stop()
		server.Disconnect()
		return nil, err
	}
	if err := c.createVolume(ctx); err != nil {
		return nil, errors.Join(err, c.Destroy(ctx))
	}
	return c, nil
}

// Name is the name of the model.
func (c *Cluster) Name() string { return c.name }

// createModel makes the model with hooks that run soon and fail visibly.
func (c *Cluster) createModel(ctx context.Context) error {
	conn, account, cloudName, err := c.connect(ctx, "")
	if err != nil {
		return err
	}
	defer conn.Close()

	owner := names.NewUserTag(account)
	credentials, err := apicloud.NewClient(conn).UserCredentials(ctx, owner, names.NewCloudTag(cloudName))
	if err != nil {
		return fmt.Errorf("cannot list credentials of %s for cloud %s: %w", account, cloudName, err)
	}
	var credential names.CloudCredentialTag
	if len(credentials) > 0 {
		credential = credentials[0]
	}
	config := map[string]any{
		"update-status-hook-interval": "1m",
		// A hook that fails must show, not vanish in a retry.
		"automatically-retry-hooks": false,
		"test-mode":                 true,
		"enable-os-refresh-update":  false,
		"enable-os-upgrade":         false,
		"logging-config":            "<root>=INFO;unit=INFO",
	}
	for k, v := range c.options.Config {
		config[k] = v
	}
	info, err := modelmanager.NewClient(conn).CreateModel(ctx, c.name, owner, cloudName, "", credential, config)
	if err != nil {
		return fmt.Errorf("cannot create model %s on controller %s: %w", c.name, c.options.Controller, err)
	}
	c.modelUUID = info.UUID
	c.log.Info("model created", "model", c.name, "uuid", info.UUID)
	return nil
}

// connect opens a connection to the controller, or to one of its models, with
// the account found in JujuData. It also returns that account's user and the
// name of the controller's cloud.
func (c *Cluster) connect(ctx context.Context, modelUUID string) (conn api.Connection, user, cloudName string, err error) {
	controllers, err := jujuclient.ReadControllersFile(filepath.Join(c.options.JujuData, "controllers.yaml"))
	if err != nil {
		return nil, "", "", fmt.Errorf("cannot read Juju's controllers: %w", err)
	}
	controller, ok := controllers.Controllers[c.options.Controller]
	if !ok {
		return nil, "", "", fmt.Errorf("no controller %q in %s", c.options.Controller, c.options.JujuData)
	}
	accounts, err := jujuclient.ReadAccountsFile(filepath.Join(c.options.JujuData, "accounts.yaml"))
	if err != nil {
		return nil, "", "", fmt.Errorf("cannot read Juju's accounts: %w", err)
	}
	account, ok := accounts[c.options.Controller]
	if !ok || account.Password == "" {
		return nil, "", "", fmt.Errorf("no password for controller %q in %s: log in with `juju login` as a user with a password", c.options.Controller, c.options.JujuData)
	}
	dial, err := connector.NewSimple(connector.SimpleConfig{
		ControllerAddresses: controller.APIEndpoints,
		CACert:              controller.CACert,
		ModelUUID:           modelUUID,
		Username:            account.User,
		Password:            account.Password,
	})
	if err != nil {
		return nil, "", "", fmt.Errorf("cannot connect to controller %q: %w", c.options.Controller, err)
	}
	conn, err = dial.Connect(ctx)
	if err != nil {
		return nil, "", "", fmt.Errorf("cannot connect to controller %q: %w", c.options.Controller, err)
	}
	return conn, account.User, controller.Cloud, nil
}

// connection returns a living connection to the model.
func (c *Cluster) connection() (api.Connection, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.model != nil {
		select {
		case <-c.model.Broken():
			c.model.Close()
			c.model = nil
		default:
			return c.model, nil
		}
	}
	// The connection lives and dies with the context that it is made with, and
	// it serves more calls than this one.
	conn, _, _, err := c.connect(c.ctx, c.modelUUID)
	if err != nil {
		return nil, err
	}
	c.model = conn
	return conn, nil
}

// Destroy removes the model, its containers and the volume. It does not wait
// for agents: what Juju would have to be patient for, LXD removes by force.
func (c *Cluster) Destroy(ctx context.Context) error {
	c.stop()
	c.attachers.Wait()
	c.mu.Lock()
	if c.model != nil {
		c.model.Close()
		c.model = nil
	}
	c.mu.Unlock()

	defer c.lxd.Disconnect()
	// Each is tried whatever became of those before it.
	return errors.Join(
		c.destroyModel(ctx),
		c.deleteContainers(ctx),
		c.deleteVolume(ctx),
		c.awaitModelGone(ctx),
	)
}

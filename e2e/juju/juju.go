// Package juju is a cluster.Cluster on a real Juju controller whose machines
// are containers of a local LXD. Juju is spoken to through its API, LXD through
// its socket: attaching a volume, running commands, breaking things and cleaning
// up work also while Juju's agents do not.
package juju

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/juju/juju/api"
	"golang.org/x/sync/semaphore"

	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/cluster"
)

// Prefix begins the name of every model and volume that is made here, so that
// on a controller with other work left-overs can be told apart.
const Prefix = "ccbench-"

// destroyPatience is how long New cleans up after itself, whatever became of its
// caller.
const destroyPatience = 3 * time.Minute

// Options say where a cluster is made.
type Options struct {
	JujuData   string // directory with controllers.yaml and accounts.yaml
	Controller string // name in controllers.yaml
	Juju       string // path of the juju command, for Shell
	LXDSocket  string // unix socket of the LXD that the controller's cloud is
	Pool       string // LXD storage pool for volumes
	// HostPath is a directory of this host, root's own. Volumes are then directories in
	// it, with shift=true, as those of operators may be. It needs an LXD that can map
	// owners at a mount. Empty is custom volumes of the pool, which work everywhere.
	HostPath string
	// Config overrides or adds to the model's configuration.
	Config map[string]any
	Log    *slog.Logger // nil discards
}

// Cluster is a model of its own, with its volumes.
type Cluster struct {
	name      string
	modelUUID string
	project   string // LXD project of the model's machines; empty while unknown
	options   Options
	log       *slog.Logger
	lxd       *lxdServer
	secrets   redactor
	programs  programs

	// ctx is that of the connection to the model and of attachers; it ends with Destroy.
	ctx  context.Context
	stop context.CancelFunc
	// attachers hold a goroutine for every unit that waits for its volume.
	attachers sync.WaitGroup

	dialing *semaphore.Weighted // held by who uses model
	model   api.Connection      // reconnected when it broke
	devices *semaphore.Weighted // held by who changes an instance's devices or boots one

	mu            sync.Mutex
	volumes       int                // made so far
	volumeOf      map[string]*volume // by application: what every unit of it gets
	volumeAt      map[string]*volume // by unit: what is attached
	byScenario    map[string]bool    // units that the scenario attaches and detaches itself
	attachErrors  map[string]error   // by unit
	instanceNames map[string]string  // by unit, as far as they were ever seen
}

var _ cluster.Cluster = (*Cluster)(nil)

// New makes a model. The caller destroys the cluster, also after a scenario that
// failed. When New fails, it has destroyed what it made.
func New(ctx context.Context, o Options) (*Cluster, error) {
	suffix := make([]byte, 3)
	if _, err := rand.Read(suffix); err != nil {
		return nil, fmt.Errorf("cannot name a model: %w", err)
	}
	server, err := connectLXD(ctx, o.LXDSocket)
	if err != nil {
		return nil, err
	}
	c := newCluster(ctx, o, Prefix+hex.EncodeToString(suffix), server)
	if err := c.createModel(ctx); err != nil {
		// The caller's context may have ended; and a controller that did not answer in
		// time may have made the model.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), destroyPatience)
		defer cancel()
		return nil, errors.Join(err, c.Destroy(ctx))
	}
	return c, nil
}

func newCluster(ctx context.Context, o Options, name string, server *lxdServer) *Cluster {
	c := &Cluster{
		name:          name,
		options:       o,
		log:           o.Log,
		lxd:           server,
		dialing:       semaphore.NewWeighted(1),
		devices:       semaphore.NewWeighted(1),
		volumeOf:      map[string]*volume{},
		volumeAt:      map[string]*volume{},
		byScenario:    map[string]bool{},
		attachErrors:  map[string]error{},
		instanceNames: map[string]string{},
	}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	c.ctx, c.stop = context.WithCancel(context.WithoutCancel(ctx))
	return c
}

// Name is the name of the model.
func (c *Cluster) Name() string { return c.name }

// Destroy removes the model, its containers and its volumes. It does not wait
// for agents: what Juju would have to be patient for, LXD removes by force.
func (c *Cluster) Destroy(ctx context.Context) error {
	c.stop()
	defer c.lxd.stop()
	// Each is tried whatever became of those before it.
	err := errors.Join(
		within(ctx, func() error { c.attachers.Wait(); return nil }),
		c.disconnect(ctx),
	)
	modelErr := c.destroyModel(ctx)
	err = errors.Join(err, modelErr, c.findProject(ctx), c.deleteContainers(ctx), c.deleteVolumes(ctx))
	if modelErr == nil {
		err = errors.Join(err, c.awaitModelGone(ctx))
	}
	return err
}

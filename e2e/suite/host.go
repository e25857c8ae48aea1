package suite

import (
	"context"

	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/cluster"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/observation"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/record"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/scenarios"
)

// Host makes what scenarios run on. Juju is the real one.
type Host interface {
	// Build makes what scenarios deploy, or returns what an earlier call has made. Log
	// is told each step.
	Build(ctx context.Context, log func(string)) (Build, error)
	// Previous returns the path of a packed charm that came before Build's.
	Previous(ctx context.Context, log func(string)) (string, error)
	// StartMirror serves the releases of a build, with a ledger of its own.
	StartMirror(Build) (Mirror, error)
	// NewCluster makes an empty cluster.
	NewCluster(ctx context.Context) (cluster.Cluster, error)
	// Look looks at a machine, as record.Options have it.
	Look(ctx context.Context, m cluster.Machine, how record.Thoroughness) (observation.Machine, error)
	// Visit returns the command that shows a cluster which was kept.
	Visit(cluster.Cluster) string
	// Close removes what Build has made for this process only.
	Close() error
}

// Build is what scenarios deploy.
type Build struct {
	Charm         string            // path of the packed charm
	Database      cluster.App       // see scenarios.Inputs
	Probe         string            // path of the packed probe
	Old, From, To scenarios.Release // that the mirror serves
	Archives      []string          // paths of their tarballs
}

// Mirror serves the releases of a build until it is closed.
type Mirror interface {
	cluster.Mirror
	// Ledger returns every request so far as JSON, for evidence.
	Ledger() ([]byte, error)
	Close() error
}

// Package scenarios are what an operator does with the charm and what must
// then be true. A scenario knows cluster.Cluster and nothing below it.
package scenarios

import (
	"context"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/cluster"
)

// T is the part of testing.T that a scenario needs, so that a program can run
// one outside of go test.
type T interface {
	require.TestingT
	Helper()
	Logf(format string, args ...any)
	TempDir() string
}

// Inputs are what a scenario deploys.
type Inputs struct {
	Charm    string      // path of the packed charm
	Database cluster.App // provides postgresql_client as the endpoint `database`
	Mirror   cluster.Mirror
	From, To Release // what is deployed, and what it is upgraded to
	Report   *cluster.Report
}

// Release is a release that the mirror serves.
type Release struct {
	Version   string
	Installed int64  // bytes of its files once unpacked
	Fly       string // path of its fly for this machine
}

const (
	app     = "concourse-ci"
	root    = "/var/lib/concourse"
	webPort = "8080"
)

// run is one scenario under way.
type run struct {
	T
	ctx context.Context
	c   cluster.Cluster
	in  Inputs
}

// wait waits for a condition and fails the scenario if it does not come true.
func (r *run) wait(what string, within time.Duration, until cluster.Condition) cluster.Status {
	r.Helper()
	s, err := cluster.Wait{For: what, Until: until, Within: within, Log: r.Logf}.On(r.ctx, r.c)
	require.NoError(r, err)
	return s
}

// exec runs a shell command as root on a unit and returns what it prints.
func (r *run) exec(unit, command string) string {
	r.Helper()
	out, err := r.c.Exec(r.ctx, unit, "sh", "-c", command)
	require.NoError(r, err)
	return out
}

// config is what every scenario configures the charm with.
func (in Inputs) config() map[string]string {
	return map[string]string{
		"mode":           "auto",
		"shared-storage": "lxc",
		"version":        in.From.Version,
		"release-url":    in.Mirror.URL(),
	}
}

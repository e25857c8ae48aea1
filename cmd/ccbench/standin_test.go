package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/cluster"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/cluster/clustertest"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/fixtures/environment"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/observation"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/record"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/scenarios"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/suite"
)

// errStandIn is the end of what would change a machine.
var errStandIn = errors.New("a stand-in changes no machine")

// standIn is a backend that cannot touch a machine, whatever it is asked for. It has some
// scenarios that need none.
func standIn() backend {
	return backend{
		up:        func(context.Context, environment.Options) (*environment.Environment, error) { return nil, errStandIn },
		docker:    func(context.Context, environment.Options) error { return errStandIn },
		down:      func(context.Context, environment.Options, bool) error { return errStandIn },
		foresee:   environment.Foresee,
		scenarios: standInScenarios,
		host: func(ctx context.Context, o environment.Options, j suite.JujuOptions) (suite.Host, error) {
			if os.Getenv("CCBENCH_STANDIN_MISSING") != "" {
				return real.host(ctx, o, j) // which finds none
			}
			return &standInHost{charm: j.Charm}, nil
		},
	}
}

// trace tells the test what was done, in the file that it names.
func trace(suffix, text string) {
	path := os.Getenv("CCBENCH_STANDIN_TRACE")
	if path == "" {
		return
	}
	f, err := os.OpenFile(path+suffix, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err == nil {
		_, err = fmt.Fprintln(f, text)
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		panic(err)
	}
}

var standInScenarios = []suite.Scenario{
	{Name: "passes", Group: "quick", Proves: "It passes.", Takes: time.Minute, Needs: suite.Needs{Memory: 1 << 20}, Run: func(_ context.Context, t scenarios.T, _ cluster.Cluster, in scenarios.Inputs) {
		t.Logf("the charm is %s", in.Charm)
	}},
	{Name: "fails", Group: "bad", Proves: "It fails.", Run: func(_ context.Context, t scenarios.T, _ cluster.Cluster, _ scenarios.Inputs) {
		t.Errorf("no leader")
	}},
	{Name: "is-slow", Group: "bad", Proves: "It misses a target.", Run: func(_ context.Context, _ scenarios.T, _ cluster.Cluster, in scenarios.Inputs) {
		in.Report.Add("upgrade", 2*time.Minute, time.Minute, nil)
	}},
	{Name: "waits", Group: "endless", Proves: "It waits until it is interrupted.", OnRequest: true, Run: func(ctx context.Context, _ scenarios.T, _ cluster.Cluster, _ scenarios.Inputs) {
		trace("", "begun")
		<-ctx.Done()
	}},
	{Name: "ignores", Group: "endless", Proves: "It ignores an interrupt.", OnRequest: true, Run: func(ctx context.Context, _ scenarios.T, _ cluster.Cluster, _ scenarios.Inputs) {
		trace("", "begun")
		<-ctx.Done()
		trace(".interrupted", "yes")
		select {}
	}},
}

// standInHost makes clusters without machines.
type standInHost struct{ charm string }

func (h *standInHost) Build(context.Context, func(string)) (suite.Build, error) {
	if h.charm == "" {
		h.charm = "of this repository"
	}
	return suite.Build{Charm: h.charm, Database: cluster.App{Name: "postgresql"}}, nil
}

func (*standInHost) Previous(context.Context, func(string)) (string, error) { return "", nil }
func (*standInHost) StartMirror(suite.Build) (suite.Mirror, error)          { return standInMirror{}, nil }
func (*standInHost) Visit(cluster.Cluster) string                           { return "juju status" }
func (*standInHost) Close() error                                           { return nil }

func (*standInHost) Look(context.Context, cluster.Machine, record.Thoroughness) (observation.Machine, error) {
	return observation.Machine{}, nil
}

func (*standInHost) NewCluster(context.Context) (cluster.Cluster, error) {
	trace("", "made")
	return &standInCluster{clustertest.Cluster{Evidence: func(context.Context, string) error {
		trace("", "collected")
		return nil
	}}}, nil
}

type standInCluster struct{ clustertest.Cluster }

func (c *standInCluster) Destroy(ctx context.Context) error {
	trace("", "destroyed")
	return c.Cluster.Destroy(ctx)
}

type standInMirror struct{}

func (standInMirror) URL() string                         { return "http://10.0.3.1/concourse/concourse" }
func (standInMirror) Transfer(string) cluster.Transfer    { return cluster.Transfer{} }
func (standInMirror) Attempts(string, string) []time.Time { return nil }
func (standInMirror) Break(string, cluster.MirrorFault)   {}
func (standInMirror) Repair(string)                       {}
func (standInMirror) Ledger() ([]byte, error)             { return []byte(`[]`), nil }
func (standInMirror) Close() error                        { return nil }

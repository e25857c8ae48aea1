// Package scenarios are what an operator does with the charm. What must be true
// whatever happens is judged by the rules of package judge at each observation; a
// scenario demands what only it knows. It knows cluster.Cluster and nothing below it.
package scenarios

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/cluster"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/judge"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/observation"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/record"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/report"
)

// T is the part of testing.T that a scenario needs, so that a program can run
// one outside of go test.
type T interface {
	require.TestingT
	Helper()
	Logf(format string, args ...any)
	TempDir() string
}

// Inputs are what a scenario deploys, and what it reports and records with.
type Inputs struct {
	Charm string // path of the packed charm
	// Previous returns the path of a packed charm that came before it.
	Previous func(ctx context.Context) (string, error)
	Database cluster.App // provides postgresql_client as the endpoint `database`
	Probe    string      // path of the packed charm that tells what hooks see
	Dir      string      // folder for what the scenario leaves to be read
	Mirror   cluster.Mirror
	From, To Release // what is deployed, and what it is upgraded to
	Old      Release // years before From, with another schema of the database
	Report   *report.Report
	Record   *record.Recorder
}

// Release is a release that the mirror serves.
type Release struct {
	Version   string
	Installed int64  // bytes of its files once unpacked
	Fly       string // path of its fly for this machine
}

// app is the application that every scenario deploys first.
const app = "concourse-ci"

var errNotEnded = errors.New("it did not come to its end")

// patience is how long anything may take that a scenario waits for. It is far more than
// is normal: what takes too long shows in the report.
const patience = 10 * time.Minute

// run is one scenario under way.
type run struct {
	T
	ctx    context.Context
	c      cluster.Cluster
	in     Inputs
	volume cluster.Volume // nil for a scenario without shared storage
	fly    *fly           // nil until somebody has logged in
	quiet  func()         // ends the builds beside, see login
	// Builds that ran when something happened, see underWayOn. Those that did not succeed have
	// an explanation: a fault, or a flaw of Concourse.
	watched, succeeded int
}

// begin returns a scenario with a volume of that size; empty is as large as the pool.
func begin(ctx context.Context, t T, c cluster.Cluster, in Inputs, size string) *run {
	t.Helper()
	volume, err := c.NewVolume(ctx, size)
	require.NoError(t, err)
	return &run{T: t, ctx: ctx, c: c, in: in, volume: volume, quiet: func() {}}
}

// options are those of a deployment; others override or add to them.
func (r *run) options(others map[string]string) map[string]string {
	options := map[string]string{
		"mode":           "auto",
		"shared-storage": "none",
		"version":        r.in.From.Version,
		"release-url":    r.in.Mirror.URL(),
	}
	if r.volume != nil {
		options["shared-storage"] = "lxc"
	}
	for name, value := range others {
		options[name] = value
	}
	return options
}

// deploy deploys the charm and its database, and waits for nothing. The database comes
// first: Juju makes machines one after the other, and all units wait for it.
func (r *run) deploy(units int, options map[string]string) {
	r.Helper()
	require.NoError(r, r.c.Deploy(r.ctx, r.in.Database))
	require.NoError(r, r.c.Deploy(r.ctx, cluster.App{
		Name: app, Charm: r.in.Charm, Units: units, Config: r.options(options), Volume: r.volume,
	}))
	r.relateDatabase()
}

func (r *run) relateDatabase() {
	r.Helper()
	require.NoError(r, r.c.Integrate(r.ctx, app+":postgresql", r.in.Database.Name+":database"))
}

// glanceEvery is how often a scenario that waits looks whether a rule is broken.
const glanceEvery = 10 * time.Second

var errBroken = errors.New("a rule is broken")

// wait waits for a condition and fails the scenario if it does not come true, or if a
// rule is broken meanwhile.
func (r *run) wait(what string, until cluster.Condition) cluster.Held {
	r.Helper()
	ctx, end := context.WithCancelCause(r.ctx)
	defer end(nil)
	var violations []judge.Violation
	var glancing sync.WaitGroup
	glancing.Go(func() {
		for {
			select {
			case <-ctx.Done():
				return
			case <-time.After(glanceEvery):
			}
			if violations = r.in.Record.Glance(ctx, what); len(violations) > 0 {
				end(errBroken)
				return
			}
		}
	})
	held, err := cluster.Wait{For: what, Until: until, Within: patience, Down: r.in.Record.Down(), Log: r.Logf}.On(ctx, r.c)
	end(nil)
	glancing.Wait()
	r.in.Record.Fail(violations)
	require.NoError(r, err)
	return held
}

// active waits until that many units run a release and say so.
func (r *run) active(units int, version string) cluster.Held {
	r.Helper()
	return r.wait("all units on "+version, cluster.All(cluster.UnitsAre(app, units, cluster.Active, "v"+version), noneLands))
}

// noneLands holds when no worker is about to end with its builds.
func noneLands(s cluster.Status) error {
	for _, u := range s.Units(app) {
		if strings.HasSuffix(u.Message, "the unit's worker ends with its builds") {
			return fmt.Errorf("%s says %q", u.Name, u.Message)
		}
	}
	return nil
}

// phase does a part of the scenario whose end a wait has seen, and reports how long it
// took until then. A target of 0 is none.
func (r *run) phase(name string, target time.Duration, do func() cluster.Held) cluster.Held {
	r.Helper()
	r.in.Report.Begin(name)
	start := time.Now()
	var held cluster.Held
	ended := false
	defer func() {
		if !ended {
			r.in.Report.Add(name, time.Since(start), target, errNotEnded)
		}
	}()
	held = do()
	ended = true
	r.in.Report.Add(name, held.Since.Sub(start), target, nil)
	return held
}

// during injects a fault, does something, and heals it.
func (r *run) during(fault cluster.Fault, do func()) {
	r.Helper()
	require.NoError(r, fault.Inject(r.ctx), fault.Name)
	do()
	if fault.Heal != nil {
		require.NoError(r, fault.Heal(r.ctx), fault.Name)
	}
}

// atRest observes a cluster of which each unit runs the version, and says what it will
// say until somebody does something.
func (r *run) atRest(phase, version string) observation.Observation {
	r.Helper()
	return r.in.Record.Observe(r.ctx, phase, true, version)
}

// recover waits until all units run again, and observes them.
func (r *run) recover(phase string, units int) {
	r.Helper()
	r.phase(phase, time.Minute, func() cluster.Held { return r.active(units, r.in.From.Version) })
	r.atRest(phase, r.in.From.Version)
}

// demand ends the scenario if texts say how a rule is broken that only it can judge.
func (r *run) demand(rule string, broken []string) {
	r.Helper()
	r.in.Record.Demand(rule, broken)
}

// expected says what differs from what a condition expects.
func expected[T comparable](what string, want, got T) error {
	if got == want {
		return nil
	}
	return fmt.Errorf("%s: %v, not %v", what, got, want)
}

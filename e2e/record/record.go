// Package record writes down what a scenario does to a cluster and what is then seen of
// it, and has the rules of package judge applied to that. It is what scenarios observe
// with: they say when to look, and what they expect.
package record

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/cluster"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/judge"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/observation"
)

// The limits of one look at the cluster.
const (
	// askLimit is how long a machine may refuse to be looked at. Reading every byte of
	// two releases takes seconds.
	askLimit = time.Minute
	// downLimit is the same for one that is down on purpose: it may answer, or hang.
	downLimit = 5 * time.Second
	// logLimit is how long Juju may take to hand out its log.
	logLimit = 30 * time.Second
)

// returning is how long after its fault has ended a machine counts as down: it has to
// boot, and its agent to find the controller again.
const returning = 2 * time.Minute

// T is the part of a test that a Recorder needs.
type T interface {
	Errorf(format string, args ...any)
	FailNow()
	Helper()
	Logf(format string, args ...any)
}

// Options say what is recorded, and how one looks.
type Options struct {
	Scenario string
	T        T
	Cluster  cluster.Cluster
	Mirror   cluster.Mirror
	// Others are names of applications of other charms, such as the database's: their
	// machines are not looked at.
	Others []string
	// Versions are the releases whose downloads are counted.
	Versions []string
	// Rules are applied to each observation; nil is judge.Always and judge.Seen.
	Rules []judge.Rule
	// Settle is how long after its units have said what they say a cluster at rest may
	// break the rules that give it time, see judge.Rule. 0 is 75 s: a web server
	// forgets a worker that has gone 30 s after its last heartbeat, and looks each 30 s.
	Settle time.Duration
	// Look asks a machine what is seen there. What is asked of a unit that is not there
	// is cluster.ErrNoUnit.
	Look func(ctx context.Context, m cluster.Machine, how Thoroughness) (observation.Machine, error)
	// Version asks the web server at an address such as "http://10.0.3.5:8080" for its
	// version; nil asks /api/v1/info.
	Version func(ctx context.Context, url string) (string, error)
}

// Thoroughness is how much of a machine is looked at.
type Thoroughness int

const (
	Quick Thoroughness = iota // what takes no time
	Full                      // all but the content of releases
	Deep                      // every byte of every release on its volume, too
)

// Recorder records one scenario. It is safe for concurrent use.
type Recorder struct {
	o Options

	mu         sync.Mutex
	record     observation.Record
	faults     []*fault
	apps       []string // deployed, without Others
	workers    func(context.Context) ([]observation.Worker, error)
	violations []judge.Violation
	beside     []func() // end what runs beside the scenario
}

// New returns a Recorder with an empty record.
func New(o Options) *Recorder {
	o.Settle = cmp.Or(o.Settle, 75*time.Second)
	if o.Rules == nil {
		o.Rules = append(judge.Always(), judge.Seen())
	}
	if o.Version == nil {
		o.Version = askVersion
	}
	return &Recorder{o: o, record: observation.Record{Scenario: o.Scenario, Secrets: map[string]string{}}}
}

// ObserveFailure records what can still be seen of a cluster whose scenario has failed.
// It judges nothing; the error says what could not be seen.
func (r *Recorder) ObserveFailure(ctx context.Context) error {
	o, err := r.look(ctx, "failure", false, Quick)
	if err == nil {
		r.add(o)
	}
	return errors.Join(err, r.readLog(ctx))
}

// Judge applies rules to all that is recorded so far. The scenario ends if one is broken.
func (r *Recorder) Judge(rules ...judge.Rule) {
	r.o.T.Helper()
	r.Fail(judge.Judge(r.Record(), rules...))
}

// Demand ends the scenario with the texts, if there are any, as violations of a rule: it
// is for rules that compare what only the scenario knows to be comparable, such as
// judge.Undisturbed.
func (r *Recorder) Demand(rule string, broken []string) {
	r.o.T.Helper()
	var violations []judge.Violation
	for _, text := range broken {
		violations = append(violations, judge.Violation{Rule: rule, Text: text})
	}
	r.Fail(violations)
}

// Fail ends the scenario with broken rules, if there are any.
func (r *Recorder) Fail(violations []judge.Violation) {
	r.o.T.Helper()
	if len(violations) == 0 {
		return
	}
	r.mu.Lock()
	r.violations = append(r.violations, violations...)
	r.mu.Unlock()
	for _, v := range violations {
		r.o.T.Errorf("%s", v)
	}
	r.o.T.FailNow()
}

// Violations are the broken rules that the scenario has failed by.
func (r *Recorder) Violations() []judge.Violation {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.violations)
}

// Record returns what is recorded so far.
func (r *Recorder) Record() observation.Record {
	r.mu.Lock()
	defer r.mu.Unlock()
	rec := r.record
	rec.Observations = slices.Clone(rec.Observations)
	rec.Acts = slices.Clone(rec.Acts)
	rec.Builds = slices.Clone(rec.Builds)
	rec.Beside = slices.Clone(rec.Beside)
	rec.Secrets = maps.Clone(rec.Secrets)
	rec.Allowed = maps.Clone(rec.Allowed)
	rec.Faults = make([]observation.Fault, len(r.faults))
	for i, f := range r.faults {
		rec.Faults[i] = f.Fault
	}
	return rec
}

// Workers has every observation from now on ask the web server for its workers, as
// whoever is logged in.
func (r *Recorder) Workers(ask func(context.Context) ([]observation.Worker, error)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.workers = ask
}

// Build records a build that has ended.
func (r *Recorder) Build(b observation.Build) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.record.Builds = append(r.record.Builds, b)
}

// Allow says how often the archive of a version may be sent, where once is not right.
func (r *Recorder) Allow(version string, times int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.record.Allowed == nil {
		r.record.Allowed = map[string]int{}
	}
	r.record.Allowed[version] = times
}

// Secret records a value that must be nowhere but in its file. Passwords among the
// results of actions, and what the machines' own files hold, are recorded by themselves.
func (r *Recorder) Secret(what, value string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.record.Secrets[what] = value
}

// Secrets are all secrets that are known so far, by what they are.
func (r *Recorder) Secrets() map[string]string {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := maps.Clone(r.record.Secrets)
	for _, o := range r.record.Observations {
		for unit, m := range o.Machines {
			for what, value := range m.Secrets {
				all[unit+": "+what] = value
			}
		}
	}
	return all
}

func (r *Recorder) add(o observation.Observation) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.record.Observations = append(r.record.Observations, o)
}

// Package judge says what is right. Its rules are pure: they read what was observed and
// have no clock and no way to look again. What was not observed, such as a machine that
// could not be asked, breaks no rule.
//
// The rules of Always hold at any moment of any scenario. Whoever runs a scenario
// applies them after each of its phases. Functions such as Undisturbed compare two
// observations; only the scenario knows when they have to be alike.
package judge

import (
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"

	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/cluster"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/observation"
)

// Rule is a promise that a record can be seen to break.
type Rule struct {
	Name    string // a word for reports, such as "one-download"
	Promise string // one sentence
	// Broken returns a line for each place where a record breaks the promise: which
	// unit, what was seen, what is right. It is empty where nothing is wrong, or
	// where too little was seen.
	Broken func(observation.Record) []string
	// Settles says why a cluster at rest may break the rule for some seconds. It is empty
	// for what must not be seen broken once.
	Settles string
	// Recovers says the same of a cluster that had a fault.
	Recovers string
}

// MaySettle tells whether what breaks the rule in the record's last observation may be
// mended by itself in some seconds.
func (rule Rule) MaySettle(r observation.Record) bool {
	return rule.Settles != "" || rule.Recovers != "" && hadFault(r)
}

// Violation is a broken rule.
type Violation struct {
	Rule string `json:"rule"`
	Text string `json:"text"`
}

func (v Violation) String() string { return v.Rule + ": " + v.Text }

// Judge applies the rules to a record, in their order.
func Judge(r observation.Record, rules ...Rule) []Violation {
	var all []Violation
	for _, rule := range rules {
		for _, text := range rule.Broken(r) {
			all = append(all, Violation{rule.Name, text})
		}
	}
	return all
}

// Always returns the rules that hold in every scenario at any moment.
func Always() []Rule {
	return slices.Concat(
		secretRules, panicRules, statusRules, restartRules, optionRules, restRules,
		programRules, fileRules, mountRules, releaseRules, modelRules, volumeRules, keepRules,
		downloadRules, receivedRules, diskRules, webRules, orderRules, turnRules, pauseRules, buildRules,
	)
}

// The charm's services, and where the volume belongs.
const (
	server = "concourse-server.service"
	worker = "concourse-worker.service"
	root   = "/var/lib/concourse"
)

// findings collects what a rule finds.
type findings []string

// add says what was seen of a unit in an observation.
func (f *findings) add(o observation.Observation, unit, format string, args ...any) {
	f.note("%s at the end of %q: %s", unit, o.Phase, fmt.Sprintf(format, args...))
}

// note says what was seen of no unit in particular.
func (f *findings) note(format string, args ...any) { *f = append(*f, fmt.Sprintf(format, args...)) }

// resting yields the observations of a cluster at rest.
func resting(r observation.Record) iter.Seq[observation.Observation] {
	return func(yield func(observation.Observation) bool) {
		for _, o := range r.Observations {
			if o.Resting && !yield(o) {
				return
			}
		}
	}
}

// machines yields the machines that could be asked, by unit, in the order of the units'
// names.
func machines(o observation.Observation) iter.Seq2[string, observation.Machine] {
	return func(yield func(string, observation.Machine) bool) {
		for _, unit := range slices.Sorted(maps.Keys(o.Machines)) {
			if !yield(unit, o.Machines[unit]) {
				return
			}
		}
	}
}

// allUnits yields the units of all applications.
func allUnits(s cluster.Status) iter.Seq[cluster.UnitStatus] {
	return func(yield func(cluster.UnitStatus) bool) {
		for _, app := range slices.Sorted(maps.Keys(s.Apps)) {
			for _, u := range s.Units(app) {
				if !yield(u) {
					return
				}
			}
		}
	}
}

// active tells whether Juju says so of a unit.
func active(o observation.Observation, unit string) bool {
	u, ok := o.Status.Unit(unit)
	return ok && u.Workload == cluster.Active
}

// runs returns a service that systemd runs, with its main process. What is known of a
// service between two attempts is about a process that has ended.
func runs(m observation.Machine, name string) (observation.Service, bool) {
	s, ok := m.Service(name)
	return s, ok && s.State == "active" && s.PID != 0
}

// running yields those of the charm's services that systemd runs.
func running(m observation.Machine) iter.Seq[observation.Service] {
	return func(yield func(observation.Service) bool) {
		for _, name := range []string{server, worker} {
			if s, ok := runs(m, name); ok && !yield(s) {
				return
			}
		}
	}
}

// dashed is a unit's name as its worker, its directory and its pin have it.
func dashed(unit string) string { return strings.ReplaceAll(unit, "/", "-") }

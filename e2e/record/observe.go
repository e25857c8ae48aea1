package record

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/cluster"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/judge"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/observation"
)

// Observe looks at the cluster at the end of a phase, records what it sees and applies
// the rules that hold at any moment. The scenario ends if one is broken, or if it cannot
// look: a machine may refuse only while it is down on purpose.
//
// Resting tells that every unit says what it will say until somebody does something.
// Then it looks again for a while where only rules are broken that may settle, or where
// a unit says something else after the look than before it: of such a look only those
// rules are judged that hold without rest.
// Expected is the version that all units should run; empty while they may differ.
func (r *Recorder) Observe(ctx context.Context, phase string, resting bool, expected string) observation.Observation {
	r.o.T.Helper()
	said := "" // of what is not at rest
	for start := time.Now(); ; {
		o, err := r.look(ctx, phase, resting, Full)
		if err == nil {
			err = r.readLog(ctx)
		}
		var moved string
		if err == nil && resting {
			moved = r.moved(ctx, o.Status)
		}
		if err != nil {
			r.o.T.Errorf("cannot observe the cluster at the end of %q: %v", phase, err)
			r.o.T.FailNow()
		}
		o.Expected = expected
		mayWait := resting && time.Since(start) < r.o.Settle && ctx.Err() == nil
		if moved != "" && mayWait {
			o.Resting, o.Expected = false, ""
		}
		violations, lasting := r.judge(o)
		switch {
		case !mayWait:
		case len(lasting) > 0:
			violations = lasting // The others may settle.
		case len(violations)+len(moved) > 0:
			why := moved
			if len(violations) > 0 {
				why = violations[0].String()
			}
			// Said, so that a rule which is broken for a moment leaves a trace.
			if why != said {
				r.o.T.Logf("not at rest yet at the end of %q: %s", phase, why)
			}
			said = why
			select {
			case <-ctx.Done():
			case <-time.After(time.Second):
			}
			continue
		}
		if said != "" && len(violations) == 0 {
			r.o.T.Logf("at rest after %s", time.Since(start).Round(time.Second))
		}
		r.add(o)
		r.o.T.Logf("observed at the end of %q: %s", phase, summary(o))
		r.Fail(violations)
		return o
	}
}

// judge applies the rules to the record with one more observation. Lasting are those of
// the violations that time must not mend.
func (r *Recorder) judge(o observation.Observation) (violations, lasting []judge.Violation) {
	with := r.Record()
	with.Observations = append(with.Observations, o)
	for _, rule := range r.o.Rules {
		broken := judge.Judge(with, rule)
		violations = append(violations, broken...)
		if len(broken) > 0 && !rule.MaySettle(with) {
			lasting = append(lasting, broken...)
		}
	}
	return violations, lasting
}

// executing is Juju's word for an agent that runs a hook.
const executing = "executing"

// moved tells which unit says something else than it did in a status from before, or runs
// a hook: one that has just come has hooks due for each of the others.
func (r *Recorder) moved(ctx context.Context, before cluster.Status) string {
	after, err := r.o.Cluster.Status(ctx)
	if err != nil {
		return fmt.Sprintf("cannot read status: %v", err)
	}
	r.mu.Lock()
	apps := slices.Clone(r.apps)
	r.mu.Unlock()
	for _, app := range apps {
		for _, is := range after.Units(app) {
			was, _ := before.Unit(is.Name)
			if was.Agent == executing || is.Agent == executing {
				return is.Name + " runs a hook"
			}
			if is.Workload != was.Workload || is.Message != was.Message {
				return fmt.Sprintf("%s was %s %q before the look, and %s %q after it", is.Name, was.Workload, was.Message, is.Workload, is.Message)
			}
		}
	}
	return ""
}

// Glance looks at the cluster quickly while a scenario waits, records what it sees, and
// returns the broken rules. A machine that does not answer is left out.
func (r *Recorder) Glance(ctx context.Context, phase string) []judge.Violation {
	o, err := r.look(ctx, phase, false, Quick)
	if err != nil || r.readLog(ctx) != nil || ctx.Err() != nil {
		return nil
	}
	_, lasting := r.judge(o)
	r.add(o)
	return lasting // The others have time until the next rest.
}

// look reads everything once. Unless it is quick, a machine that is not down on purpose
// and cannot be asked is an error.
func (r *Recorder) look(ctx context.Context, phase string, resting bool, how Thoroughness) (observation.Observation, error) {
	o := observation.Observation{
		Time: time.Now().UTC(), Phase: phase, Resting: resting,
		Machines: map[string]observation.Machine{}, Downloads: map[string]cluster.Transfer{}, SentBefore: map[string]int64{},
	}
	for _, version := range r.o.Versions {
		o.SentBefore[version] = r.o.Mirror.Transfer(version).Sent
	}
	var err error
	if o.Status, err = r.o.Cluster.Status(ctx); err != nil {
		return o, err
	}
	r.mu.Lock()
	apps, workers := slices.Clone(r.apps), r.workers
	r.mu.Unlock()
	down := r.down(0)

	var mu sync.Mutex
	var asked errgroup.Group
	for _, app := range apps {
		read := false // one unit reads every byte, for all that share the volume
		for _, u := range o.Status.Units(app) {
			if u.Instance == "" {
				continue
			}
			answers := how > Quick && !down[u.Name]
			how := how
			if resting && answers && !read {
				how, read = Deep, true
			}
			asked.Go(func() error {
				m, err := r.ask(ctx, u.Name, how, answers)
				if errors.Is(err, cluster.ErrNoUnit) || err != nil && !answers {
					return nil
				}
				mu.Lock()
				defer mu.Unlock()
				o.Machines[u.Name] = m
				return err
			})
		}
	}
	if err := asked.Wait(); err != nil {
		return o, err
	}
	for _, version := range r.o.Versions {
		o.Downloads[version] = r.o.Mirror.Transfer(version)
	}
	if url, ok := webServer(o, apps); ok {
		o.Web = r.askWeb(ctx, url, workers)
	}
	return o, nil
}

// ask looks at a unit's machine. One that must answer is asked again when it does not.
func (r *Recorder) ask(ctx context.Context, unit string, how Thoroughness, must bool) (m observation.Machine, err error) {
	machine := r.o.Cluster.Machine(unit)
	if !must {
		ctx, cancel := context.WithTimeout(ctx, downLimit)
		defer cancel()
		return r.o.Look(ctx, machine, how)
	}
	err = cluster.Poll(ctx, "the machine of "+unit+" to be looked at", time.Second, askLimit, func(ctx context.Context) (bool, error) {
		m, err = r.o.Look(ctx, machine, how)
		return err == nil || errors.Is(err, cluster.ErrNoUnit), err
	})
	return m, err
}

// readLog replaces the recorded log by the whole of it.
func (r *Recorder) readLog(ctx context.Context) error {
	var lines []cluster.LogLine
	err := cluster.Poll(ctx, "Juju's log", time.Second, logLimit, func(ctx context.Context) (bool, error) {
		var err error
		lines, err = r.o.Cluster.DebugLog(ctx)
		return err == nil, err
	})
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.record.Log = lines
	return nil
}

// summary is an observation in a few words.
func summary(o observation.Observation) string {
	text := fmt.Sprintf("%d machines", len(o.Machines))
	for _, version := range slices.Sorted(maps.Keys(o.Downloads)) {
		if d := o.Downloads[version]; d.Sent > 0 {
			text += fmt.Sprintf("; %s: %s", version, d)
		}
	}
	if o.Web != nil {
		text += fmt.Sprintf("; %s answers with version %q", o.Web.URL, o.Web.Version)
	}
	return text
}

// Package sim runs the charm of many units in one process: the real plan and the real step
// of the supervisor, a model of Juju, of Concourse and of the volume, and a virtual clock.
// A seed decides all that is open: which of two events is first, how long things take, what
// an operator changes, what breaks, and when. The same seed gives the same order, always.
//
// Juju is modelled after its uniter: see agent. Concourse is modelled after its source: a
// worker that lands is running again when it registers anew, and ends when it finds no TSA
// then; builds go on without a web server. The coordinator is modelled by what it promises,
// as it is explored in its own package. The supervisor's loop, which is not pure, is played
// by driver.
//
// The model of Juju is held to the real one. Accept allows what the model does, and what
// hooks of package probe were seen to do on real Juju: testdata has that as a history, with
// Juju's version in its name. The scenario juju-model of the suite records it anew, and
// has it accepted:
//
//	E2E_REQUIRE=juju go test ./e2e -count=1 -v -timeout 40m -run 'TestScenarios/^juju-model$'
//
// It leaves the history in artifacts/juju-model/history.jsonl, also if it was refused. What
// real Juju does and Accept refuses, the model lacks.
package sim

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// Order is one order of a deployment, a change and a fault.
type Order struct {
	Seed uint64

	Mode   string
	Shared bool
	Units  int
	Change string // names of what happens
	Fault  string
	Early  bool // the fault comes while the cluster is deployed, not with the change
}

// String says how to see it again.
func (o Order) String() string {
	when := "beside it"
	if o.Early {
		when = "while it is deployed"
	}
	return fmt.Sprintf("seed %d: %d units in mode %s, shared %v; %s; %s %s", o.Seed, o.Units, o.Mode, o.Shared, o.Change, o.Fault, when)
}

// Violation is an order that breaks a rule.
type Violation struct {
	Order Order
	Err   error
	Trace []string
}

// Error ends with the trace: every event with its time in seconds.
func (v *Violation) Error() string {
	return fmt.Sprintf("%v\n%v\n%s", v.Order, v.Err, strings.Join(v.Trace, "\n"))
}

func (v *Violation) Unwrap() error { return v.Err }

// Limits of virtual time.
const (
	settleLimit = 15 * time.Minute // for a cluster to come to rest, once no fault is there
	calm        = 15 * time.Second // after which a cluster counts as at rest
	rest        = 90 * time.Second // in which a cluster at rest stays so
)

// Run runs the order that follows from a seed, and returns a *Violation or nil.
func Run(seed uint64, p Protocol) error {
	w := newWorld(seed, p)
	o, err := w.run()
	if err == nil {
		return nil
	}
	// Once more for the trace: the order is the same.
	again := newWorld(seed, p)
	again.trace = &[]string{}
	if _, same := again.run(); same == nil || same.Error() != err.Error() {
		err = errors.Join(err, fmt.Errorf("replayed, it is %w", errors.Join(same, errors.New("another order"))))
	}
	return &Violation{o, err, *again.trace}
}

// choose reads from the seed what is to happen.
func (w *world) choose() (Order, fault, change) {
	mode := pick(w, []string{"auto", "auto", "auto", "auto", "all", "web"})
	o := Order{Seed: w.seed, Mode: mode, Shared: w.chance(80), Units: 1 + w.rand.IntN(4)}
	f, c := pick(w, faults), pick(w, changes)
	o.Fault, o.Change, o.Early = f.name, c.name, w.chance(25)
	return o, f, c
}

// run runs the order of its seed.
func (w *world) run() (Order, error) {
	o, f, c := w.choose()
	w.deploy(o.Units, o.Mode, o.Shared)
	if o.Early {
		w.comes(f, 80*time.Second)
		w.pass(100 * time.Second)
	}
	if w.settle("the deployment"); w.judge.err != nil {
		return o, w.judge.err
	}
	w.pass(w.between(0, 40*time.Second))
	e := c.make(w)
	w.say("operator", "%s %s", c.name, e.why)
	e.why = c.name + " " + e.why
	e = w.judge.excuse(*e)
	if !o.Early {
		w.comes(f, 60*time.Second)
		w.pass(70 * time.Second)
	}
	if c.name == "database related anew" {
		w.soon(0, 20*time.Second, w.juju.integrateAnew)
		w.pass(20 * time.Second)
	}
	w.settle(c.name)
	w.judge.over(e)
	w.rests()
	return o, w.judge.err
}

// comes has a fault happen some time within a limit.
func (w *world) comes(f fault, within time.Duration) {
	e := w.judge.excuse(excuse{fault: true}) // until it is known what it explains
	w.after(time.Duration(w.rand.Int64N(int64(within))), func() {
		w.judge.over(e)
		w.inject(f)
	})
}

// inject has a fault, and its end after a while.
func (w *world) inject(f fault) {
	e, begin := f.plan(w)
	if e == nil {
		return
	}
	e.why = f.name + " " + e.why
	w.say("fault", "%s", e.why)
	e = w.judge.excuse(*e)
	end := begin()
	w.soon(f.lasts[0], f.lasts[1], func() {
		if end != nil {
			w.say("fault", "%s is over", e.why)
			end()
		}
		w.judge.over(e)
	})
}

// settle lets time go by until the cluster is at rest: soon after no fault is there.
func (w *world) settle(after string) {
	for quiet, still := time.Duration(0), time.Duration(0); w.judge.err == nil; {
		why := w.unsettled()
		if still += time.Second; why != "" || w.coming > 0 || w.judge.troubled(0) {
			still = 0
		}
		if still > calm {
			w.judge.settled = true
			return
		}
		if quiet += time.Second; w.judge.troubled(0) {
			quiet = 0
		}
		if quiet > settleLimit {
			w.judge.violate(ErrUnsettled, "%v after %s: %s", settleLimit, after, why)
			return
		}
		w.pass(time.Second)
	}
}

// rests lets some time go by in which nothing happens.
func (w *world) rests() {
	begins := w.judge.begins
	w.pass(rest)
	if w.judge.err == nil && w.judge.begins != begins {
		w.judge.violate(ErrRestless, "%d processes begin", w.judge.begins-begins)
	}
}

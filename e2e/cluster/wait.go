package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// agentGrace is how long an agent may be lost before a wait fails. Controllers and agents
// lose sight of each other for some seconds, when either is restarted or short of
// processor time, and find each other again.
const agentGrace = 15 * time.Second

// Wait is a question that is asked of the status until it holds. The zero value of each
// field but For and Until is a sensible default.
type Wait struct {
	For   string    // what is waited for, in words
	Until Condition // nil when it holds; an error that is ErrNever ends the wait
	// Down are names of units that are down on purpose. Their lost agents, and whatever
	// they or their machines last said, are no failure.
	Down []string
	// Since is a reading from before the change whose effect is waited for; the zero
	// value is none. A condition that held there already may hold now because nothing
	// has happened yet. Such a wait does not end before the condition was seen broken,
	// or a unit that is not Down came, went or reported a status since.
	Since Status
	// MayHold tells that the change need not show: the wait may end with what was so in
	// Since.
	MayHold bool
	// Within limits the wait; the default is 10 min.
	Within time.Duration
	// Every is the time between two readings; the default is 1 s.
	Every time.Duration
	// Readings is how many consecutive readings must hold; the default is 3.
	// One good reading may be a state passed through on the way to another.
	Readings int
	// Log receives what is missing when the wait begins, and from then on what changes,
	// each with the time of day and the time since the wait began.
	Log func(format string, args ...any)
}

// Held is what a wait found.
type Held struct {
	Status // the last reading
	// Since is when the first of the consecutive readings came in that held: what took
	// until the condition held is measured to here.
	Since time.Time
}

// StatusReader is what a wait reads; a Cluster is one.
type StatusReader interface {
	Status(ctx context.Context) (Status, error)
}

// On waits. The error is ErrFailed, ErrNever, ErrTimeout or the context's; its text has
// what was missing and the last status, which is returned with it.
//
// A reading that cannot be had does not end the wait, for controllers restart. Like a
// reading in which an agent is lost it does not hold. An agent that stays lost for 15 s
// is ErrFailed; what Failed tells is so at once.
func (w Wait) On(ctx context.Context, c StatusReader) (Held, error) {
	if w.Within == 0 {
		w.Within = 10 * time.Minute
	}
	if w.Every == 0 {
		w.Every = time.Second
	}
	if w.Readings == 0 {
		w.Readings = 3
	}
	log := &waitLog{log: w.Log, what: w.For, start: time.Now()}
	var held Held
	agents := lostAgents{}
	seen := map[string]bool{}
	remember(seen, w.Since)
	changed := w.MayHold || w.Since.Apps == nil || w.Until(w.Since) != nil
	good := 0
	err := Poll(ctx, w.For, w.Every, w.Within, func(ctx context.Context) (bool, error) {
		next, err := c.Status(ctx)
		if err != nil {
			if ctx.Err() == nil {
				log.unreadable(err)
			}
			clear(agents)
			good = 0
			return false, fmt.Errorf("cannot read status: %w", err)
		}
		held.Status = next

		watched := next.without(w.Down)
		if err := errors.Join(Failed(watched), agents.failed(watched)); err != nil {
			log.reading(next, nil)
			return true, err
		}
		missing := w.Until(next)
		if missing != nil || reportedSince(w.Since.without(w.Down), watched) {
			changed = true
		}
		switch {
		case missing != nil:
			if unit, ok := absentUnit(missing); ok && seen[unit] {
				missing = fmt.Errorf("%w: %w", ErrNever, missing)
			}
		case len(agents) > 0:
			missing = fmt.Errorf("it holds, but agents are lost: %v", Lost(watched))
		case !changed:
			missing = errors.New("it held before, and nothing has changed since")
		}
		remember(seen, next)
		log.reading(next, missing)
		if missing != nil {
			good = 0
			return false, missing
		}
		if good++; good == 1 {
			held.Since = time.Now()
		}
		if good < w.Readings {
			return false, fmt.Errorf("it held for %d of %d readings", good, w.Readings)
		}
		log.holds(held.Since)
		return true, nil
	})
	if err != nil {
		return Held{Status: held.Status}, fmt.Errorf("%w\nlast status:\n%s", err, held.Status)
	}
	return held, nil
}

// lostAgents are units whose agents were lost in every reading since a time.
type lostAgents map[string]time.Time

// failed takes note of a reading and returns ErrFailed for an agent that was lost for too
// long.
func (l lostAgents) failed(s Status) error {
	now := time.Now()
	lost := Lost(s)
	for unit := range l {
		if !slices.Contains(lost, unit) {
			delete(l, unit)
		}
	}
	for _, unit := range lost {
		first, before := l[unit]
		if !before {
			l[unit] = now
			continue
		}
		if now.Sub(first) >= agentGrace {
			return fmt.Errorf("%w: agent of %s is lost for %s", ErrFailed, unit, now.Sub(first).Round(time.Second))
		}
	}
	return nil
}

// remember adds the units of a reading to those that were seen.
func remember(seen map[string]bool, s Status) {
	for _, app := range s.Apps {
		for name := range app.Units {
			seen[name] = true
		}
	}
}

// reportedSince tells whether a unit of one of two readings has come, gone, or reported
// a status between them. The same status, reported once more, is news: the unit has
// looked at what there is.
func reportedSince(mark, next Status) bool {
	before, after := map[string]bool{}, map[string]bool{}
	remember(before, mark)
	remember(after, next)
	if len(before) != len(after) {
		return true
	}
	for name := range after {
		old, ok := mark.Unit(name)
		unit, _ := next.Unit(name)
		if !ok || unit.Since.After(old.Since) || unit.Workload != old.Workload || unit.Message != old.Message {
			return true
		}
	}
	return false
}

package suite

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"
)

// cleanupLimit bounds evidence and destruction after a scenario. That much of the
// process's time is kept for them: at its end the process is killed, and all that is
// known of a failure with it, while models and volumes stay.
const cleanupLimit = 5 * time.Minute

// graceLimit is how long a scenario whose context has ended may take to end.
const graceLimit = cleanupLimit / 10

// errTimeUp is the cause of the end of a scenario's context.
var errTimeUp = errors.New("the suite's time is up")

// schedule divides the time that the process has for all scenarios. The zero value has
// no limits.
type schedule struct {
	scenario time.Time     // the scenario's context ends
	evidence time.Time     // evidence is taken, even if the scenario goes on
	cleanup  time.Time     // evidence and destruction end, so that reports can be written
	kept     time.Duration // from the end of the scenario to that of the process
}

// newSchedule keeps cleanupLimit of the whole timeout before its deadline, or a fifth of
// a timeout that is short.
func newSchedule(deadline time.Time, timeout time.Duration) schedule {
	kept := min(cleanupLimit, timeout/5)
	return schedule{
		scenario: deadline.Add(-kept),
		evidence: deadline.Add(-kept * 9 / 10),
		cleanup:  deadline.Add(-kept / 10),
		kept:     kept,
	}
}

// begin returns the context of a scenario. When time is up it ends, with errTimeUp as
// the cause.
func (s schedule) begin(ctx context.Context) (context.Context, context.CancelFunc) {
	if s.scenario.IsZero() {
		return context.WithCancel(ctx)
	}
	return context.WithDeadlineCause(ctx, s.scenario, fmt.Errorf("%w: %s are kept for evidence", errTimeUp, s.kept))
}

// run runs a scenario in a goroutine of its own, which assertions end, and fails it if it
// has not ended before its context. One that goes on in spite of that is left behind:
// some calls have no context, and the process would be killed before they return.
func (s schedule) run(ctx context.Context, t *tester, scenario func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer func() {
			if p := recover(); p != nil {
				t.Errorf("panic: %v\n%s", p, debug.Stack())
			}
		}()
		scenario()
	}()
	select {
	case <-done:
		if ctx.Err() == nil {
			return
		}
	case <-ctx.Done():
	}
	if cause := context.Cause(ctx); errors.Is(cause, errTimeUp) {
		t.Errorf("%v", cause)
	} else {
		t.Errorf("interrupted: %v", cause)
	}
	evidence := time.Now().Add(graceLimit)
	if !s.evidence.IsZero() && s.evidence.Before(evidence) {
		evidence = s.evidence
	}
	select {
	case <-done:
	case <-time.After(time.Until(evidence)):
		t.Errorf("the scenario does not end with its context and is left behind")
	}
}

// cleanUp returns the context of evidence and destruction, which does not end with the
// scenario's.
func (s schedule) cleanUp(ctx context.Context) (context.Context, context.CancelFunc) {
	end := time.Now().Add(cleanupLimit)
	if !s.cleanup.IsZero() && s.cleanup.Before(end) {
		end = s.cleanup
	}
	return context.WithDeadline(context.WithoutCancel(ctx), end)
}

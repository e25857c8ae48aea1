package cluster

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Wait is a question that is asked of the status until it holds. The zero
// value of each field but For and Until is a sensible default.
type Wait struct {
	For   string    // what is waited for, in words; it begins every line of the log
	Until Condition // nil when it holds
	// Fail ends the wait at once when it returns an error; nil is Failed.
	Fail Condition
	// Within limits the wait; the default is 10 min.
	Within time.Duration
	// Every is the time between two readings; the default is 1 s.
	Every time.Duration
	// Readings is how many consecutive readings must hold; the default is 3.
	// One good reading may be a state passed through on the way to another.
	Readings int
	// Log receives the changes of status with the time since the wait began.
	Log func(format string, args ...any)
}

// Reader is what a wait reads; a Cluster is one.
type Reader interface {
	Status(ctx context.Context) (Status, error)
}

// On waits and returns the last reading. The error is ErrFailed, ErrTimeout or
// the context's; its text has what was missing and the last status.
//
// A reading that fails does not end the wait, for controllers restart; it does
// reset the count of good readings.
func (w Wait) On(ctx context.Context, c Reader) (Status, error) {
	if w.Within == 0 {
		w.Within = 10 * time.Minute
	}
	if w.Every == 0 {
		w.Every = time.Second
	}
	if w.Readings == 0 {
		w.Readings = 3
	}
	if w.Fail == nil {
		w.Fail = Failed
	}
	if w.Log == nil {
		w.Log = func(string, ...any) {}
	}
	start := time.Now()
	ctx, cancel := context.WithTimeoutCause(ctx, w.Within, ErrTimeout)
	defer cancel()
	tick := time.NewTicker(w.Every)
	defer tick.Stop()

	var last Status
	missing := errors.New("no status could be read")
	good := 0
	for {
		next, err := c.Status(ctx)
		switch {
		case ctx.Err() != nil: // reported below, with the last good reading
		case err != nil:
			w.Log("%s: %s: cannot read status: %v", w.For, elapsed(start), err)
			missing, good = err, 0
		default:
			for _, line := range Changes(last, next) {
				w.Log("%s: %s: %s", w.For, elapsed(start), line)
			}
			last = next
			if err := w.Fail(next); err != nil {
				return next, fmt.Errorf("cannot wait for %s after %s: %w\nlast status:\n%s", w.For, elapsed(start), err, next)
			}
			if missing = w.Until(next); missing != nil {
				good = 0
			} else if good++; good >= w.Readings {
				w.Log("%s: done after %s", w.For, elapsed(start))
				return next, nil
			}
		}
		select {
		case <-ctx.Done():
			if missing == nil {
				missing = fmt.Errorf("it held for %d of %d readings", good, w.Readings)
			}
			return last, fmt.Errorf("waiting for %s: %w after %s: %w\nlast status:\n%s", w.For, context.Cause(ctx), elapsed(start), missing, last)
		case <-tick.C:
		}
	}
}

func elapsed(start time.Time) time.Duration { return time.Since(start).Round(100 * time.Millisecond) }

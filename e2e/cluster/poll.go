package cluster

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Poll asks at once and then every so often, until the answer is done. An error that
// comes with done ends it; one that comes without says what is missing, and the last of
// these is part of the text when time runs out. An error that is ErrNever ends it, too.
//
// The error is ErrTimeout when it took longer than within, or the context's.
func Poll(ctx context.Context, what string, every, within time.Duration, ask func(context.Context) (done bool, err error)) error {
	start := time.Now()
	ctx, cancel := context.WithTimeoutCause(ctx, within, ErrTimeout)
	defer cancel()
	tick := time.NewTicker(every)
	defer tick.Stop()

	var last error
	for {
		done, err := ask(ctx)
		switch {
		case done && err == nil:
			return nil
		case done || errors.Is(err, ErrNever):
			return fmt.Errorf("waiting for %s, after %s: %w", what, elapsed(start), err)
		case ctx.Err() == nil || last == nil:
			last = err
		default: // An answer that was cut off says less than the one before.
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			err := fmt.Errorf("waiting for %s: %w after %s", what, context.Cause(ctx), elapsed(start))
			if last != nil {
				err = fmt.Errorf("%w: %w", err, last)
			}
			return err
		}
	}
}

func elapsed(start time.Time) time.Duration { return time.Since(start).Round(100 * time.Millisecond) }

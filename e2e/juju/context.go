package juju

import "context"

// within makes a call that may hang, and returns when it ends or when ctx does. Then the
// call is left behind: what it still does has no effect on the caller.
//
// Neither LXD's client nor all of Juju's takes a context, and a write to a socket that
// nobody reads blocks whatever the context says.
func within(ctx context.Context, call func() error) error {
	_, err := valueWithin(ctx, func() (struct{}, error) { return struct{}{}, call() })
	return err
}

// valueWithin is within for a call that has a result. The call must not write to
// variables of its caller, who reads them while a call that was left behind still runs.
func valueWithin[T any](ctx context.Context, call func() (T, error)) (T, error) {
	type result struct {
		value T
		err   error
	}
	var none T
	if ctx.Err() != nil {
		return none, context.Cause(ctx)
	}
	done := make(chan result, 1)
	go func() {
		value, err := call()
		done <- result{value, err}
	}()
	select {
	case r := <-done:
		return r.value, r.err
	case <-ctx.Done():
		return none, context.Cause(ctx)
	}
}

package supervisor

import (
	"context"
	"time"
)

// attempt runs a function in the background until it succeeds, with pauses
// between the tries. One try runs at a time: the next one begins when the one
// before has ended, also when that was given up, so that no two write side by
// side. The zero value is ready for use.
type attempt[T any] struct {
	failed  int
	next    time.Time
	cancel  context.CancelFunc // of the try under way
	result  chan outcome[T]    // nil: no try is under way
	givenUp bool               // the result of the try under way does not count
	ended   func()             // called when a try has ended; may be nil
}

type outcome[T any] struct {
	value T
	err   error
}

// poll starts a try when one is due and collects the result of one that ended.
// The error is reported once for each failed try.
func (a *attempt[T]) poll(ctx context.Context, pause func(failed int) time.Duration, try func(context.Context) (T, error)) (value T, done bool, err error) {
	if a.reap(); a.givenUp {
		return value, false, nil
	}
	if a.result == nil {
		if time.Now().Before(a.next) {
			return value, false, nil
		}
		ctx, cancel := context.WithCancel(ctx)
		a.cancel, a.result = cancel, make(chan outcome[T], 1)
		go func(result chan<- outcome[T]) {
			value, err := try(ctx)
			result <- outcome[T]{value, err}
			if a.ended != nil {
				a.ended()
			}
		}(a.result)
	}
	select {
	case o := <-a.result:
		a.cancel()
		a.result = nil
		switch {
		case o.err == nil:
			a.failed = 0
			return o.value, true, nil
		case ctx.Err() != nil: // that it was cancelled is no news
			return value, false, nil
		}
		a.failed++
		a.next = time.Now().Add(pause(a.failed))
		return value, false, o.err
	default:
		return value, false, nil
	}
}

// giveUp cancels the try under way and forgets what has failed. It does not
// wait: a call on a slow mount must not hold up the next look.
func (a *attempt[T]) giveUp() {
	if a.result != nil {
		a.cancel()
		a.givenUp = true
	}
	a.failed, a.next = 0, time.Time{}
}

// reap forgets a try that was given up, once it has ended.
func (a *attempt[T]) reap() {
	if !a.givenUp {
		return
	}
	select {
	case <-a.result:
		a.result, a.givenUp = nil, false
	default:
	}
}

// end cancels the try under way and waits until it has ended.
func (a *attempt[T]) end() {
	if a.result != nil {
		a.cancel()
		<-a.result
	}
}

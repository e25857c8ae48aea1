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
	failure error // of the last try
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
func (a *attempt[T]) poll(ctx context.Context, s *Supervisor, try func(context.Context) (T, error)) (value T, done bool, err error) {
	switch busy := a.busy(); {
	case a.givenUp || !busy && time.Now().Before(a.next):
		return value, false, nil
	case !busy:
		ctx, cancel := context.WithCancel(ctx)
		result, ended := make(chan outcome[T], 1), a.ended
		a.cancel, a.result = cancel, result
		s.tries.Go(func() {
			value, err := try(ctx)
			result <- outcome[T]{value, err}
			if ended != nil {
				ended()
			}
		})
	}
	select {
	case o := <-a.result:
		a.cancel()
		a.result = nil
		switch {
		case o.err == nil:
			a.failed, a.failure = 0, nil
			return o.value, true, nil
		case ctx.Err() != nil: // that it was cancelled is no news
			return value, false, nil
		}
		a.failed++
		a.failure, a.next = o.err, time.Now().Add(s.pause(a.failed))
		return value, false, o.err
	default:
		return value, false, nil
	}
}

// trouble is why the tries fail. The first failure may be that of a moment.
func (a *attempt[T]) trouble() string {
	if a.failed > 1 {
		return a.failure.Error()
	}
	return ""
}

// giveUp cancels the try under way and forgets what has failed. It does not
// wait: a call on a slow mount must not hold up the next look.
func (a *attempt[T]) giveUp() {
	if a.result != nil {
		a.cancel()
		a.givenUp = true
	}
	a.failed, a.failure, a.next = 0, nil, time.Time{}
}

// busy tells whether a try is under way. One that was given up is forgotten once it has
// ended.
func (a *attempt[T]) busy() bool {
	if a.givenUp {
		select {
		case <-a.result:
			a.result, a.givenUp = nil, false
		default:
		}
	}
	return a.result != nil
}

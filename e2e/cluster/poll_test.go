package cluster_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/cluster"
)

func TestPoll(t *testing.T) {
	stopped := errors.New("the suite is stopped")
	notYet := errors.New("2 of 3 workers run")
	cases := map[string]struct {
		ask  func(n int) (bool, error)
		took time.Duration
		err  error
		text string
	}{
		"done at once":     {ask: func(int) (bool, error) { return true, nil }},
		"done later":       {ask: func(n int) (bool, error) { return n == 4, nil }, took: 3 * time.Second},
		"an error ends it": {ask: func(n int) (bool, error) { return n == 2, notYet }, took: time.Second, err: notYet, text: "waiting for workers, after 1s: 2 of 3 workers run"},
		"it never can":     {ask: func(int) (bool, error) { return false, cluster.ErrNever }, err: cluster.ErrNever, text: "waiting for workers, after 0s: cannot come true any more"},
		"timeout":          {ask: func(int) (bool, error) { return false, notYet }, took: time.Minute, err: cluster.ErrTimeout, text: "waiting for workers: timed out after 1m0s: 2 of 3 workers run"},
		"silent timeout":   {ask: func(int) (bool, error) { return false, nil }, took: time.Minute, err: cluster.ErrTimeout, text: "waiting for workers: timed out after 1m0s"},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start, n := time.Now(), 0
				err := cluster.Poll(t.Context(), "workers", time.Second, time.Minute, func(context.Context) (bool, error) {
					n++
					return tc.ask(n)
				})
				require.Equal(t, tc.took, time.Since(start))
				require.ErrorIs(t, err, tc.err)
				if tc.text != "" {
					require.EqualError(t, err, tc.text)
				}
			})
		})
	}

	t.Run("an answer that is cut off says less than the one before", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			n := 0
			err := cluster.Poll(t.Context(), "workers", time.Second, time.Minute, func(ctx context.Context) (bool, error) {
				if n++; n == 1 {
					return false, notYet
				}
				<-ctx.Done()
				return false, ctx.Err()
			})
			require.ErrorIs(t, err, cluster.ErrTimeout)
			require.ErrorIs(t, err, notYet)
			require.NotErrorIs(t, err, context.DeadlineExceeded)
		})
	})

	t.Run("it ends with its context", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithCancelCause(t.Context())
			time.AfterFunc(10*time.Second, func() { cancel(stopped) })
			start := time.Now()
			err := cluster.Poll(ctx, "workers", time.Second, time.Minute, func(context.Context) (bool, error) { return false, notYet })
			require.Equal(t, 10*time.Second, time.Since(start))
			require.ErrorIs(t, err, stopped)
			require.ErrorContains(t, err, "waiting for workers: the suite is stopped after 10s: 2 of 3 workers run")
		})
	})
}

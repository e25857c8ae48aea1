package suite

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestNewSchedule(t *testing.T) {
	deadline := time.Date(2026, 1, 2, 3, 0, 0, 0, time.UTC)
	for _, test := range []struct{ timeout, kept time.Duration }{
		{60 * time.Minute, cleanupLimit},
		{25 * time.Minute, cleanupLimit},
		{24*time.Minute + 10*time.Second, 4*time.Minute + 50*time.Second},
		{10 * time.Minute, 2 * time.Minute},
		{50 * time.Second, 10 * time.Second},
	} {
		t.Run(test.timeout.String(), func(t *testing.T) {
			s := newSchedule(deadline, test.timeout)
			require.Equal(t, test.kept, s.kept)
			require.Equal(t, test.kept, deadline.Sub(s.scenario))
			require.True(t, s.evidence.After(s.scenario), "a scenario has time to end")
			require.GreaterOrEqual(t, s.cleanup.Sub(s.evidence), test.kept*8/10)
			require.True(t, s.cleanup.Before(deadline), "reports can be written")
		})
	}
}

func TestScheduledRun(t *testing.T) {
	const hour = time.Hour
	interruption := errors.New("somebody pressed a key")
	for name, test := range map[string]struct {
		scenario  func(ctx context.Context, released <-chan struct{}, t *tester)
		unlimited bool
		interrupt bool // after a minute
		took      time.Duration
		failures  []string
	}{
		"in time": {
			scenario: func(context.Context, <-chan struct{}, *tester) { time.Sleep(time.Second) },
			took:     time.Second,
		},
		"it fails": {
			scenario: func(_ context.Context, _ <-chan struct{}, t *tester) {
				t.Errorf("no leader")
				t.FailNow()
				t.Errorf("never said")
			},
			failures: []string{"no leader"},
		},
		"it fails silently": {
			scenario: func(_ context.Context, _ <-chan struct{}, t *tester) { t.FailNow() },
			failures: []string{"it has failed without saying why"},
		},
		"it panics": {
			scenario: func(context.Context, <-chan struct{}, *tester) { panic("no leader") },
			failures: []string{"panic: no leader"},
		},
		"it ends with its context": {
			scenario: func(ctx context.Context, _ <-chan struct{}, t *tester) { <-ctx.Done(); time.Sleep(time.Second) },
			took:     55*time.Minute + time.Second,
			failures: []string{"the suite's time is up: 5m0s are kept for evidence"},
		},
		"it hangs": {
			scenario: func(_ context.Context, released <-chan struct{}, t *tester) { <-released; t.Errorf("too late") },
			took:     55*time.Minute + 30*time.Second,
			failures: []string{"the suite's time is up: 5m0s are kept for evidence", "the scenario does not end with its context and is left behind"},
		},
		"no limit": {
			scenario:  func(context.Context, <-chan struct{}, *tester) { time.Sleep(100 * hour) },
			unlimited: true,
			took:      100 * hour,
		},
		"interrupted": {
			scenario:  func(ctx context.Context, _ <-chan struct{}, t *tester) { <-ctx.Done() },
			unlimited: true, interrupt: true,
			took:     time.Minute,
			failures: []string{"interrupted: somebody pressed a key"},
		},
		"interrupted and hanging": {
			scenario:  func(_ context.Context, released <-chan struct{}, t *tester) { <-released },
			unlimited: true, interrupt: true,
			took:     time.Minute + 30*time.Second,
			failures: []string{"interrupted: somebody pressed a key", "the scenario does not end with its context and is left behind"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var s schedule
				start := time.Now()
				if !test.unlimited {
					s = newSchedule(start.Add(hour), hour)
				}
				ctx, interrupt := context.WithCancelCause(t.Context())
				defer interrupt(nil)
				if test.interrupt {
					time.AfterFunc(time.Minute, func() { interrupt(interruption) })
				}
				ctx, cancel := s.begin(ctx)
				defer cancel()
				tt := &tester{log: func(string) {}}
				released := make(chan struct{})
				s.run(ctx, tt, func() { test.scenario(ctx, released, tt) })
				require.Equal(t, test.took, time.Since(start))
				failures := tt.end()
				require.Len(t, failures, len(test.failures), "%q", failures)
				for i, want := range test.failures {
					require.Contains(t, failures[i], want)
				}

				inTime, cancel := s.cleanUp(ctx)
				defer cancel()
				require.NoError(t, inTime.Err(), "there is time for evidence")
				end, _ := inTime.Deadline()
				require.LessOrEqual(t, time.Until(end), cleanupLimit)
				if !test.unlimited {
					require.True(t, end.Before(start.Add(hour)), "and for reports")
				}
				close(released)
				synctest.Wait()
				require.Len(t, tt.end(), len(test.failures), "one that was left behind has nothing to say")
			})
		})
	}
}

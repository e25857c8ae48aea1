package e2e

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// cleanupLimit bounds evidence and destruction after a scenario. That much of go
// test's time is kept for them: at its end go test kills the process, and all
// that is known of a failure with it, while models and volumes stay.
const cleanupLimit = 5 * time.Minute

// errTimeUp is the cause of the end of a scenario's context.
var errTimeUp = errors.New("the suite's time is up")

// schedule divides the time that go test's -timeout gives to all tests of the
// process. The zero value has no limits.
type schedule struct {
	scenario time.Time     // the scenario's context ends
	evidence time.Time     // evidence is taken, even if the scenario goes on
	cleanup  time.Time     // evidence and destruction end, so that reports can be written
	kept     time.Duration // from the end of the scenario to that of the process
}

// newSchedule keeps cleanupLimit of the whole timeout before its deadline, or a
// fifth of a timeout that is short.
func newSchedule(deadline time.Time, timeout time.Duration) schedule {
	kept := min(cleanupLimit, timeout/5)
	return schedule{
		scenario: deadline.Add(-kept),
		evidence: deadline.Add(-kept * 9 / 10),
		cleanup:  deadline.Add(-kept / 10),
		kept:     kept,
	}
}

func scheduleOf(t *testing.T) schedule {
	deadline, limited := t.Deadline()
	if !limited {
		return schedule{}
	}
	return newSchedule(deadline, flag.Lookup("test.timeout").Value.(flag.Getter).Get().(time.Duration))
}

// begin returns the context of a scenario. When time is up it ends, with errTimeUp
// as the cause, and the test fails.
func (s schedule) begin(t *testing.T) context.Context {
	if s.scenario.IsZero() {
		return t.Context()
	}
	cause := fmt.Errorf("%w: %s are kept for evidence", errTimeUp, s.kept)
	ctx, cancel := context.WithDeadlineCause(t.Context(), s.scenario, cause)
	said := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(said)
		if timeUp(ctx) {
			t.Error(cause)
		}
	})
	t.Cleanup(func() {
		if !stop() {
			<-said // a test that has ended must not fail
		}
		cancel()
	})
	return ctx
}

// attend runs cleanUp once: after the test, or beside a scenario that does not end
// with its context. Some calls have none, and go test would kill the process
// before they return.
func (s schedule) attend(ctx context.Context, t *testing.T, cleanUp func(ctx context.Context, failed bool)) {
	once := sync.OnceFunc(func() {
		end := time.Now().Add(cleanupLimit)
		if !s.cleanup.IsZero() && s.cleanup.Before(end) {
			end = s.cleanup
		}
		inTime, cancel := context.WithDeadline(context.WithoutCancel(ctx), end)
		defer cancel()
		cleanUp(inTime, t.Failed() || timeUp(ctx))
	})
	t.Cleanup(once)
	context.AfterFunc(ctx, func() {
		if timeUp(ctx) {
			time.Sleep(time.Until(s.evidence))
			once()
		}
	})
}

func timeUp(ctx context.Context) bool { return errors.Is(context.Cause(ctx), errTimeUp) }

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

// TestTimeIsUp runs itself as a process of its own, with a scenario that does not
// come to its end before go test's time is up.
func TestTimeIsUp(t *testing.T) {
	if scenario := os.Getenv("E2E_PRETEND"); scenario != "" {
		pretend(t, scenario)
		return
	}
	const killed = "panic: test timed out"
	for _, test := range []struct {
		name, scenario, timeout string
		has, hasNot             []string
	}{
		{"scenario that ends with its context", "obeys", "15s",
			[]string{"the suite's time is up: 3s are kept for evidence", "evidence is taken in time: true", "--- FAIL"}, []string{killed}},
		{"scenario that hangs", "hangs", "15s",
			[]string{"the suite's time is up: 3s are kept for evidence", "evidence is taken in time: true", killed}, nil},
		{"no limit", "passes", "0",
			[]string{"limited: false", "nothing failed", "--- PASS"}, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestTimeIsUp$", "-test.v", "-test.timeout="+test.timeout)
			cmd.Env = append(os.Environ(), "E2E_PRETEND="+test.scenario)
			out, err := cmd.CombinedOutput()
			require.Equal(t, test.scenario == "passes", err == nil, "%s", out)
			for _, text := range test.has {
				require.Contains(t, string(out), text)
			}
			for _, text := range test.hasNot {
				require.NotContains(t, string(out), text)
			}
		})
	}
}

func pretend(t *testing.T, scenario string) {
	s := scheduleOf(t)
	ctx := s.begin(t)
	s.attend(ctx, t, func(ctx context.Context, failed bool) {
		end, _ := ctx.Deadline()
		killed, limited := t.Deadline()
		switch {
		case failed:
			t.Logf("evidence is taken in time: %t", ctx.Err() == nil && limited && end.Before(killed))
		default:
			t.Log("nothing failed")
		}
	})
	switch scenario {
	case "obeys":
		<-ctx.Done()
	case "hangs":
		<-make(chan struct{})
	case "passes":
		_, limited := ctx.Deadline()
		t.Logf("limited: %t", limited)
	}
}

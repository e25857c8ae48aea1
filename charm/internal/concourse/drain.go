package concourse

import (
	"context"
	"fmt"
	"os/exec"
	"time"
)

// How long a web server may take to let go of its builds, and how often that is looked for.
const (
	drainLimit = 10 * time.Second
	drainLook  = 200 * time.Millisecond
)

// drained is what a web server logs when it has let go of its builds, milliseconds after
// it was told to end. Then it hangs for as long as anybody watches one.
const drained = "atc.tracker.drain.done"

// stop ends a unit. A web server is killed once it has drained: the next one takes the
// builds up, and those that end in between are run once more.
func (m Machine) stop(ctx context.Context, unit string) error {
	if unit == ServerUnit {
		if err := m.drain(ctx, unit); err != nil {
			return err
		}
	}
	return m.Execute(ctx, "systemctl", "stop", unit)
}

func (m Machine) drain(ctx context.Context, unit string) error {
	began := time.Now()
	if err := m.Execute(ctx, "systemctl", "stop", "--no-block", unit); err != nil {
		return err
	}
	since := fmt.Sprintf("--since=@%d.%06d", began.Unix(), began.Nanosecond()/1000)
	for time.Since(began) < drainLimit {
		state, err := m.State(ctx, unit)
		if err != nil || state.PID == 0 {
			return err
		}
		// It exits with 1 where no line matches.
		if exec.CommandContext(ctx, "journalctl", "--unit="+unit, since, "--quiet", "--grep="+drained, "--lines=1").Run() == nil {
			break
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(drainLook):
		}
	}
	if err := m.Execute(ctx, "systemctl", "kill", "--signal=SIGKILL", unit); err != nil {
		state, stateErr := m.State(ctx, unit)
		if stateErr != nil || state.PID != 0 {
			return err
		}
	}
	return nil
}

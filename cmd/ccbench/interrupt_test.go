package main

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// An interrupt ends what runs, takes its evidence, and destroys what was made; what has
// not begun does not.
func TestInterrupt(t *testing.T) {
	for _, signal := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP} {
		t.Run(signal.String(), func(t *testing.T) {
			t.Parallel()
			cmd, printed, dir := started(t, "run", "waits", "ignores", "--parallel", "1")
			require.NoError(t, cmd.Process.Signal(signal))
			_ = cmd.Wait()
			require.Equal(t, exitInterrupted, cmd.ProcessState.ExitCode(), printed)
			trace, err := os.ReadFile(filepath.Join(dir, "trace"))
			require.NoError(t, err)
			require.Equal(t, "made\nbegun\ncollected\ndestroyed\n", string(trace), printed)
			require.FileExists(t, filepath.Join(dir, "artifacts", "waits", "record.json"))
			require.FileExists(t, filepath.Join(dir, "artifacts", "junit.xml"))
			require.Contains(t, printed.String(), "interrupted")
		})
	}
}

// A second one ends all at once.
func TestSecondInterrupt(t *testing.T) {
	cmd, printed, dir := started(t, "run", "ignores")
	require.NoError(t, cmd.Process.Signal(syscall.SIGINT))
	// The first is known to have been taken when the scenario has seen it.
	require.Eventually(t, func() bool {
		_, err := os.Stat(filepath.Join(dir, "trace.interrupted"))
		return err == nil
	}, 5*time.Minute, 10*time.Millisecond)
	require.NoError(t, cmd.Process.Signal(syscall.SIGINT))
	_ = cmd.Wait()
	status := cmd.ProcessState.Sys().(syscall.WaitStatus)
	require.True(t, status.Signaled() && status.Signal() == syscall.SIGINT, "%v\n%s", cmd.ProcessState, printed)
}

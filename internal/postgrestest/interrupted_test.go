package postgrestest

import (
	"bufio"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/moby/moby/client"
	"github.com/stretchr/testify/require"
)

// A test process that has no time to clean up leaves no container behind, also none whose
// server is frozen.
func TestInterrupted(t *testing.T) {
	if os.Getenv("POSTGRESTEST_HOLD") != "" {
		s := New(t)
		s.Freeze()
		os.Stdout.WriteString("held " + s.container.GetContainerID() + "\n")
		select {}
	}
	docker := connect(t)
	for _, signal := range []syscall.Signal{syscall.SIGINT, syscall.SIGKILL} {
		process := exec.Command(os.Args[0], "-test.run=^TestInterrupted$")
		process.Env = append(os.Environ(), "POSTGRESTEST_HOLD=1")
		process.Stderr = os.Stderr
		out, err := process.StdoutPipe()
		require.NoError(t, err)
		require.NoError(t, process.Start())
		line, err := bufio.NewReader(out).ReadString('\n')
		require.NoError(t, err)
		id, held := strings.CutPrefix(strings.TrimSpace(line), "held ")
		require.True(t, held, line)
		there := func() bool {
			found, err := docker.Client().ContainerList(t.Context(), client.ContainerListOptions{All: true, Filters: make(client.Filters).Add("id", id)})
			require.NoError(t, err)
			return len(found.Items) > 0
		}
		require.True(t, there())
		require.NoError(t, process.Process.Signal(signal))
		require.Error(t, process.Wait())
		require.Eventually(t, func() bool { return !there() }, time.Minute, 50*time.Millisecond)
	}
}

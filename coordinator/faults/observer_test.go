package faults

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// observation is what an observer has seen so far.
type observation struct {
	Opens   int64
	Took    time.Duration
	Failure string // of the first open that failed; there is no further one
}

// observe opens a path by its name again and again, and tells what it has seen when
// it is asked, on standard input, and has opened it so many times more.
func observe(path string, pause time.Duration) {
	var opens atomic.Int64
	var failure atomic.Pointer[string]
	start := time.Now()
	go func() {
		for {
			fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
			if errors.Is(err, unix.EINTR) {
				continue
			}
			if err != nil {
				text := fmt.Sprintf("open %d of %s, after %v: %v", opens.Load()+1, path, time.Since(start), err)
				failure.Store(&text)
				return
			}
			unix.Close(fd)
			opens.Add(1)
			if pause > 0 {
				time.Sleep(pause)
			}
		}
	}()
	orders, answers := json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)
	var more, told int64
	for orders.Decode(&more) == nil {
		for opens.Load() < told+more && failure.Load() == nil {
			time.Sleep(time.Millisecond)
		}
		told = opens.Load()
		seen := observation{Opens: told, Took: time.Since(start)}
		if text := failure.Load(); text != nil {
			seen.Failure = *text
		}
		if answers.Encode(seen) != nil {
			return
		}
	}
}

// observer is a process that observes a path.
type observer struct {
	t       *testing.T
	orders  *json.Encoder
	answers *json.Decoder
}

// startObserver starts one that makes a pause between opens. Without one it keeps a
// processor busy.
func startObserver(t *testing.T, path string, pause time.Duration) *observer {
	t.Helper()
	exe, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), "FAULTS_OBSERVE="+path, "FAULTS_PAUSE="+pause.String())
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	require.NoError(t, err)
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		stdin.Close()
		cmd.Process.Kill()
		io.Copy(io.Discard, stdout)
		cmd.Wait()
	})
	return &observer{t, json.NewEncoder(stdin), json.NewDecoder(stdout)}
}

// saw demands that the path could be opened all the time, and so many times since
// saw was called before: it goes on until it was.
func (o *observer) saw(opens int64) observation {
	o.t.Helper()
	require.NoError(o.t, o.orders.Encode(opens))
	var seen observation
	require.NoError(o.t, o.answers.Decode(&seen))
	require.Empty(o.t, seen.Failure, "the release was missing")
	return seen
}

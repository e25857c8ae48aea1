package faults

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// unit is a process that takes orders, and installs below root.
type unit struct {
	t       *testing.T
	name    string
	cmd     *exec.Cmd
	orders  *json.Encoder
	stdin   io.Closer
	answers chan answer
	log     *logBuffer
}

// logBuffer is written by a unit and read by its test.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func start(t *testing.T, root, name, source string, change ...func(*exec.Cmd)) *unit {
	t.Helper()
	exe, err := os.Executable()
	require.NoError(t, err)
	u := &unit{t: t, name: name, cmd: exec.Command(exe), answers: make(chan answer, 1), log: &logBuffer{}}
	u.cmd.Env = append(os.Environ(), "FAULTS_UNIT="+name, "FAULTS_ROOT="+root, "FAULTS_SOURCE="+source)
	u.cmd.Stderr = u.log
	// A child of the unit may sit in a hanging call and keep the pipe open.
	u.cmd.WaitDelay = time.Second
	for _, f := range change {
		f(u.cmd)
	}
	stdin, err := u.cmd.StdinPipe()
	require.NoError(t, err)
	u.orders, u.stdin = json.NewEncoder(stdin), stdin
	stdout, err := u.cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, u.cmd.Start())
	go func() {
		defer close(u.answers)
		lines := bufio.NewScanner(stdout)
		for lines.Scan() {
			var a answer
			if err := json.Unmarshal(lines.Bytes(), &a); err != nil {
				a.Err = fmt.Sprintf("garbled answer %q", lines.Text())
			}
			u.answers <- a
		}
	}()
	t.Cleanup(u.stop)
	return u
}

// tell gives an order without waiting for the answer.
func (u *unit) tell(do, version string) {
	u.t.Helper()
	require.NoError(u.t, u.orders.Encode(order{do, version}), u.log)
}

// hear waits for the answer to the last order.
func (u *unit) hear() answer {
	u.t.Helper()
	select {
	case a, ok := <-u.answers:
		if !ok {
			u.t.Fatalf("%s died:\n%s", u.name, u.log)
		}
		return a
	case <-time.After(patience):
		u.t.Fatalf("%s does not answer within %v:\n%s", u.name, patience, u.log)
		return answer{}
	}
}

// survives gives an order to a unit that is to be killed, and tells whether it
// answered before it was.
func (u *unit) survives(do, version string) (a answer, alive bool) {
	u.t.Helper()
	if u.orders.Encode(order{do, version}) != nil {
		return answer{}, false
	}
	select {
	case a, alive = <-u.answers:
		return a, alive
	case <-time.After(patience):
		u.t.Fatalf("%s neither dies nor answers within %v:\n%s", u.name, patience, u.log)
		return answer{}, false
	}
}

func (u *unit) ask(do, version string) answer {
	u.t.Helper()
	u.tell(do, version)
	return u.hear()
}

// must is ask for what has to succeed.
func (u *unit) must(do, version string) answer {
	u.t.Helper()
	a := u.ask(do, version)
	require.Empty(u.t, a.Err, "%s %s by %s:\n%s", do, version, u.name, u.log)
	return a
}

func (u *unit) stop() {
	u.stdin.Close()
	u.cmd.Process.Kill()
	u.cmd.Wait()
}

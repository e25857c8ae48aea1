package probe

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/lyingfs"
	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/needs"
)

// TestMain lets the test binary be other processes: a helper, good or bad, or one
// that calls this package.
func TestMain(m *testing.M) {
	dir := os.Args[len(os.Args)-1]
	var err error
	switch os.Getenv("PROBE_TEST_PROCESS") {
	case "":
		os.Exit(m.Run())
	case "helps":
		err = Help(dir, os.Stdout)
	case "hangs":
		fmt.Println(`{"link":"works","rename":"hangs","locks":"hanging"}`)
		if err = os.Mkdir(dir, 0o700); err == nil {
			time.Sleep(time.Hour)
		}
	case "fails":
		err = errors.New("no such thing")
	case "talks":
		for range 1000 {
			fmt.Println(`{"link":"works","of a newer version":"works"}`)
		}
	case "probes":
		err = probeForTests(dir, os.Args[1:len(os.Args)-1])
	case "preflight":
		err = preflightForTests(dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// process is a command line for this binary as another process.
func process(t *testing.T, kind string) []string {
	exe, err := os.Executable()
	require.NoError(t, err)
	return []string{"/usr/bin/env", "PROBE_TEST_PROCESS=" + kind, exe}
}

func rootOf(t *testing.T, dir string) *os.Root {
	root, err := os.OpenRoot(dir)
	require.NoError(t, err)
	t.Cleanup(func() { root.Close() })
	return root
}

// requireEmpty demands that nothing was left in the directories.
func requireEmpty(t *testing.T, dirs ...string) {
	t.Helper()
	for _, dir := range dirs {
		entries, err := os.ReadDir(dir)
		require.NoError(t, err)
		require.Empty(t, entries, "something is left in %s", dir)
	}
}

// children counts those of this process, also the dead that nobody waited for.
func children() (int, error) {
	lists, err := filepath.Glob("/proc/self/task/*/children")
	n := 0
	for _, list := range lists {
		data, readErr := os.ReadFile(list)
		if readErr == nil { // or the thread has ended
			n += len(strings.Fields(string(data)))
		}
	}
	return n, err
}

// lyingMount returns a mount, with the directory behind it.
func lyingMount(t *testing.T) (dir, backing string, m *lyingfs.Machine) {
	dir, backing = t.TempDir(), t.TempDir()
	m, err := lyingfs.Serve(backing).Mount(dir, false)
	if err != nil {
		needs.Lack(t, "fuse", "cannot mount with FUSE here: %v", err)
	}
	t.Cleanup(func() {
		if err := m.Unmount(dir); err != nil {
			t.Error("cannot unmount:", err)
		}
	})
	return dir, backing, m
}

// verdict is what Preflight says in another process.
type verdict struct {
	Err string
	Is  []string // names of the errors that it is
}

var kinds = map[string]error{
	"ErrUnfit": ErrUnfit, "ErrReadOnly": ErrReadOnly, "ErrNoExec": ErrNoExec, "ErrNoModes": ErrNoModes, "ErrNoLinks": ErrNoLinks,
	"ErrNoSymlinks": ErrNoSymlinks, "ErrCrossDevice": ErrCrossDevice, "ErrNoInodes": ErrNoInodes, "ErrStale": ErrStale, "ErrNoPermission": ErrNoPermission,
	"ENOSPC": syscall.ENOSPC, "EDQUOT": syscall.EDQUOT, "ENOENT": syscall.ENOENT,
}

// trial is a call of Preflight.
type trial struct {
	Needs Needs
	User  int // who calls, root or another

	ready func() // called when the process has opened the volume
}

// preflightOf calls Preflight from another process: this one may be the file server.
func preflightOf(t *testing.T, dir string, tr trial) (v verdict) {
	t.Helper()
	order, err := json.Marshal(tr)
	require.NoError(t, err)
	command := append(process(t, "preflight"), dir)
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Env = append(os.Environ(), "PROBE_TEST_TRIAL="+string(order))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	begin, err := cmd.StdinPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	answers := json.NewDecoder(out)
	require.NoError(t, answers.Decode(&v)) // empty: it has opened the volume
	if tr.ready != nil {
		tr.ready()
	}
	begin.Close()
	decodeErr := answers.Decode(&v)
	require.NoError(t, cmd.Wait())
	require.NoError(t, decodeErr)
	return v
}

func preflightForTests(dir string) error {
	var tr trial
	if err := json.Unmarshal([]byte(os.Getenv("PROBE_TEST_TRIAL")), &tr); err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	answers := json.NewEncoder(os.Stdout)
	if err := answers.Encode(verdict{}); err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
		return err
	}
	syscall.Umask(0o077) // a release does not depend on it
	if tr.User != 0 {
		if err := errors.Join(syscall.Setgid(tr.User), syscall.Setuid(tr.User)); err != nil {
			return err
		}
	}
	var v verdict
	if err := Preflight(root, tr.Needs, "staging", "store", "releases"); err != nil {
		v.Err = err.Error()
		for name, kind := range kinds {
			if errors.Is(err, kind) {
				v.Is = append(v.Is, name)
			}
		}
	}
	return answers.Encode(v)
}

package concourse_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/concourse"
)

// prints has a program of the machine print something.
func prints(t *testing.T, program, output string) {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "output"), []byte(output), 0o600))
	script := fmt.Sprintf("#!/bin/sh\necho \"$*\" > %[1]s/args\ncat %[1]s/output\n", dir)
	require.NoError(t, os.WriteFile(filepath.Join(dir, program), []byte(script), 0o700))
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	t.Cleanup(func() {
		args, err := os.ReadFile(filepath.Join(dir, "args"))
		require.NoError(t, err)
		require.Contains(t, string(args), concourse.ServerUnit)
	})
}

func TestState(t *testing.T) {
	for name, test := range map[string]struct {
		output string
		want   concourse.State
	}{
		"runs": {"MainPID=4711\nNRestarts=0\nResult=success\nExecMainCode=0\nExecMainStatus=0\nActiveState=active\n",
			concourse.State{Running: true, PID: 4711}},
		"between two attempts": {"MainPID=0\nNRestarts=6\nResult=exit-code\nExecMainCode=1\nExecMainStatus=1\nActiveState=activating\n",
			concourse.State{Running: true, Restarts: 6, Exit: "exit status 1"}},
		"cannot be executed": {"MainPID=0\nNRestarts=2\nResult=exit-code\nExecMainCode=1\nExecMainStatus=203\nActiveState=activating\n",
			concourse.State{Running: true, Restarts: 2,
				Exit: "203/EXEC: the program cannot be executed, as the volume may be mounted noexec or not be readable"}},
		"killed": {"MainPID=0\nNRestarts=1\nResult=signal\nExecMainCode=2\nExecMainStatus=9\nActiveState=activating\n",
			concourse.State{Running: true, Restarts: 1, Exit: "killed by SIGKILL"}},
		"out of memory": {"MainPID=0\nNRestarts=1\nResult=oom-kill\nExecMainCode=2\nExecMainStatus=9\nActiveState=activating\n",
			concourse.State{Running: true, Restarts: 1, Exit: "killed, as memory ran out"}},
		"no environment file": {"MainPID=0\nNRestarts=0\nResult=resources\nExecMainCode=0\nExecMainStatus=0\nActiveState=failed\n",
			concourse.State{Exit: "systemd cannot start it: resources"}},
		"ended by itself": {"MainPID=0\nNRestarts=0\nResult=success\nExecMainCode=1\nExecMainStatus=0\nActiveState=inactive\n",
			concourse.State{Exit: "exit status 0"}},
		"is not there": {"MainPID=0\nNRestarts=0\nResult=success\nExecMainCode=0\nExecMainStatus=0\nActiveState=inactive\n",
			concourse.State{}},
	} {
		t.Run(name, func(t *testing.T) {
			prints(t, "systemctl", test.output)
			state, err := concourse.Machine{}.State(t.Context(), concourse.ServerUnit)
			require.NoError(t, err)
			require.Equal(t, test.want, state)
		})
	}
}

// entry is one of the journal, as journalctl prints it.
func entry(by, message string) string {
	return fmt.Sprintf("{\"__CURSOR\":\"s=1\",\"SYSLOG_IDENTIFIER\":%q,\"MESSAGE\":%q}\n", by, message)
}

// The lines are those of Concourse 7.14.2.
func TestLastWords(t *testing.T) {
	ended := entry("systemd", "concourse-server.service: Main process exited, code=exited, status=1/FAILURE") +
		entry("systemd", "concourse-server.service: Failed with result 'exit-code'.") +
		entry("systemd", "concourse-server.service: Scheduled restart job, restart counter is at 3.")
	for name, test := range map[string]struct{ journal, want string }{
		"nothing": {"", ""},
		"an option that is refused": {
			entry("concourse", "error: invalid argument for flag `--external-url' (expected flag.URL): missing scheme in 'ci.example.com'"),
			"error: invalid argument for flag `--external-url' (expected flag.URL): missing scheme in 'ci.example.com'"},
		"its log": {
			entry("concourse", `{"timestamp":"2026-11-26T16:28:41Z","level":"error","source":"worker","message":"worker.beacon-runner.beacon.failed-to-dial","data":{"error":"all worker SSH gateways unreachable","session":"4.1"}}`) +
				entry("concourse", `{"timestamp":"2026-11-26T16:28:41Z","level":"info","source":"worker","message":"worker.beacon-runner.logging-runner-exited","data":{"session":"12"}}`),
			"worker.beacon-runner.beacon.failed-to-dial: all worker SSH gateways unreachable"},
		"a long list of what ended": {
			entry("concourse", "error: Exit trace for group:") + entry("concourse", "atc exited with error: Exit trace for group:") +
				entry("concourse", "web exited with error: listen tcp 0.0.0.0:8080: bind: address already in use") +
				entry("concourse", "debug exited with nil") + entry("concourse", " ") + entry("concourse", "tsa exited with nil") + entry("concourse", ""),
			"web exited with error: listen tcp 0.0.0.0:8080: bind: address already in use"},
		"nothing that says why": {entry("concourse", "one") + entry("concourse", "two"), "two"},
		"a crash":               {entry("concourse", "panic: nil map") + entry("concourse", "goroutine 1 [running]:") + entry("concourse", "\t/src/main.go:7"), "panic: nil map"},
		"no program": {
			entry("(concourse)", "concourse-server.service: Failed at step EXEC spawning /x/bin/concourse: Permission denied"),
			"concourse-server.service: Failed at step EXEC spawning /x/bin/concourse: Permission denied"},
		"no text": {`{"SYSLOG_IDENTIFIER":"concourse","MESSAGE":[27,91]}` + "\n", ""},
	} {
		t.Run(name, func(t *testing.T) {
			prints(t, "journalctl", test.journal+ended)
			words, err := concourse.Machine{}.LastWords(t.Context(), concourse.ServerUnit)
			require.NoError(t, err)
			require.Equal(t, test.want, words)
		})
	}
}

func TestQuote(t *testing.T) {
	require.Equal(t, "two lines", concourse.Quote(" two\n\tlines\n"))
	long := concourse.Quote(strings.Repeat("é", 400))
	require.Less(t, len(long), 160)
	require.True(t, strings.HasSuffix(long, "é..."), long)
	web := concourse.Web{Database: concourse.Database{Password: `p"w d++`}, Options: "TOKEN=tttttt\nFLAG=true\nCONCOURSE_TAG=gpu-one", Keys: concourse.Keys{
		AdminPassword: "4f1d4f1d", HostKey: "-----BEGIN-----\nMIIEMIIE\n-----END-----\n", SigningKey: "SIGNING\n"}}
	words := concourse.Quote(`p"w d++, "p\"w d++", postgres://u:p%22w+d%2B%2B@h, admin:4f1d4f1d, MIIEMIIE, SIGNING, tttttt, true, gpu-one`, web.Secrets()...)
	require.Equal(t, `REDACTED, "REDACTED", postgres://u:REDACTED@h, admin:REDACTED, REDACTED, REDACTED, REDACTED, true, gpu-one`, words)
	cut := concourse.Quote(strings.Repeat("x", 148)+"4f1d4f1d", web.Secrets()...)
	require.NotContains(t, cut, "4f", "half a secret is one, too")
}

func TestVersionOf(t *testing.T) {
	for path, want := range map[string]string{
		"/var/lib/concourse/store/7.14.2.1/bin/concourse":            "7.14.2",
		"/var/lib/concourse/store/7.14.2.12/bin/concourse (deleted)": "7.14.2",
		"/store/7.14.2.1/bin/concourse":                              "7.14.2", // its mount is away
		"/var/lib/concourse/releases/7.14.2/bin/concourse":           "7.14.2",
		"/var/lib/concourse/store/7.14.2.1/bin/containerd":           "",
		"/usr/local/bin/concourse":                                   "",
		"/usr/lib/systemd/systemd-executor":                          "",
		"":                                                           "",
	} {
		require.Equal(t, want, concourse.VersionOf(path), path)
	}
}

func TestExecutable(t *testing.T) {
	sleep := exec.Command("sleep", "60")
	require.NoError(t, sleep.Start())
	defer func() { _ = sleep.Process.Kill(); _ = sleep.Wait() }()
	want, err := filepath.EvalSymlinks(sleep.Path)
	require.NoError(t, err)
	require.Eventually(t, func() bool { // it may not be executed yet
		path, err := concourse.Machine{}.Executable(sleep.Process.Pid)
		return err == nil && path == want
	}, 10*time.Second, time.Millisecond)
	_, err = concourse.Machine{}.Executable(0)
	require.Error(t, err)
}

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/spf13/cobra"
	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/fixtures/environment"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"ccbench": func() { os.Exit(run(standIn())) }})
}

// TestScripts runs the scripts in testdata, which never touch this machine's
// LXD: each has a cache, a home and a socket of its own, and nothing in this program
// brings an environment up or down.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		Setup: func(e *testscript.Env) error {
			e.Setenv("CCBENCH_CACHE", e.WorkDir+"/cache")
			e.Setenv("LXD_SOCKET", e.WorkDir+"/lxd.socket")
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exitcode": exitCode,
		},
	})
}

// exitCode runs a command that must end with one of some exit codes:
// exitcode 0|1 ccbench env doctor.
func exitCode(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exitcode CODE[|CODE] PROGRAM ARGS...")
	}
	code := 0
	var exit *exec.ExitError
	if err := ts.Exec(args[1], args[2:]...); errors.As(err, &exit) {
		code = exit.ExitCode()
	} else if err != nil {
		ts.Fatalf("run %s: %v", args[1], err)
	}
	if !slices.Contains(strings.Split(args[0], "|"), strconv.Itoa(code)) {
		ts.Fatalf("%s ended with exit code %d, not %s", args[1], code, args[0])
	}
}

// everyCommand calls do for each command that somebody may type.
func everyCommand(do func(*cobra.Command)) {
	var walk func(*cobra.Command)
	walk = func(cmd *cobra.Command) {
		do(cmd)
		for _, sub := range cmd.Commands() {
			walk(sub)
		}
	}
	root := newCommand(standIn())
	root.InitDefaultHelpCmd()
	walk(root)
}

// Every command that is shown has an example, whose commands are ones that there are, with
// flags that they have.
func TestExamples(t *testing.T) {
	seen := 0
	everyCommand(func(cmd *cobra.Command) {
		if cmd.Hidden && cmd.Name() != "man" || cmd.Name() == "help" {
			return
		}
		seen++
		require.NotEmpty(t, cmd.Example, cmd.CommandPath())
		require.Contains(t, cmd.Example, cmd.CommandPath())
		for line := range strings.Lines(cmd.Example) {
			line, _, _ = strings.Cut(line, "#")
			line, _, _ = strings.Cut(line, "|")
			line, _, _ = strings.Cut(line, "&&")
			words := strings.Fields(line)
			if len(words) == 0 || words[0] != "ccbench" {
				continue
			}
			named, rest, err := newCommand(standIn()).Find(words[1:])
			require.NoError(t, err, line)
			require.NoError(t, named.ParseFlags(rest), line)
			require.NoError(t, named.ValidateArgs(named.Flags().Args()), line)
		}
	})
	require.Greater(t, seen, 15)
}

// No command offers the files of the current folder for a name.
func TestCompletion(t *testing.T) {
	everyCommand(func(cmd *cobra.Command) {
		if cmd.Name() == "help" {
			return
		}
		require.True(t, cmd.ValidArgsFunction != nil || len(cmd.ValidArgs) > 0, cmd.CommandPath())
	})
}

// recorded is a backend that tells what was called.
func recorded(called *[]string, seen environment.Foresight) backend {
	b := standIn()
	call := func(name string) { *called = append(*called, name) }
	b.up = func(context.Context, environment.Options) (*environment.Environment, error) {
		call("up")
		return &environment.Environment{}, nil
	}
	b.docker = func(context.Context, environment.Options) error { call("docker"); return nil }
	b.down = func(_ context.Context, _ environment.Options, purge bool) error {
		call(fmt.Sprintf("down purge=%t", purge))
		return nil
	}
	b.foresee = func(context.Context, environment.Options) (*environment.Foresight, error) { return &seen, nil }
	return b
}

// What would be done is printed, and nothing is done.
func TestDryRun(t *testing.T) {
	seen := environment.Foresight{
		Status: environment.Status{Controller: environment.ControllerStatus{Name: "ccbench", Own: true}},
		Made:   true, Built: []string{"/cache/juju"},
	}
	for command, test := range map[string]struct {
		calls string
		want  []string
	}{
		"env up":           {"up", []string{"would bring up LXD", "would bring up the controller ccbench"}},
		"env docker":       {"docker", []string{"would bring up Docker"}},
		"env down":         {"down purge=false", []string{"would remove the controller ccbench"}},
		"env down --purge": {"down purge=true", []string{"would remove the controller ccbench", "would delete /cache/juju"}},
	} {
		t.Run(command, func(t *testing.T) {
			var called []string
			execute := func(args ...string) string {
				var out bytes.Buffer
				root := newCommand(recorded(&called, seen))
				root.SetArgs(args)
				root.SetOut(&out)
				root.SetErr(&out)
				require.NoError(t, root.ExecuteContext(t.Context()))
				return out.String()
			}
			printed := execute(append(strings.Fields(command), "--dry-run")...)
			require.Empty(t, called)
			for _, want := range test.want {
				require.Contains(t, printed, want)
			}
			execute(strings.Fields(command)...)
			require.Equal(t, []string{test.calls}, called, "without --dry-run it is done")
		})
	}
}

// started starts ccbench in a folder and waits until a scenario has begun.
func started(t *testing.T, args ...string) (cmd *exec.Cmd, printed *bytes.Buffer, dir string) {
	t.Helper()
	dir = t.TempDir()
	cmd, printed = exec.Command("ccbench", args...), &bytes.Buffer{}
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, printed, printed
	cmd.Env = append(os.Environ(), "CCBENCH_STANDIN_TRACE="+filepath.Join(dir, "trace"))
	require.NoError(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	require.Eventually(t, func() bool {
		trace, _ := os.ReadFile(filepath.Join(dir, "trace"))
		return strings.Contains(string(trace), "begun")
	}, 5*time.Minute, 10*time.Millisecond)
	return cmd, printed, dir
}

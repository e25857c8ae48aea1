// Command ccbench brings up what the suite of concourse-ci-machine runs on, runs it, and
// measures the coordinator.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/spf13/cobra"
)

// Exit codes besides 0.
const (
	exitFailure      = 1
	exitUsage        = 2
	exitMissed       = 3
	exitInconclusive = 4
	exitInterrupted  = 130 // as shells report an interrupt
)

const exitCodes = `Exit codes:
  0    it is done, and good
  1    it could not be done, or something is broken
  2    it was called in a wrong way
  3    a threshold or a target is missed, or something has become worse
  4    inconclusive: it cannot be told from these samples
  130  it was interrupted`

func main() { os.Exit(run(real)) }

func run(b backend) int {
	// Whoever reads what is printed may go away: what was made is removed all the same.
	signal.Ignore(syscall.SIGPIPE)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	// A second signal ends a clean-up that hangs.
	context.AfterFunc(ctx, stop)

	command, err := newCommand(b).ExecuteContextC(ctx)
	var failed *failure
	switch {
	case err == nil:
		return 0
	case ctx.Err() != nil:
		fmt.Fprintln(os.Stderr, "ccbench: interrupted:", err)
		return exitInterrupted
	case errors.As(err, &failed):
		fmt.Fprintln(os.Stderr, "ccbench:", err)
		return failed.code
	}
	fmt.Fprintf(os.Stderr, "ccbench: %v\nRun '%s --help' for usage.\n", err, command.CommandPath())
	return exitUsage
}

// failure is an error of a command that was called as it should be. Every
// other error is one of usage.
type failure struct {
	error
	code int
}

func (f *failure) Unwrap() error { return f.error }

// failed is the failure of a command that could not do what it should; nil is none.
func failed(err error) error {
	if err == nil {
		return nil
	}
	return &failure{err, exitFailure}
}

func newCommand(b backend) *cobra.Command {
	root := &cobra.Command{
		Use:   "ccbench",
		Short: "Run and measure the Concourse CI machine charm on real Juju and LXD",
		Long: `ccbench brings up LXD and a Juju controller on this machine, runs the suite of the
Concourse CI machine charm on them, and measures what the charm is built on.

` + exitCodes,
		Example: `  ccbench env up        # LXD and a controller, or what is there already
  ccbench env doctor    # what this machine lacks, and the remedy
  ccbench scenarios     # what can be run, and how long it takes
  ccbench run auto      # one scenario
  ccbench mirror        # Concourse releases for machines without internet
  ccbench volume inspect /var/lib/concourse
  ccbench bench --quick # what the coordinator costs on this machine
  ccbench compare before.json after.json`,
		Version:       version(),
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.NoArgs,
		RunE:          help,
	}
	root.AddCommand(newEnvCommand(b), newScenariosCommand(b), newRunCommand(b), newMirrorCommand(), newReleasesCommand(),
		newVolumeCommand(), newProbeHelpCommand(), newCertifyHelpCommand(), newBenchCommand(), newCompareCommand(), newManCommand(root))
	completeNames(root)
	return root
}

// help is what a command does that only groups others.
func help(cmd *cobra.Command, _ []string) error { return cmd.Help() }

// completeNames has no command complete its arguments with files, unless it says what it
// takes.
func completeNames(cmd *cobra.Command) {
	if cmd.ValidArgsFunction == nil && len(cmd.ValidArgs) == 0 {
		cmd.ValidArgsFunction = cobra.NoFileCompletions
	}
	for _, sub := range cmd.Commands() {
		completeNames(sub)
	}
}

// directories completes an argument that is a directory, and nothing after it.
func directories(_ *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return nil, cobra.ShellCompDirectiveFilterDirs
}

// version tells which commit this program was built of, and with which Go.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	commit, dirty := commitOf(info.Settings)
	if commit == "" {
		commit = "of an unknown commit"
	}
	if dirty {
		commit += " with changes"
	}
	return fmt.Sprintf("%s, %s", commit, info.GoVersion)
}

// commitOf returns the commit that a program was built of, empty if that is not known, and
// whether files differed from it.
func commitOf(settings []debug.BuildSetting) (commit string, dirty bool) {
	for _, s := range settings {
		switch s.Key {
		case "vcs.revision":
			commit = s.Value
		case "vcs.modified":
			dirty = s.Value == "true"
		}
	}
	return commit, dirty
}

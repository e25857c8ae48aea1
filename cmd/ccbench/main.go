// Command ccbench brings up what the suite of concourse-ci-machine runs on.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

// Exit codes besides 0.
const (
	exitFailure     = 1
	exitUsage       = 2
	exitInterrupted = 130 // as shells report an interrupt
)

func main() { os.Exit(run()) }

func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// A second signal ends a clean-up that hangs.
	context.AfterFunc(ctx, stop)

	command, err := newCommand().ExecuteContextC(ctx)
	var failed *failure
	switch {
	case err == nil:
		return 0
	case ctx.Err() != nil:
		fmt.Fprintln(os.Stderr, "ccbench: interrupted:", err)
		return exitInterrupted
	case errors.As(err, &failed):
		fmt.Fprintln(os.Stderr, "ccbench:", err)
		return exitFailure
	}
	fmt.Fprintf(os.Stderr, "ccbench: %v\n\n%s", err, command.UsageString())
	return exitUsage
}

// failure is an error of a command that was called as it should be. Every
// other error is one of usage.
type failure struct{ error }

func (f *failure) Unwrap() error { return f.error }

func newCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "ccbench",
		Short: "Run the Concourse CI machine charm on real Juju and LXD",
		Long: `ccbench brings up LXD and a Juju controller on this machine, to run the
suite of the Concourse CI machine charm on.`,
		Example: `  ccbench env up        # LXD and a controller, or what is there already
  ccbench env doctor    # what this machine lacks, and the remedy
  ccbench mirror        # Concourse releases for machines without internet
  ccbench volume inspect /var/lib/concourse
  ccbench bench --quick # what the coordinator costs on this machine`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.NoArgs,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.AddCommand(newEnvCommand(), newMirrorCommand(), newReleasesCommand(), newVolumeCommand(), newProbeHelpCommand(), newBenchCommand())
	return root
}

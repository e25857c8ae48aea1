package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/concourse-ci-machine/concourse-ci-machine/bench/certify"
)

// certifyHelpCommand is a process of certify that stands for a unit.
const certifyHelpCommand = "certify-help"

// mostRoom is far more MB than any volume has.
const mostRoom = 1_000_000_000_000

func newCertifyCommand() *cobra.Command {
	var o certify.Options
	var file string
	var asJSON bool
	var room int64
	cmd := &cobra.Command{
		Use:   "certify PATH",
		Short: "Tell whether a mount is fit to share a release between machines",
		Long: `Try on a mount what the coordinator relies on: NFS, CephFS, SMB or a disk. PATH is a
directory on it. It need not be a volume yet, and units may be at work on it. Locks,
links, renames, modes and syncing are tried with processes of their own. Then some
install a small made-up release at once, one is killed in the middle, and a byte is
changed. All that is made is in one new directory below PATH, ` + certify.Prefix + `ID,
which is removed at the end, also after Ctrl-C. What an earlier run left that was
killed is removed, too.

With --machines, run it on each of the machines, on the same directory of the mount.
Each waits until all have come, without a time limit. They meet through files; no
network between them is needed.

A check that fails is said with what it means and what to do. Some that fail make a
mount slower and not unfit: the verdict is "fit, but" then. The exit code is 3 when
the mount is not fit.`,
		Example: `  ccbench volume certify /mnt/nfs
  ccbench volume certify /mnt/nfs --export nfs.json
  ccbench volume certify /mnt/nfs --machines 3   # on each of the three
  ccbench volume certify /mnt/nfs --json | jq -r .verdict`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: directories,
		RunE: func(cmd *cobra.Command, args []string) error {
			executable, err := os.Executable()
			if err != nil {
				return failed(err)
			}
			o.Path = args[0]
			if o.Machines < 1 || o.Machines > certify.MostMachines {
				return fmt.Errorf("--machines must be between 1 and %d", certify.MostMachines)
			}
			if room < 0 || room > mostRoom {
				return fmt.Errorf("--room must be between 0 and %d", mostRoom)
			}
			o.Room = room * 1_000_000
			if room == 0 {
				o.Room = -1
			}
			o.Helper, o.ProbeHelper = []string{executable, certifyHelpCommand}, []string{executable, helpCommand}
			o.Say = func(format string, args ...any) { fmt.Fprintf(cmd.ErrOrStderr(), format+"\n", args...) }
			if !asJSON {
				o.Ended = func(c certify.Check) { fmt.Fprintln(cmd.OutOrStdout(), c) }
			}
			r, err := certify.Run(cmd.Context(), o)
			if errors.Is(err, certify.ErrOptions) {
				return err
			}
			if errors.Is(err, certify.ErrRefused) {
				return failed(err)
			}
			// Also after a failure: what was found until then may tell why.
			if file != "" {
				err = errors.Join(err, writeJSON(file, r))
			}
			if asJSON {
				err = errors.Join(err, printJSON(cmd.OutOrStdout(), r))
			} else {
				err = errors.Join(err, r.Print(cmd.OutOrStdout()))
			}
			if err != nil {
				return failed(err)
			}
			if !r.Fit {
				return &failure{errors.New(r.Verdict), exitMissed}
			}
			return nil
		},
	}
	flags := cmd.Flags()
	flags.IntVar(&o.Machines, "machines", 1, "how many machines take part, each with a run of its own")
	flags.Int64Var(&room, "room", certify.RoomForRelease/1_000_000, "how many MB must be free on it; 0 demands nothing")
	flags.BoolVar(&asJSON, "json", false, "print JSON")
	flags.StringVar(&file, "export", "", "write the result to this file, as JSON")
	completeFile(cmd, "export", "json")
	return cmd
}

func newCertifyHelpCommand() *cobra.Command {
	return &cobra.Command{
		Use: certifyHelpCommand, Hidden: true, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return failed(certify.Help(cmd.Context(), cmd.InOrStdin(), cmd.OutOrStdout()))
		},
	}
}

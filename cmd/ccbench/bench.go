package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/concourse-ci-machine/concourse-ci-machine/bench"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/fixtures/step"
)

func newBenchCommand() *cobra.Command {
	var o bench.Options
	var file, thresholds string
	var asJSON bool
	names, about := bench.Experiments()
	var list strings.Builder
	w := tabwriter.NewWriter(&list, 0, 0, 2, ' ', 0)
	for i := range names {
		fmt.Fprintf(w, "  %s\t%s\n", names[i], about[i])
	}
	w.Flush() // a strings.Builder takes everything
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Measure the coordinator against what this machine can do at best",
		Long: `Measure how fast a release is installed on a volume, how much memory, how many
bytes and how much waiting that takes, against the least that anybody would have
to do on this machine: download, inflate and write the same bytes. Releases are
made up, and served over loopback. A value is the median of its samples. The exit
code is 3 when a threshold is missed. The disk needs 4 GB for each sample, and 4 GB
more, until the end. What is asked of a network file system is counted on one
that is mounted through FUSE, as root.

Experiments:
` + strings.TrimSuffix(list.String(), "\n"),
		Example: `  ccbench bench                        # everything: 30 minutes on two idle cores
  ccbench bench --quick                # some minutes, with a small release
  ccbench bench --only written,waiting --export samples.json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			program, err := os.Executable()
			if err != nil {
				return failed(err)
			}
			o.Unit = []string{program, "bench", "unit"}
			if o.Cache, err = benchCache(o.Cache); err != nil {
				return err
			}
			if o.Quick && !cmd.Flags().Changed("size") {
				o.MB = 40
			}
			report := step.NewReporter(cmd.ErrOrStderr(), false, time.Now)
			o.Say = report.Say
			if o.Thresholds, err = readThresholds(thresholds); err != nil {
				return err
			}
			o.Build, o.Arguments = thisBuild(), os.Args[1:]
			if file != "" {
				o.Keep = func(r bench.Report) error { return writeJSON(file, r) }
			}
			result, err := bench.Run(cmd.Context(), o)
			report.Close()
			if errors.Is(err, bench.ErrOptions) {
				return err
			}
			// Also after a failure: what was measured until then took minutes.
			if keepErr := keep(result, file, asJSON, cmd.OutOrStdout()); keepErr != nil || err != nil {
				return failed(errors.Join(err, keepErr))
			}
			if missed := result.Missed(); len(missed) > 0 {
				return &failure{fmt.Errorf("%d of %d thresholds missed: %s", len(missed), len(result.Rows), strings.Join(missed, "; ")), exitMissed}
			}
			return nil
		},
	}
	flags := cmd.Flags()
	flags.StringSliceVar(&o.Only, "only", nil, "run these experiments only")
	flags.IntVar(&o.MB, "size", 600, "size of the release's archive in MB; up to twice that unpacked")
	flags.IntVar(&o.Samples, "samples", bench.EnoughSamples, "how often to measure each thing")
	flags.BoolVar(&o.Quick, "quick", false, "a release of 40 MB, a tenth of the files where there are many, and less waiting")
	flags.BoolVar(&asJSON, "json", false, "print JSON")
	flags.StringVar(&file, "export", "", "write the result with every raw sample to this file")
	flags.StringVar(&o.Cache, "cache", "", "folder on a disk for releases and volumes (default bench in $CCBENCH_CACHE, else in ccbench in your cache folder)")
	flags.StringVar(&o.Tmpfs, "tmpfs", "/dev/shm", "folder in memory for volumes")
	flags.StringVar(&thresholds, "thresholds", "", "file of thresholds (default: the targets of the specification and of this repository)")
	completeFile(cmd, "export", "json")
	completeFile(cmd, "thresholds", "txt")
	completeDirectory(cmd, "cache")
	completeDirectory(cmd, "tmpfs")
	cobra.CheckErr(cmd.RegisterFlagCompletionFunc("only", cobra.FixedCompletions(names, cobra.ShellCompDirectiveNoFileComp)))
	cmd.AddCommand(&cobra.Command{
		Use:    "unit TASK",
		Short:  "Be one simulated machine of a running bench",
		Hidden: true,
		Args:   cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := bench.Unit(cmd.Context(), args[0], cmd.InOrStdin(), cmd.OutOrStdout()); err != nil {
				return failed(err)
			}
			return nil
		},
	})
	return cmd
}

// keep prints a report, and writes it with its samples to a file, if there is
// to be one.
func keep(r bench.Report, file string, asJSON bool, out io.Writer) error {
	if len(r.Rows) == 0 {
		return nil
	}
	if file != "" {
		if err := writeJSON(file, r); err != nil {
			return err
		}
	}
	if asJSON {
		return printJSON(out, r)
	}
	return r.Markdown(out)
}

func benchCache(dir string) (string, error) {
	if dir != "" {
		return filepath.Abs(dir)
	}
	if dir = os.Getenv("CCBENCH_CACHE"); dir == "" {
		caches, err := os.UserCacheDir()
		if err != nil {
			return "", fmt.Errorf("there is no cache folder: name one with --cache: %w", err)
		}
		dir = filepath.Join(caches, "ccbench")
	}
	return filepath.Join(dir, "bench"), nil
}

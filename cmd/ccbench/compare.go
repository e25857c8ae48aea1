package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/concourse-ci-machine/concourse-ci-machine/bench"
	"github.com/concourse-ci-machine/concourse-ci-machine/bench/compare"
	"github.com/concourse-ci-machine/concourse-ci-machine/bench/threshold"
)

func newCompareCommand() *cobra.Command {
	var o compare.Options
	var asJSON bool
	var file, thresholds string
	cmd := &cobra.Command{
		Use:   "compare OLD NEW",
		Short: "Tell whether a result has become worse than an older one",
		Long: `Compare two results that ` + "`ccbench bench --export` or `ccbench run --export`" + ` wrote. What
is counted must be the same. What varies has become worse if the one-sided test of
Mann and Whitney says so, corrected for the number of measures, and the change is
at least --effect. It is ok if not, and if a change of --detect would have been seen;
else it is inconclusive, with the number of samples that it would take. The new
result is also held against the thresholds. Results of different machines are
refused.

The exit code is 3 when a measure is regressed or a threshold is missed, and 4 when
a measure is inconclusive or the results cannot be compared.`,
		Example: `  ccbench compare before.json after.json
  ccbench compare before.json after.json --effect 0.1 --json
  ccbench compare before.json after.json --thresholds mine.txt`,
		Args: cobra.ExactArgs(2),
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
			if len(args) == 2 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return []cobra.Completion{"json"}, cobra.ShellCompDirectiveFilterFileExt
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			for _, share := range []struct {
				flag  string
				value float64
			}{{"effect", o.Effect}, {"detect", o.Detect}} {
				if share.value <= 0 || share.value > 10 {
					return fmt.Errorf("--%s must be a share above 0, such as 0.05 for 5 %%", share.flag)
				}
			}
			var err error
			if o.Thresholds, err = readThresholds(thresholds); err != nil {
				return err
			}
			old, err := readResult(args[0])
			if err != nil {
				return failed(err)
			}
			new, err := readResult(args[1])
			if err != nil {
				return failed(err)
			}
			r, err := compare.Results(old, new, o)
			switch {
			case errors.Is(err, compare.ErrIncomparable):
				if strings.Contains(err.Error(), "different machines") {
					err = fmt.Errorf("%w: use --any-machine to compare them all the same", err)
				}
				return &failure{err, exitInconclusive}
			case err != nil:
				return failed(err)
			}
			if file != "" {
				if err := writeJSON(file, r); err != nil {
					return failed(err)
				}
			}
			if asJSON {
				err = printJSON(cmd.OutOrStdout(), r)
			} else {
				err = printComparison(cmd.OutOrStdout(), r)
			}
			if err != nil {
				return failed(err)
			}
			return judged(r)
		},
	}
	flags := cmd.Flags()
	flags.Float64Var(&o.Effect, "effect", 0.05, "the smallest change for the worse that matters, as a share")
	flags.Float64Var(&o.Detect, "detect", 0.2, "a change that must be seen if it is there, as a share")
	flags.BoolVar(&o.AnyMachine, "any-machine", false, "compare results of different machines, too")
	flags.StringVar(&thresholds, "thresholds", "", "file of thresholds (default: the targets of the specification and of this repository)")
	flags.BoolVar(&asJSON, "json", false, "print JSON")
	flags.StringVar(&file, "export", "", "write the comparison to this file, as JSON")
	completeFile(cmd, "export", "json")
	completeFile(cmd, "thresholds", "txt")
	return cmd
}

// judged is the error of a comparison that ended like this.
func judged(r compare.Result) error {
	count := map[compare.Verdict]int{}
	for _, m := range r.Measures {
		count[m.Verdict]++
	}
	switch {
	case r.Verdict == compare.Regressed || len(r.Missed) > 0:
		return &failure{fmt.Errorf("%d of %d measures are regressed, %d thresholds are missed", count[compare.Regressed], len(r.Measures), len(r.Missed)), exitMissed}
	case r.Verdict == compare.Inconclusive && len(r.Measures) == 0:
		return &failure{errors.New("the results have no measure in common"), exitInconclusive}
	case r.Verdict == compare.Inconclusive:
		return &failure{fmt.Errorf("%d of %d measures are inconclusive", count[compare.Inconclusive], len(r.Measures)), exitInconclusive}
	}
	return nil
}

func printComparison(out io.Writer, r compare.Result) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "measure\told\tnew\tchange\tp\tsamples\tverdict")
	for _, m := range r.Measures {
		change, p := "-", "exact"
		if m.NewN > 0 {
			change = fmt.Sprintf("%.1f %% %s", 100*math.Abs(m.Worse), worseOrBetter(m.Worse))
		}
		if m.Worse == math.MaxFloat64 {
			change = "worse, from 0"
		}
		if !m.Exact {
			p = fmt.Sprintf("%.3f", m.P)
		}
		verdict := string(m.Verdict)
		if m.Reason != "" {
			verdict += ": " + m.Reason
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%d and %d\t%s\n", m.Name, bench.Formatted(m.Old, m.Unit), bench.Formatted(m.New, m.Unit), change, p, m.OldN, m.NewN, verdict)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, missed := range r.Missed {
		fmt.Fprintf(out, "missed: %s: %s is %s\n", missed.Threshold, missed.Measure, bench.Formatted(missed.Number, missed.Unit))
	}
	for _, note := range r.Notes {
		fmt.Fprintf(out, "note: %s\n", note)
	}
	_, err := fmt.Fprintf(out, "verdict: %s\n", r.Verdict)
	return err
}

func worseOrBetter(worse float64) string {
	switch {
	case worse > 0:
		return "worse"
	case worse < 0:
		return "better"
	}
	return "change"
}

// readThresholds reads a file of thresholds; without a name they are those that ship.
func readThresholds(path string) (threshold.Thresholds, error) {
	if path == "" {
		return threshold.Targets()
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("cannot read the thresholds: %w", err)
	}
	all, err := threshold.Parse(string(text))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return all, nil
}

func readResult(path string) (bench.Report, error) {
	var r bench.Report
	raw, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(raw, &r)
	}
	if err != nil {
		return r, fmt.Errorf("cannot read the result %s: %w", path, err)
	}
	return r, nil
}

// writeJSON replaces a file as a whole: who is killed leaves the old one or the new one.
func writeJSON(path string, v any) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return fmt.Errorf("cannot write %s: %w", path, err)
	}
	if err = errors.Join(printJSON(f, v), f.Chmod(0o644), f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("cannot write %s: %w", path, errors.Join(err, os.Remove(f.Name())))
	}
	return nil
}

// thisBuild is what this program was built of.
func thisBuild() bench.Build {
	var b bench.Build
	if info, ok := debug.ReadBuildInfo(); ok {
		b.Commit, b.Dirty = commitOf(info.Settings)
	}
	return b
}

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/report"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/suite"
)

// listed is a scenario as `ccbench scenarios --json` prints it.
type listed struct {
	Name        string  `json:"name"`
	Group       string  `json:"group"`
	Proves      string  `json:"proves"`
	MemoryBytes int64   `json:"memory_bytes"` // that it needs
	TakesS      float64 `json:"takes_s"`      // about; 0 is not known
	OnRequest   bool    `json:"on_request"`   // it runs only when it is named
	Alone       string  `json:"alone,omitempty"`
	KnownRule   string  `json:"known_rule,omitempty"` // the rule that it must break today
	Last        *last   `json:"last,omitempty"`       // absent if it has not run yet
}

// last is how a scenario ended when it ran last.
type last struct {
	Started time.Time      `json:"started"`
	TookS   float64        `json:"took_s"`
	Verdict report.Verdict `json:"verdict"`
}

func newScenariosCommand(b backend) *cobra.Command {
	var asJSON bool
	var artifacts string
	cmd := &cobra.Command{
		Use:   "scenarios [REGEXP]... [!REGEXP]...",
		Short: "List the scenarios: what each proves, needs and takes",
		Long: `List the scenarios that ` + "`ccbench run`" + ` runs with the same arguments: what each
proves, the memory it needs, how long it takes about, and how long it took when
it ran here last. Without arguments it lists also those that run on request only.`,
		Example: `  ccbench scenarios
  ccbench scenarios faults
  ccbench scenarios --json | jq '.[] | select(.takes_s < 120) | .name'`,
		ValidArgsFunction: completeScenarios(b),
		RunE: func(cmd *cobra.Command, args []string) error {
			chosen := b.scenarios
			if len(args) > 0 {
				var err error
				if chosen, err = suite.Choose(b.scenarios, args...); err != nil {
					return err
				}
			}
			all := []listed{}
			for _, sc := range chosen {
				entry := listed{
					Name: sc.Name, Group: sc.Group, Proves: sc.Proves, MemoryBytes: sc.Needs.Memory, TakesS: sc.Takes.Seconds(),
					OnRequest: sc.OnRequest, Alone: sc.Alone, KnownRule: sc.Known.Rule,
				}
				var err error
				if entry.Last, err = lastRun(artifacts, sc.Name); err != nil {
					return failed(err)
				}
				all = append(all, entry)
			}
			if asJSON {
				return failed(printJSON(cmd.OutOrStdout(), all))
			}
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			fmt.Fprintln(w, "scenario\tgroup\tmemory\ttakes\tlast\tproves")
			for _, sc := range all {
				took := "-"
				if sc.Last != nil {
					took = fmt.Sprintf("%s %s", seconds(sc.Last.TookS), sc.Last.Verdict)
				}
				note := ""
				if sc.OnRequest {
					note = " (runs on request only)"
				}
				fmt.Fprintf(w, "%s\t%s\t%.0f GiB\t%s\t%s\t%s%s\n", sc.Name, sc.Group, float64(sc.MemoryBytes)/(1<<30), seconds(sc.TakesS), took, sc.Proves, note)
			}
			return failed(w.Flush())
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().StringVar(&artifacts, "artifacts", "artifacts", "folder that scenarios have left their reports in")
	completeDirectory(cmd, "artifacts")
	return cmd
}

// seconds is a time as people read it.
func seconds(s float64) string {
	if s == 0 {
		return "-"
	}
	return (time.Duration(s * float64(time.Second))).Round(time.Second).String()
}

// lastRun reads the newest report of a scenario, of one run or of one of its samples; nil
// where there is none.
func lastRun(artifacts, name string) (*last, error) {
	paths, err := filepath.Glob(filepath.Join(artifacts, name, "*", "report.json"))
	if err != nil {
		return nil, err
	}
	var newest *last
	for _, path := range append(paths, filepath.Join(artifacts, name, "report.json")) {
		raw, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		var r report.Report
		if err == nil {
			err = json.Unmarshal(raw, &r)
		}
		if err != nil {
			return nil, fmt.Errorf("cannot read how long %s took last: %w", name, err)
		}
		if newest == nil || r.Started.After(newest.Started) {
			newest = &last{r.Started, r.Took.Seconds(), r.Verdict}
		}
	}
	return newest, nil
}

// completeScenarios completes the names of scenarios and groups, also after !.
func completeScenarios(b backend) cobra.CompletionFunc {
	return func(_ *cobra.Command, _ []string, typed string) ([]cobra.Completion, cobra.ShellCompDirective) {
		not := ""
		if len(typed) > 0 && typed[0] == '!' {
			not = "!"
		}
		var names []cobra.Completion
		groups := map[string]bool{}
		for _, sc := range b.scenarios {
			names = append(names, cobra.CompletionWithDesc(not+sc.Name, sc.Proves))
			if !groups[sc.Group] {
				groups[sc.Group] = true
				names = append(names, cobra.CompletionWithDesc(not+sc.Group, "all of the group"))
			}
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}

// completeDirectory completes a flag with directories, and completeFile with files of some
// endings.
func completeDirectory(cmd *cobra.Command, flag string) {
	cobra.CheckErr(cmd.MarkFlagDirname(flag))
}

func completeFile(cmd *cobra.Command, flag string, endings ...string) {
	cobra.CheckErr(cmd.MarkFlagFilename(flag, endings...))
}

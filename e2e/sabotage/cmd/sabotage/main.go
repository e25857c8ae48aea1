// Command sabotage breaks the product on purpose, in copies of the commit that is
// checked out, and demands that the suite notices each time.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"time"

	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/sabotage"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "sabotage:", err)
		os.Exit(1)
	}
}

// run tries the named sabotages, or all, each scenario after a control of its own.
func run(ctx context.Context, names []string) error {
	all, err := sabotage.Read(filepath.Join("e2e", "sabotage"))
	if err != nil {
		return err
	}
	for _, name := range names {
		if !slices.ContainsFunc(all, func(s sabotage.Sabotage) bool { return s.Name == name }) {
			return fmt.Errorf("there is no e2e/sabotage/%s.patch", name)
		}
	}
	b := sabotage.Bench{Root: ".", Artifacts: filepath.Join("artifacts", "sabotage")}
	missed := 0
	controlled := map[string]bool{}
	for _, s := range all {
		if len(names) > 0 && !slices.Contains(names, s.Name) {
			continue
		}
		if !controlled[s.Scenario] {
			r, err := b.Control(ctx, s.Scenario)
			if err != nil {
				return err
			}
			fmt.Printf("%-32s %-12s %8s  %s\n", r.Name, verdict(!r.Red), r.Took.Round(time.Second), r.Said)
			if r.Red {
				return fmt.Errorf("the scenario %s fails on what nobody has broken: mend that first", s.Scenario)
			}
			controlled[s.Scenario] = true
		}
		r, err := b.Try(ctx, s)
		if err != nil {
			return err
		}
		fmt.Printf("%-32s %-12s %8s  %s\n", r.Name, verdict(r.Red), r.Took.Round(time.Second), r.Said)
		if !r.Red {
			missed++
		}
	}
	if missed > 0 {
		return fmt.Errorf("%d sabotages were not noticed by the rule that guards their promise", missed)
	}
	return nil
}

func verdict(ok bool) string {
	if ok {
		return "as it should"
	}
	return "MISSED"
}

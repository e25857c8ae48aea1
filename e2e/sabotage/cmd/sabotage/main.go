// Command sabotage breaks the product on purpose, in copies of the commit that is
// checked out, and demands that the suite notices each time.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/sabotage"
)

func main() {
	parallel := flag.Int("parallel", 1, "how many copies are tried at a time, each with a model of its own")
	flag.Usage = func() {
		fmt.Fprintf(flag.CommandLine.Output(), "usage: sabotage [-parallel N] [NAME]...\n\nA NAME is that of a file in e2e/sabotage, without .patch; without one all are tried.\n\n")
		flag.PrintDefaults()
	}
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	context.AfterFunc(ctx, func() {
		fmt.Fprintln(os.Stderr, "sabotage: interrupted; what runs destroys its models, which takes a minute")
	})
	if err := run(ctx, *parallel, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "sabotage:", err)
		os.Exit(1)
	}
}

// run tries the named sabotages, or all, after the controls of those who must notice.
func run(ctx context.Context, parallel int, names []string) error {
	all, err := sabotage.Read(filepath.Join("e2e", "sabotage"))
	if err != nil {
		return err
	}
	for _, name := range names {
		if !slices.ContainsFunc(all, func(s sabotage.Sabotage) bool { return s.Name == name }) {
			return fmt.Errorf("there is no e2e/sabotage/%s.patch", name)
		}
	}
	if len(names) > 0 {
		all = slices.DeleteFunc(all, func(s sabotage.Sabotage) bool { return !slices.Contains(names, s.Name) })
	}
	trials := sabotage.Trials(all)
	var controls []sabotage.Trial
	for _, t := range trials {
		if !slices.ContainsFunc(controls, func(c sabotage.Trial) bool { return c.By == t.By }) {
			controls = append(controls, sabotage.Trial{By: t.By})
		}
	}
	missed, err := try(ctx, parallel, controls)
	if err == nil && len(missed) > 0 {
		err = fmt.Errorf("%v: it fails on what nobody has broken: mend that first", missed)
	}
	if err != nil {
		return err
	}
	missed, err = try(ctx, parallel, trials)
	if err == nil && len(missed) > 0 {
		err = fmt.Errorf("%v: not noticed by what guards the promise", missed)
	}
	return err
}

// try tries a few at a time, says how each went, and names those that went wrong.
func try(ctx context.Context, parallel int, trials []sabotage.Trial) (missed []string, err error) {
	b := sabotage.Bench{Root: ".", Artifacts: filepath.Join("artifacts", "sabotage")}
	all, ctx := errgroup.WithContext(ctx)
	all.SetLimit(max(parallel, 1))
	var mu sync.Mutex
	for _, t := range trials {
		all.Go(func() error {
			results, err := b.Try(ctx, t)
			if err != nil {
				return fmt.Errorf("%s: %w", t.Name(), err)
			}
			mu.Lock()
			defer mu.Unlock()
			for _, r := range results {
				verdict := "as it should"
				if !r.OK {
					verdict = "MISSED"
					missed = append(missed, r.Name)
				}
				fmt.Printf("%-32s %-12s %8s  %s\n", r.Name, verdict, r.Took.Round(time.Second), r.Said)
			}
			return nil
		})
	}
	return missed, all.Wait()
}

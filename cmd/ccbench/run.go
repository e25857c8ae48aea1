package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/concourse-ci-machine/concourse-ci-machine/bench"
	"github.com/concourse-ci-machine/concourse-ci-machine/bench/threshold"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/fixtures/environment"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/report"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/suite"
)

// runFlags are the flags of `ccbench run`.
type runFlags struct {
	environment environment.Options
	juju        suite.JujuOptions
	suite       suite.Options
	samples     int
	seed        uint64
	drawn       bool // the order is drawn by the seed
	pause       bool
	export      string
}

func newRunCommand(b backend) *cobra.Command {
	var f runFlags
	cmd := &cobra.Command{
		Use:   "run [REGEXP]... [!REGEXP]...",
		Short: "Run scenarios on real Juju and LXD",
		Long: `Run the scenarios whose whole name, or whole group, one of the regular expressions
matches; what !REGEXP matches is left out, and without arguments all run but those
on request. Each gets a model of its own, which is destroyed at its end. With
--samples each runs so many times, round after round, and each round has an order
of its own that the seed decides.

The artifacts have a folder for each scenario, with its report and, where it
failed, the evidence; and junit.xml. After Ctrl-C (SIGINT, SIGTERM or SIGHUP) what
runs is ended, its evidence is taken and its models are destroyed; a second Ctrl-C
ends all at once, and leaves models behind.

The exit code is 3 when nothing failed but targets that were missed.`,
		Example: `  ccbench run                       # all
  ccbench run auto 'upgrade|schema' # some
  ccbench run faults '!crash'       # a group without one of it
  ccbench run auto --samples 6 --seed 7
  ccbench run refresh --charm ./concourse-ci-machine_amd64.charm --pause-on-fail`,
		ValidArgsFunction: completeScenarios(b),
		RunE: func(cmd *cobra.Command, args []string) error {
			chosen, err := suite.Choose(b.scenarios, args...)
			if err != nil {
				return err
			}
			if err := f.check(cmd); err != nil {
				return err
			}
			return f.run(cmd, b, chosen)
		},
	}
	flags := cmd.Flags()
	flags.IntVar(&f.samples, "samples", 1, "how often to run each scenario")
	flags.Uint64Var(&f.seed, "seed", 0, "draw the order of each round by this number (default with --samples: one that is printed)")
	flags.IntVar(&f.suite.Parallel, "parallel", 0, "how many may run at once, as far as memory allows (default 2, on one core 1)")
	flags.BoolVar(&f.suite.Keep, "keep", false, "keep the models and volumes")
	flags.BoolVar(&f.pause, "pause-on-fail", false, "wait for Enter before the model of a scenario that failed is destroyed")
	flags.BoolVar(&f.suite.Required, "require", false, "fail, instead of skipping, what this machine has no memory for")
	flags.StringVar(&f.suite.Artifacts, "artifacts", "artifacts", "folder for reports, JUnit and evidence")
	flags.StringVar(&f.juju.Charm, "charm", "", "deploy this packed charm instead of packing this repository's")
	flags.StringVar(&f.juju.Previous, "previous-charm", "", "refresh from this packed charm instead of that of an earlier commit")
	flags.StringVar(&f.juju.PostgreSQL, "postgresql", "", "use this channel of Charmhub's PostgreSQL, such as 16/stable, instead of the suite's own")
	flags.StringVar(&f.juju.Releases, "releases", "", "folder with archives of Concourse to deploy instead of building them")
	flags.StringVar(&f.juju.HostPath, "host-path", "", "make volumes in this directory instead of in LXD's pool")
	flags.StringVar(&f.export, "export", "", "write the result with the time of every phase to this file, after each scenario")
	addEnvironmentFlags(flags, &f.environment)
	completeFile(cmd, "export", "json")
	completeFile(cmd, "charm", "charm")
	completeFile(cmd, "previous-charm", "charm")
	for _, name := range []string{"artifacts", "releases", "host-path", "juju-data", "cache"} {
		completeDirectory(cmd, name)
	}
	return cmd
}

// check judges the flags, before anything is looked for, and makes paths absolute: charms
// are otherwise looked for below the repository.
func (f *runFlags) check(cmd *cobra.Command) error {
	if f.samples < 1 {
		return errors.New("--samples must be 1 or more")
	}
	if f.suite.Parallel < 0 {
		return errors.New("--parallel must be 0 or more")
	}
	if f.pause && f.suite.Keep {
		return errors.New("--pause-on-fail waits for what --keep prevents: use one of them")
	}
	for _, path := range []*string{&f.juju.Charm, &f.juju.Previous, &f.juju.Releases, &f.juju.HostPath} {
		if *path == "" {
			continue
		}
		if _, err := os.Stat(*path); err != nil {
			return fmt.Errorf("%s is not there: %w", *path, errors.Unwrap(err))
		}
		var err error
		if *path, err = filepath.Abs(*path); err != nil {
			return err
		}
	}
	given := cmd.Flags().Changed("seed")
	f.drawn = given || f.samples > 1
	if f.drawn && !given {
		f.seed = rand.Uint64N(1_000_000)
	}
	return nil
}

// run runs the scenarios.
func (f *runFlags) run(cmd *cobra.Command, b backend, chosen []suite.Scenario) error {
	ctx, out := cmd.Context(), cmd.OutOrStdout()
	host, err := b.host(ctx, f.environment, f.juju)
	if errors.Is(err, environment.ErrOptions) {
		return err
	}
	if err != nil {
		return failed(err)
	}
	all := chosen
	if f.drawn {
		all = suite.Rounds(chosen, f.samples, f.seed)
		f.suite.KeepOrder = true
	}
	fmt.Fprintln(out, f.announce(all))
	f.suite.Summary = os.Getenv("GITHUB_STEP_SUMMARY")
	f.suite.Again = func(scenario string) string { return f.again(scenario) }
	if f.pause {
		f.suite.Pause = newPause(cmd.InOrStdin(), out)
	}
	s := suite.New(host, f.suite)
	queue := s.Queue(ctx, out)
	var waits []func() *report.Report
	for _, sc := range all {
		waits = append(waits, queue.Add(sc))
	}
	started := time.Now()
	var exportErr error
	for i, wait := range waits {
		wait()
		if f.export != "" {
			exportErr = f.exportResult(started, s.Reports(), i == len(waits)-1 && ctx.Err() == nil)
		}
	}
	fmt.Fprintln(out)
	if err := errors.Join(s.Close(out), exportErr); err != nil {
		return failed(err)
	}
	if ctx.Err() != nil {
		return failed(errors.New("what ran was ended"))
	}
	return verdict(s.Reports())
}

// exportResult writes what is known so far: who is interrupted keeps it.
func (f *runFlags) exportResult(started time.Time, reports report.All, complete bool) error {
	thresholds, err := threshold.Targets()
	if err != nil {
		return err
	}
	r, err := bench.OfScenarios(started, reports, thresholds)
	if err != nil {
		return err
	}
	r.Complete, r.Build, r.Arguments = complete, thisBuild(), os.Args[1:]
	if f.drawn {
		r.Seed = &f.seed
	}
	return writeJSON(f.export, r)
}

// announce says what is going to run.
func (f *runFlags) announce(all []suite.Scenario) string {
	line := fmt.Sprintf("%d scenarios", len(all))
	var takes time.Duration
	for _, sc := range all {
		takes += sc.Takes
	}
	if takes > 0 {
		line += fmt.Sprintf(", about %s one after another", takes.Round(time.Minute))
	}
	if f.drawn {
		line += fmt.Sprintf(", seed %d", f.seed)
	}
	return line
}

// again is the command that runs a scenario again as it ran.
func (f *runFlags) again(scenario string) string {
	words := []string{"ccbench run", scenario}
	for _, option := range []struct{ flag, value string }{
		{"charm", f.juju.Charm}, {"previous-charm", f.juju.Previous}, {"postgresql", f.juju.PostgreSQL},
		{"releases", f.juju.Releases}, {"host-path", f.juju.HostPath},
		{"controller", f.environment.Controller}, {"juju-data", f.environment.JujuData},
	} {
		if option.value != "" {
			words = append(words, "--"+option.flag, quoted(option.value))
		}
	}
	return strings.Join(words, " ")
}

// quoted is a word that a shell takes as it is.
func quoted(word string) string {
	if strings.ContainsAny(word, " \t\n'\"$&|;<>()*?#~`\\{}!") {
		return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
	}
	return word
}

// verdict is the error of a run that ended with these reports.
func verdict(all report.All) error {
	broken, slow := 0, 0
	for _, r := range all {
		switch {
		case r.Slow():
			slow++
		case r.Verdict == report.Broken:
			broken++
		}
	}
	switch {
	case broken > 0:
		return failed(fmt.Errorf("%d of %d scenarios failed", broken+slow, len(all)))
	case slow > 0:
		return &failure{fmt.Errorf("%d of %d scenarios missed a target", slow, len(all)), exitMissed}
	}
	return nil
}

// newPause returns what waits for Enter, or for the end of the context. Several scenarios
// wait one after another.
func newPause(in io.Reader, out io.Writer) func(ctx context.Context, scenario, visit string) {
	var one sync.Mutex
	lines := make(chan struct{})
	begin := sync.OnceFunc(func() {
		go func() {
			defer close(lines) // at the end of input nobody can press Enter any more
			for scanner := bufio.NewScanner(in); scanner.Scan(); {
				lines <- struct{}{}
			}
		}()
	})
	return func(ctx context.Context, scenario, visit string) {
		one.Lock()
		defer one.Unlock()
		begin()
		fmt.Fprintf(out, "%s has failed; look around: %s\nPress Enter to have its model destroyed.\n", scenario, visit)
		select {
		case <-lines:
		case <-ctx.Done():
		}
	}
}

// Package suite runs scenarios: it makes what they need, has them observed, collects
// evidence before anything is destroyed, and reports. `go test ./e2e` and ccbench drive
// it alike.
package suite

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/cluster"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/judge"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/record"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/report"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/scenarios"
)

// Options say how scenarios run. The zero value of each field is a sensible default.
type Options struct {
	// Artifacts is the folder that gets one folder a scenario, with its report and,
	// where it failed, the evidence; the default is artifacts. What a scenario's former
	// run has left is kept in NAME.old.
	Artifacts string
	// Required makes a failure of what would be skipped.
	Required bool
	// Keep leaves clusters in place.
	Keep bool
	// Summary is a file that the reports are appended to as markdown; empty is none.
	Summary string
	// Again returns the command that runs a scenario again.
	Again func(scenario string) string
	// Deadline is when this process is killed, and Timeout how long it could run in
	// all. The last five minutes, or the last fifth of a timeout below 25 minutes, are
	// kept: a scenario that still runs then fails, evidence is taken and its cluster
	// destroyed. A zero Deadline is no limit.
	Deadline time.Time
	Timeout  time.Duration
	// Pause, if there is one, is called when a scenario has failed and its evidence is
	// taken, with the command that shows its cluster. The cluster is destroyed when it
	// returns.
	Pause func(ctx context.Context, scenario, visit string)
	// KeepOrder has the scenarios of a Queue begin in the order in which they were added,
	// also where several run at once.
	KeepOrder bool
	// Parallel is how many scenarios of a Queue run at once, where there is memory for
	// the needs of all; 0 is two on a machine with two cores or more.
	Parallel int
}

// Suite is one run of scenarios.
type Suite struct {
	o        Options
	host     Host
	schedule schedule
	// available returns the memory that is available.
	available func() (bytes int64, ok bool)

	mu       sync.Mutex
	reports  report.All // in the order of the slots; nil until a scenario has ended
	problems []error    // of reports that could not be written
}

// New returns a suite that runs scenarios on a host, which it closes at its end.
func New(host Host, o Options) *Suite {
	o.Artifacts = cmp.Or(o.Artifacts, "artifacts")
	if o.Again == nil {
		o.Again = func(scenario string) string { return "ccbench run " + scenario }
	}
	o.Parallel = cmp.Or(o.Parallel, min(runtime.NumCPU(), 2))
	s := &Suite{o: o, host: host, available: memoryNow}
	if !o.Deadline.IsZero() {
		s.schedule = newSchedule(o.Deadline, o.Timeout)
	}
	return s
}

// Run runs one scenario on a cluster of its own and says on out what happens. The
// scenario has failed if the report's verdict is report.Broken.
func (s *Suite) Run(ctx context.Context, sc Scenario, out io.Writer) *report.Report {
	return s.run(ctx, sc, sc.Needs.missing(s.available), s.reserve(), newPrinter(out))
}

// reserve returns the slot of a report.
func (s *Suite) reserve() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reports = append(s.reports, nil)
	return len(s.reports) - 1
}

// run runs one scenario, unless something is missing for it; its report gets the slot.
func (s *Suite) run(ctx context.Context, sc Scenario, missing string, slot int, say *printer) *report.Report {
	r := report.New(sc.Name)
	r.Sample = sc.Sample
	r.Group, r.Proves, r.Again = sc.Group, sc.Proves, s.o.Again(sc.Name)
	defer say.close()
	r.Show = say.phase
	ctx, cancel := s.schedule.begin(ctx)
	defer cancel()

	say.scenario("%s: %s", r.Title(), sc.Proves)
	switch {
	case ctx.Err() != nil:
		r.End(report.Broken, []string{fmt.Sprintf("it did not begin: %v", context.Cause(ctx))})
	case missing != "" && !s.o.Required:
		r.Reason = missing
		r.End(report.Skipped, nil)
	case missing != "":
		r.End(report.Broken, []string{missing})
	default:
		s.runOn(ctx, sc, r, say)
	}
	if r.Evidence == "" {
		for _, failure := range r.Failures {
			say.observation("FAILED: " + failure)
		}
	}
	say.scenario("%s", r.Headline())

	s.mu.Lock()
	defer s.mu.Unlock()
	s.reports[slot] = r
	// Written after each, for the process may be killed.
	s.problem(writeFile(filepath.Join(s.o.Artifacts, "junit.xml"), s.ended().WriteJUnit))
	return r
}

// ended returns the reports that there are. The caller has the lock.
func (s *Suite) ended() report.All {
	return slices.DeleteFunc(slices.Clone(s.reports), func(r *report.Report) bool { return r == nil })
}

// runOn runs a scenario whose needs are met and ends its report.
func (s *Suite) runOn(ctx context.Context, sc Scenario, r *report.Report, say *printer) {
	dir, err := folder(s.o.Artifacts, sc.folder())
	if err != nil {
		r.End(report.Broken, []string{err.Error()})
		return
	}
	r.Evidence = dir
	t := &tester{log: say.observation}
	violations := s.attempt(ctx, sc, r, t, say)
	failures := t.end()

	verdict, text := sc.Known.verdict(failures, violations)
	if text != "" {
		failures = append(failures, text)
	}
	if verdict == report.Known {
		r.Reason = fmt.Sprintf("%s: %s", sc.Known.Rule, sc.Known.Missing)
	}
	r.End(verdict, failures)
	r.Clean(say.cleaned)
	if verdict == report.Broken {
		say.phase(fmt.Sprintf("evidence is in %s", dir))
		say.phase("run it again: " + r.Again)
	}
	var table strings.Builder
	err = errors.Join(r.WriteText(&table), r.Save(dir))
	say.block(table.String())
	s.mu.Lock()
	defer s.mu.Unlock()
	s.problem(err)
}

// attempt makes what the scenario needs, runs it, and takes all away again. Failures go
// to t; the violations are those among them that are broken rules.
func (s *Suite) attempt(ctx context.Context, sc Scenario, r *report.Report, t *tester, say *printer) []judge.Violation {
	temp, err := os.MkdirTemp("", "scenario-")
	if err != nil {
		t.Errorf("%v", err)
		return nil
	}
	defer os.RemoveAll(temp)
	t.temp = temp

	stage, err := s.prepare(ctx, r, say)
	if cause := context.Cause(ctx); err != nil && cause != nil {
		err = fmt.Errorf("%w: %w", cause, err)
	}
	if err != nil {
		t.Errorf("%v", err)
		return nil
	}
	defer stage.mirror.Close()
	recorder := record.New(record.Options{
		Scenario: sc.Name,
		T:        t,
		Cluster:  stage.cluster,
		Mirror:   stage.mirror,
		Versions: []string{stage.Old.Version, stage.From.Version, stage.To.Version},
		Others:   []string{stage.Database.Name},
		Look:     s.host.Look,
	})
	say.secrets(recorder.Secrets)
	in := scenarios.Inputs{
		Charm:    stage.Charm,
		Previous: func(ctx context.Context) (string, error) { return s.host.Previous(ctx, say.observation) },
		Database: stage.Database,
		Probe:    stage.Probe,
		Dir:      r.Evidence,
		Mirror:   recorder.Mirror(),
		From:     stage.From,
		To:       stage.To,
		Old:      stage.Old,
		Report:   r,
		Record:   recorder,
	}

	s.schedule.run(ctx, t, func() {
		sc.Run(ctx, t, recorder.Cluster(), in)
		recorder.End()
		if !t.Failed() {
			recorder.Observe(ctx, "end of the scenario", false, "")
		}
	})
	violations := recorder.Violations()
	for _, p := range r.Missed() {
		if p.Verdict == report.Missed {
			t.Errorf("%s took %s, longer than its target of %s", p.Name, p.Took.Round(100*time.Millisecond), p.Target)
		}
	}
	s.cleanUp(ctx, stage, recorder, r, t, say)
	return violations
}

// stage is what one scenario plays on.
type stage struct {
	Build
	mirror  Mirror
	cluster cluster.Cluster
}

// prepare makes a stage. What it has made when it fails is taken away.
func (s *Suite) prepare(ctx context.Context, r *report.Report, say *printer) (st stage, err error) {
	err = r.Time("releases built, charms packed", 0, func() error {
		st.Build, err = s.host.Build(ctx, say.observation)
		return err
	})
	if err != nil {
		return st, err
	}
	if st.mirror, err = s.host.StartMirror(st.Build); err != nil {
		return st, err
	}
	err = r.Time("model made", 0, func() error {
		st.cluster, err = s.host.NewCluster(ctx)
		return err
	})
	if err != nil {
		return st, errors.Join(err, st.mirror.Close())
	}
	say.observation(fmt.Sprintf("model %s", st.cluster.Name()))
	return st, nil
}

// cleanUp collects evidence of a failure, then destroys the cluster.
func (s *Suite) cleanUp(ctx context.Context, st stage, recorder *record.Recorder, r *report.Report, t *tester, say *printer) {
	scenario := ctx
	ctx, cancel := s.schedule.cleanUp(scenario)
	defer func() { cancel() }()
	if t.Failed() {
		say.phase("evidence")
		if err := collect(ctx, st, recorder, r.Evidence); err != nil {
			say.observation(fmt.Sprintf("not all evidence could be had: %v", err))
		}
		if s.o.Pause != nil {
			s.o.Pause(scenario, r.Title(), s.host.Visit(st.cluster))
			cancel()
			ctx, cancel = s.schedule.cleanUp(scenario) // the pause was somebody's own time
		}
	}
	if s.o.Keep {
		say.phase("kept; look around: " + s.host.Visit(st.cluster))
		return
	}
	start := time.Now()
	if err := st.cluster.Destroy(ctx); err != nil {
		t.Errorf("cannot clean up: %v", err)
		return
	}
	say.phase(fmt.Sprintf("model destroyed: %s", time.Since(start).Round(100*time.Millisecond)))
}

// Reports returns those of the scenarios that have ended, in the order in which they were
// added or begun.
func (s *Suite) Reports() report.All {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ended()
}

// Close says on out how the scenarios went, what failed last, appends that to the
// summary, and closes the host. Its error is about this alone: what failed is in Reports.
func (s *Suite) Close(out io.Writer) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.problem(s.host.Close())
	if reports := s.ended(); len(reports) > 0 {
		s.problem(reports.WriteText(out))
		if s.o.Summary != "" {
			s.problem(appendFile(s.o.Summary, reports.WriteMarkdown))
		}
	}
	return errors.Join(s.problems...)
}

// problem remembers an error of what is done beside the scenarios. The caller has the lock.
func (s *Suite) problem(err error) {
	if err != nil {
		s.problems = append(s.problems, err)
	}
}

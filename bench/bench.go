// Package bench measures what the coordinator promises about speed, memory and
// bytes moved, on the machine it runs on.
//
// Numbers of one machine mean little on another, so most rows are ratios: the
// coordinator against the least that anybody would have to do (download,
// inflate, write the same bytes), taken in turns in one run. Every raw sample
// is kept, with what else the machine was doing at the time.
package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/concourse-ci-machine/concourse-ci-machine/bench/threshold"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/report"
)

// Schema is the version of Report's JSON. It grows when a field changes its
// meaning or goes away, not when one is added.
const Schema = 3

// EnoughSamples is how many it takes for a median that a neighbour's burst of
// work does not move.
const EnoughSamples = 6

// ErrOptions marks an error in Options.
var ErrOptions = errors.New("cannot measure that")

// Options says what to measure and where. Unit and Cache are required.
type Options struct {
	// Unit is a command that calls Unit with its last argument, standard input
	// and output: a process of its own for each simulated machine.
	Unit []string
	// Cache keeps the archives that are made up, below it. Volumes on disk are
	// made, and removed, there too.
	Cache string
	// Tmpfs is a directory for volumes in memory.
	Tmpfs string
	// Only names the experiments to run, see Experiments; empty is all.
	Only []string
	// MB is the size of the release's archive in 10^6 bytes; up to twice that
	// unpacked.
	MB int
	// Samples is how often each thing is measured. With less than EnoughSamples
	// the limits are judged all the same, and the report says so.
	Samples int
	// Quick shortens what does not depend on MB and Samples.
	Quick bool
	// Say is told what is being done.
	Say func(format string, args ...any)
	// Build and Arguments are for the report.
	Build     Build
	Arguments []string
	// Thresholds give the verdicts; nil are threshold.Targets.
	Thresholds threshold.Thresholds
	// Keep, if it is set, is called after each experiment with the report so far: who is
	// interrupted loses no more than one.
	Keep func(Report) error
}

// Build is what was measured.
type Build struct {
	Commit string `json:"commit,omitempty"` // empty if it is not known
	Dirty  bool   `json:"dirty,omitempty"`  // files differed from the commit
}

// Report is one run, and the whole of its result: all else is derived from it. The one of
// scenarios has these, and rows of their phases.
type Report struct {
	Schema      int       `json:"schema"`
	Complete    bool      `json:"complete"` // false: it was interrupted, or has failed
	Build       Build     `json:"build"`
	Arguments   []string  `json:"arguments"`
	Seed        *uint64   `json:"seed,omitempty"` // that the order of scenarios was drawn by
	Started     time.Time `json:"started"`
	TookSeconds float64   `json:"took_seconds"`
	Quick       bool      `json:"quick"`
	MB          int       `json:"archive_mb"`
	Samples     int       `json:"samples"`
	Machine     Machine   `json:"machine"`
	// Calibration is how long the same piece of work took before and after.
	Calibration Calibration `json:"calibration"`
	Load        []Load      `json:"load"` // of each experiment, in their order
	Rows        []Row       `json:"rows"`
	// Scenarios are the reports of scenarios, with their phases.
	Scenarios []*report.Report `json:"scenarios,omitempty"`
}

// Missed returns the names of the rows that missed their limits.
func (r Report) Missed() []string {
	var names []string
	for _, row := range r.Rows {
		if row.Verdict == report.Missed {
			names = append(names, row.Name)
		}
	}
	return names
}

// experiment measures some rows on what a run offers.
type experiment struct {
	name, about string
	measure     func(context.Context, *run) ([]Row, error)
}

func experiments() []experiment {
	install := func(k kind, files int) func(context.Context, *run) ([]Row, error) {
		return func(ctx context.Context, r *run) ([]Row, error) { return install(ctx, r, k, r.files(files)) }
	}
	return []experiment{
		{"install", "cold Ensure of a release as they are published, 800 files: time and memory", install(realLike, 800)},
		{"install-compressible", "the same, if all of the release compresses to a half", install(compressible, 800)},
		{"install-many", "the same with 60,000 files, 6,000 if quick", install(compressible, 60_000)},
		{"written", "what cold Ensure writes to the disk", written},
		{"crowd", "64 processes at once on an empty volume", crowd},
		{"waiting", "what a unit that waits asks of a network file system", waiting},
		{"claim", "taking and releasing the claim", claiming},
		{"installed", "Ensure of what is installed already", installed},
		{"installed-many", "the quick check of 60,000 files, 6,000 if quick", installedMany},
		{"resume", "Ensure after SIGKILL at 90 %", resume},
		{"units", "1,000 simulated units against 10", units},
	}
}

// Experiments returns what Options.Only may name, with a line about each.
func Experiments() (names, about []string) {
	for _, e := range experiments() {
		names, about = append(names, e.name), append(about, e.about)
	}
	return names, about
}

// Run measures. The error is ErrOptions, that of ctx, or that of something that
// did not work at all; the report holds the experiments before it. A number that
// misses its limit is no error.
func Run(ctx context.Context, o Options) (report Report, err error) {
	names, _ := Experiments()
	for _, name := range o.Only {
		if !slices.Contains(names, name) {
			return Report{}, fmt.Errorf("%w: there is no experiment %q; there are %s", ErrOptions, name, strings.Join(names, ", "))
		}
	}
	if o.MB < 1 || o.Samples < 1 {
		return Report{}, fmt.Errorf("%w: the size and the number of samples must be positive", ErrOptions)
	}
	thresholds := o.Thresholds
	if thresholds == nil {
		if thresholds, err = threshold.Targets(); err != nil {
			return Report{}, err
		}
	}
	if err := os.MkdirAll(o.Cache, 0o755); err != nil {
		return Report{}, fmt.Errorf("cannot measure: %w", err)
	}
	r, err := newRun(o)
	if err != nil {
		return Report{}, fmt.Errorf("cannot measure: %w", err)
	}
	defer func() {
		o.Say("removing what was made: of many files that takes minutes")
		err = errors.Join(err, r.source.Close(), r.disk.clear(), r.tmpfs.clear())
	}()

	report = Report{
		Schema: Schema, Started: time.Now().UTC().Truncate(time.Second),
		Quick: o.Quick, MB: o.MB, Samples: o.Samples,
		Machine: machine(r.disk, r.tmpfs), Build: o.Build, Arguments: o.Arguments,
		Calibration: Calibration{BeforeMS: calibrate()},
	}
	defer func() { report.TookSeconds = time.Since(report.Started).Seconds() }()
	for _, e := range experiments() {
		if len(o.Only) > 0 && !slices.Contains(o.Only, e.name) {
			continue
		}
		o.Say("%s: %s", e.name, e.about)
		watch, err := watchLoad(e.name)
		if err != nil {
			return report, err
		}
		rows, err := e.measure(ctx, r)
		if err != nil {
			return report, fmt.Errorf("cannot measure %s: %w", e.name, err)
		}
		load, err := watch.end()
		if err != nil {
			return report, err
		}
		for _, row := range rows {
			row.Experiment, row.Measure = e.name, e.name+"."+row.Measure
			if row, err = row.judged(thresholds); err != nil {
				return report, err
			}
			report.Rows = append(report.Rows, row.under(load))
		}
		report.Load = append(report.Load, load)
		if o.Keep != nil {
			report.TookSeconds = time.Since(report.Started).Seconds()
			if err := o.Keep(report); err != nil {
				return report, err
			}
		}
	}
	report.Calibration.AfterMS, report.Complete = calibrate(), true
	return report, nil
}

// run is what experiments share.
type run struct {
	Options
	source      *source
	disk, tmpfs *place
}

func newRun(o Options) (*run, error) {
	r := &run{Options: o, disk: &place{name: "disk", dir: o.Cache}, tmpfs: &place{name: "tmpfs", dir: o.Tmpfs}}
	for _, p := range []*place{r.disk, r.tmpfs} {
		var err error
		if p.fs, err = fileSystem(p.dir); err != nil {
			return nil, err
		}
	}
	var err error
	r.source, err = serve(o.Cache)
	return r, err
}

// cores is how many processors the children share.
func cores() int { return runtime.NumCPU() }

// files is how many files there are where a full run has so many.
func (r *run) files(full int) int {
	if r.Quick && full >= manyFiles {
		return full / 10
	}
	return full
}

// repeats is how many times something short is measured for one sample.
func (r *run) repeats() int {
	if r.Quick {
		return 100
	}
	return 400
}

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
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Schema is the version of Report's JSON. It grows when a field changes its
// meaning or goes away, not when one is added.
const Schema = 1

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
	// MB is the size of the release's archive in 10^6 bytes; twice that unpacked.
	MB int
	// Samples is how often each thing is measured, at least.
	Samples int
	// Quick shortens what does not depend on MB and Samples.
	Quick bool
	// Say is told what is being done.
	Say func(format string, args ...any)
}

// Verdict is how a value compares with its limit.
type Verdict string

const (
	OK      Verdict = "ok"
	Missed  Verdict = "missed"
	Skipped Verdict = "skipped" // not measured; Note says why
)

// Row is one number with a limit. Value and Limit are in Unit: "x" for a ratio,
// else "ms", "s", "MiB" or "" for a count.
type Row struct {
	Experiment string   `json:"experiment"`
	Name       string   `json:"name"`
	Unit       string   `json:"unit"`
	Value      float64  `json:"value"`
	Limit      float64  `json:"limit"`
	AtLeast    bool     `json:"at_least,omitempty"` // the limit is a lower one
	Floor      string   `json:"floor"`              // what physics, or the task itself, asks for
	Verdict    Verdict  `json:"verdict"`
	Note       string   `json:"note,omitempty"`
	Series     []Series `json:"series,omitempty"` // raw samples the value was made of
}

// Report is one run.
type Report struct {
	Schema      int       `json:"schema"`
	Started     time.Time `json:"started"`
	TookSeconds float64   `json:"took_seconds"`
	Quick       bool      `json:"quick"`
	MB          int       `json:"archive_mb"`
	Samples     int       `json:"samples"`
	Machine     Machine   `json:"machine"`
	Load        []Load    `json:"load"` // of each experiment, in their order
	Rows        []Row     `json:"rows"`
}

// Missed returns the names of the rows that missed their limits.
func (r Report) Missed() []string {
	var names []string
	for _, row := range r.Rows {
		if row.Verdict == Missed {
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
	return []experiment{
		{"install", "cold Ensure of a release of 800 files: time and memory", func(ctx context.Context, r *run) ([]Row, error) { return install(ctx, r, 800) }},
		{"install-many", "the same with 60,000 files, 6,000 if quick", func(ctx context.Context, r *run) ([]Row, error) {
			if r.Quick {
				return install(ctx, r, 6000)
			}
			return install(ctx, r, 60_000)
		}},
		{"crowd", "64 processes at once on an empty volume", crowd},
		{"claim", "taking and releasing the claim", claiming},
		{"installed", "Ensure of what is installed already", installed},
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
	if err := os.MkdirAll(o.Cache, 0o755); err != nil {
		return Report{}, fmt.Errorf("cannot measure: %w", err)
	}
	r, err := newRun(o)
	if err != nil {
		return Report{}, fmt.Errorf("cannot measure: %w", err)
	}
	defer func() { err = errors.Join(err, r.source.Close(), r.disk.clear(), r.tmpfs.clear()) }()

	report = Report{
		Schema: Schema, Started: time.Now().UTC().Truncate(time.Second),
		Quick: o.Quick, MB: o.MB, Samples: o.Samples,
		Machine: machine(r.disk, r.tmpfs),
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
			row.Experiment = e.name
			report.Rows = append(report.Rows, row.judged().under(load))
		}
		report.Load = append(report.Load, load)
	}
	return report, nil
}

func (row Row) judged() Row {
	switch {
	case row.Verdict != "":
	case row.AtLeast && row.Value < row.Limit, !row.AtLeast && row.Value > row.Limit:
		row.Verdict = Missed
	default:
		row.Verdict = OK
	}
	return row
}

// busy is a share of the processors that others may use without a miss being
// put down to them.
const busy = 0.1

// under says so where a time was missed on a busy machine: a ratio takes its
// floor in the same minute, but not the same second.
func (row Row) under(l Load) Row {
	if row.Verdict == Missed && row.Unit != "" && row.Unit != "MiB" && l.Others > busy {
		if row.Note != "" {
			row.Note += "; "
		}
		row.Note += fmt.Sprintf("other processes used %.0f %% of the processors meanwhile: measure again when they do not", 100*l.Others)
	}
	return row
}

// run is what experiments share.
type run struct {
	Options
	source      *source
	disk, tmpfs *place
}

// place is a directory for volumes.
type place struct {
	name, dir, fs string

	// Directories with very many files stay until the end: ext4 is slow at making
	// files right after as many were removed, because it avoids their inodes for
	// minutes.
	used []string
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

// unfit says why a place is not what its name says.
func (p *place) unfit() string {
	switch {
	case p.name == "tmpfs" && p.fs != "tmpfs":
		return p.dir + " is no tmpfs but " + p.fs
	case p.name == "disk" && p.fs == "tmpfs":
		return p.dir + " is on tmpfs: name a directory on a disk with --cache"
	}
	return ""
}

// on calls do with a fresh directory in a place, and leaves the place as clean
// and as idle as it was.
func (p *place) on(do func(dir string) error) error {
	return p.keep(func(dir string) error {
		err := do(dir)
		// Removing is not part of what is measured, and neither is writing back what
		// was removed.
		p.used = slices.DeleteFunc(p.used, func(used string) bool { return used == dir })
		return errors.Join(err, os.RemoveAll(dir))
	})
}

// keep is on, but for removing the directory: that is left to clear.
func (p *place) keep(do func(dir string) error) error {
	if err := p.settle(); err != nil {
		return err
	}
	dir, err := os.MkdirTemp(p.dir, "bench.")
	if err != nil {
		return err
	}
	p.used = append(p.used, dir)
	return errors.Join(do(dir), p.settle())
}

// clear removes what was kept.
func (p *place) clear() error {
	var err error
	for _, dir := range p.used {
		err = errors.Join(err, os.RemoveAll(dir))
	}
	p.used = nil
	return err
}

// settle waits until nothing is left to be written back: the sample that made
// the dirt should pay for it, not the next one.
func (p *place) settle() error {
	f, err := os.Open(p.dir)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.Syncfs(int(f.Fd())); err != nil {
		return fmt.Errorf("cannot sync %s: %w", p.dir, err)
	}
	return nil
}

// cores is how many processors the children share.
func cores() int { return runtime.NumCPU() }

// archive returns the release with so many files, made up unless it is cached.
func (r *run) archive(ctx context.Context, files, mb int) (archive, error) {
	a := archive{Files: files, MB: mb}
	path := filepath.Join(r.Cache, a.name())
	if err := a.load(path); err == nil {
		return a, nil
	}
	r.Say("making up a release of %d files, %d MB unpacked", files, 2*mb)
	err := a.make(ctx, path)
	return a, err
}

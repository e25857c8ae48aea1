// Package compare tells whether a result of package bench has become worse than an older
// one. It is pure: all it knows is in the two results.
//
// What is counted, and the same each time, is compared as it is. Of what varies, a measure
// has become worse if the one-sided test of Mann and Whitney says so, corrected after Holm
// for how many measures are tested, and if the change is large enough to matter. It is ok if
// it has not, and if a change that nobody may overlook would have been seen. All else is
// inconclusive, with the reason and how many samples it would take.
package compare

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/concourse-ci-machine/concourse-ci-machine/bench"
	"github.com/concourse-ci-machine/concourse-ci-machine/bench/threshold"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/report"
)

// ErrIncomparable marks results that say nothing about each other.
var ErrIncomparable = errors.New("the results cannot be compared")

// Verdict judges a measure, or all of them.
type Verdict string

const (
	OK           Verdict = "ok"
	Regressed    Verdict = "regressed"
	Inconclusive Verdict = "inconclusive"
)

// Options say what counts. The zero value of each field is its default.
type Options struct {
	// Alpha bounds the probability that anything at all is regressed where nothing has
	// changed; 0 is 5 %.
	Alpha float64
	// Effect is the smallest change for the worse that matters, as a share; 0 is 5 %.
	Effect float64
	// Detect is a change that must be seen if it is there: where it would more likely be
	// overlooked than seen, the comparison is inconclusive. 0 is 20 %.
	Detect float64
	// Thresholds are what the new result must reach.
	Thresholds threshold.Thresholds
	// AnyMachine compares results of different machines, too.
	AnyMachine bool
}

// Measure is the comparison of one measure.
type Measure struct {
	Name    string  `json:"measure"`
	Unit    string  `json:"unit"`
	Exact   bool    `json:"exact,omitempty"`
	Old     float64 `json:"old"`
	New     float64 `json:"new"`
	OldN    int     `json:"old_n"`
	NewN    int     `json:"new_n"`
	Worse   float64 `json:"worse"`       // by this share; negative: better
	P       float64 `json:"p,omitempty"` // corrected; of what is not exact
	Verdict Verdict `json:"verdict"`
	Reason  string  `json:"reason,omitempty"`
	// Samples of each that it would take to tell; 0 where that is not known.
	Samples int `json:"samples_needed,omitempty"`

	old, new []float64 // greater is worse
}

// Missed is a threshold that the new result does not reach.
type Missed struct {
	Measure   string  `json:"measure"`
	Threshold string  `json:"threshold"`
	Number    float64 `json:"number"`
	Unit      string  `json:"unit"`
}

// Result is the comparison of two results.
type Result struct {
	Verdict  Verdict   `json:"verdict"` // of all measures; thresholds are apart
	Measures []Measure `json:"measures"`
	Missed   []Missed  `json:"missed"`
	Notes    []string  `json:"notes"`
}

// Results compares two results. The error is ErrIncomparable, or that of a threshold which
// does not fit its measure.
func Results(old, new bench.Report, o Options) (Result, error) {
	o.Alpha, o.Effect, o.Detect = cmp.Or(o.Alpha, 0.05), cmp.Or(o.Effect, 0.05), cmp.Or(o.Detect, 0.2)
	r := Result{Measures: []Measure{}, Missed: []Missed{}, Notes: []string{}}
	if err := check(old, new, o.AnyMachine, &r); err != nil {
		return r, err
	}
	measured := func(rows []bench.Row) map[string]bench.Row {
		byName := map[string]bench.Row{}
		for _, row := range rows {
			if row.Verdict != report.Skipped && len(row.Series) > 0 && len(row.Series[0].Values) > 0 {
				byName[row.Measure] = row
			}
		}
		return byName
	}
	before, after := measured(old.Rows), measured(new.Rows)
	for _, row := range new.Rows {
		if _, there := after[row.Measure]; !there {
			continue
		}
		for _, t := range o.Thresholds.Of(row.Measure) {
			number, ok, err := t.Judge(row.Value, row.Unit, row.Series[0].Values)
			if err != nil {
				return r, err
			}
			if !ok {
				r.Missed = append(r.Missed, Missed{row.Measure, t.String(), number, row.Unit})
			}
		}
		if _, there := before[row.Measure]; !there {
			r.Notes = append(r.Notes, row.Measure+" is in the new result only")
		}
	}
	for _, row := range old.Rows {
		b, there := before[row.Measure]
		if !there {
			continue
		}
		a, there := after[row.Measure]
		if !there {
			r.Measures = append(r.Measures, Measure{Name: row.Measure, Unit: row.Unit, Old: row.Value, OldN: len(b.Series[0].Values),
				Verdict: Inconclusive, Reason: "it is in the old result only"})
			continue
		}
		if a.Unit != b.Unit || a.Exact != b.Exact || a.HigherIsBetter != b.HigherIsBetter {
			return r, fmt.Errorf("%w: %s is another measure in the new result", ErrIncomparable, row.Measure)
		}
		r.Measures = append(r.Measures, measure(b, a))
	}
	judge(r.Measures, o)
	r.Verdict = overall(r.Measures)
	// What is bad comes first, and else the order is that of the result.
	rank := map[Verdict]int{Regressed: 0, Inconclusive: 1, OK: 2}
	slices.SortStableFunc(r.Measures, func(x, y Measure) int { return rank[x.Verdict] - rank[y.Verdict] })
	return r, nil
}

// overall is the verdict of all: nothing is said of nothing.
func overall(all []Measure) Verdict {
	verdict := OK
	for _, m := range all {
		switch {
		case m.Verdict == Regressed:
			return Regressed
		case m.Verdict == Inconclusive:
			verdict = Inconclusive
		}
	}
	if len(all) == 0 {
		return Inconclusive
	}
	return verdict
}

// check says why two results say nothing about each other, and notes what else a
// reader should know.
func check(old, new bench.Report, anyMachine bool, r *Result) error {
	for _, side := range []struct {
		name string
		bench.Report
	}{{"old", old}, {"new", new}} {
		if side.Schema != bench.Schema {
			return fmt.Errorf("%w: the %s one has schema %d, and this program knows %d: measure it again", ErrIncomparable, side.name, side.Schema, bench.Schema)
		}
		if !side.Complete {
			r.Notes = append(r.Notes, "the "+side.name+" result is not complete: it was interrupted, or has failed")
		}
		if side.Build.Dirty {
			r.Notes = append(r.Notes, "the "+side.name+" result is of files that differ from their commit")
		}
		if c := side.Calibration; c.AfterMS > 0 && (c.AfterMS > 1.1*c.BeforeMS || c.BeforeMS > 1.1*c.AfterMS) {
			r.Notes = append(r.Notes, fmt.Sprintf("the machine's speed has changed while the %s result was measured: the same work took %.0f ms before and %.0f ms after", side.name, c.BeforeMS, c.AfterMS))
		}
	}
	if old.MB != new.MB || old.Quick != new.Quick {
		return fmt.Errorf("%w: they are of different work: releases of %d MB (quick: %t) and %d MB (quick: %t)", ErrIncomparable, old.MB, old.Quick, new.MB, new.Quick)
	}
	if differ := differences(old.Machine, new.Machine); len(differ) > 0 {
		text := "they are of different machines: " + strings.Join(differ, ", ")
		if !anyMachine {
			return fmt.Errorf("%w: %s", ErrIncomparable, text)
		}
		r.Notes = append(r.Notes, text)
	}
	if old.Machine.Go != new.Machine.Go {
		r.Notes = append(r.Notes, fmt.Sprintf("they are built by %s and %s", old.Machine.Go, new.Machine.Go))
	}
	return nil
}

// differences tells in what two machines differ, apart from the programs that are measured.
func differences(a, b bench.Machine) (differ []string) {
	for _, part := range []struct {
		name string
		a, b any
	}{
		{"CPU", a.CPU, b.CPU}, {"cores", a.Cores, b.Cores}, {"GiB of memory", (a.MemoryBytes + 1<<29) >> 30, (b.MemoryBytes + 1<<29) >> 30},
		{"kernel", a.Kernel, b.Kernel}, {"disk", a.Disk, b.Disk}, {"tmpfs", a.Tmpfs, b.Tmpfs}, {"Juju", a.Juju, b.Juju}, {"LXD", a.LXD, b.LXD},
	} {
		if part.a != part.b {
			differ = append(differ, fmt.Sprintf("%s %v and %v", part.name, part.a, part.b))
		}
	}
	return differ
}

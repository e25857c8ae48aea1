package bench

import (
	"fmt"

	"github.com/concourse-ci-machine/concourse-ci-machine/bench/threshold"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/report"
)

// Row is one number, most with a limit. Value and Limit are in Unit: "x" for a
// ratio, else "ms", "s", "MiB", "/s" or "" for a count.
type Row struct {
	Experiment string `json:"experiment"`
	// Measure names it for thresholds and comparisons, below its experiment; the same
	// thing has the same one in every version: install.floor_ratio.disk.
	Measure string `json:"measure"`
	Name    string `json:"name"`
	Unit    string `json:"unit"`
	// Value is the median of the samples in Series[0], so that one that something
	// else disturbed decides nothing; or their maximum, see Worst.
	Value float64 `json:"value"`
	// Limit is that of the threshold, 0 if report.Reported.
	Limit          float64 `json:"limit"`
	HigherIsBetter bool    `json:"higher_is_better,omitempty"`
	// Exact is for what is counted, and the same each time: every difference is one.
	Exact bool `json:"exact,omitempty"`
	// Worst makes the maximum the value: of what is counted, where one too many is
	// a fault and never noise.
	Worst   bool           `json:"worst,omitempty"`
	Floor   string         `json:"floor"` // what physics, or the task itself, asks for
	Verdict report.Verdict `json:"verdict"`
	Note    string         `json:"note,omitempty"`
	Series  []Series       `json:"series,omitempty"` // raw samples: of the value, then of what it was made of
}

// of takes the row's value from the samples. The others are kept beside them.
func (row Row) of(samples Series, others ...Series) Row {
	row.Value = samples.Median
	if row.Worst {
		row.Value = samples.Max
	}
	row.Series = append([]Series{samples}, others...)
	return row
}

// skipped is the row if it cannot be measured here.
func (row Row) skipped(why string) Row {
	row.Verdict, row.Note = report.Skipped, why
	return row
}

// judged gives the row its verdict by the thresholds of its measure.
func (row Row) judged(all threshold.Thresholds) (Row, error) {
	if row.Verdict != "" {
		return row, nil
	}
	row.Verdict = report.Reported
	for _, t := range all.Of(row.Measure) {
		number, ok, err := t.Judge(row.Value, row.Unit, row.Series[0].Values)
		if err != nil {
			return row, err
		}
		if row.Verdict == report.Missed {
			continue
		}
		row.Limit, row.Verdict = t.Bound(row.Unit), report.OK
		if !ok {
			row.Verdict = report.Missed
			if t.Statistic != "" {
				row.note("%s is %s", t, Formatted(number, row.Unit))
			}
		}
	}
	return row, nil
}

// busy is a share of the processors that others may use without a miss being
// put down to them.
const busy = 0.1

// under says so where something was missed on a busy machine, unless it is a
// count: a ratio takes its floor in the same minute, but not the same second.
func (row Row) under(l Load) Row {
	if row.Verdict == report.Missed && !row.Worst && l.Others > busy {
		row.note("other processes used %.0f %% of the processors meanwhile: measure again when they do not", 100*l.Others)
	}
	return row
}

// note adds to the row's note.
func (row *Row) note(format string, args ...any) {
	if row.Note != "" {
		row.Note += "; "
	}
	row.Note += fmt.Sprintf(format, args...)
}

package bench

import (
	"fmt"

	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/report"
)

// Row is one number, most with a limit. Value and Limit are in Unit: "x" for a
// ratio, else "ms", "s", "MiB", "/s" or "" for a count.
type Row struct {
	Experiment string `json:"experiment"`
	Name       string `json:"name"`
	Unit       string `json:"unit"`
	// Value is the median of the samples in Series[0], so that one that something
	// else disturbed decides nothing; or their maximum, see Worst.
	Value   float64 `json:"value"`
	Limit   float64 `json:"limit"`              // 0 if report.Reported
	AtLeast bool    `json:"at_least,omitempty"` // the limit is a lower one
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

func (row Row) judged() Row {
	switch {
	case row.Verdict != "":
	case row.AtLeast && row.Value < row.Limit, !row.AtLeast && row.Value > row.Limit:
		row.Verdict = report.Missed
	default:
		row.Verdict = report.OK
	}
	return row
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

package bench

import (
	"fmt"
	"io"
	"time"

	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/report"
)

// Markdown writes the report as a document that is readable as it is too.
func (r Report) Markdown(w io.Writer) error {
	m := r.Machine
	kind := ""
	if r.Quick {
		kind = ", quick"
	}
	fmt.Fprintf(w, "# Coordinator, measured %s\n\n", r.Started.Format(time.RFC3339))
	fmt.Fprintf(w, "%d x %s, %.0f GiB, Linux %s, %s; volumes on %s and %s.\n", m.Cores, m.CPU, float64(m.MemoryBytes)/(1<<30), m.Kernel, m.Go, m.Disk, m.Tmpfs)
	fmt.Fprintf(w, "Archive of %d MB, %d samples each%s; %.0f s in all.\n\n", r.MB, r.Samples, kind, r.TookSeconds)

	rows := [][]string{{"what", "value", "limit", "verdict", "n", "min / median / max", "floor"}}
	for _, row := range r.Rows {
		line := []string{row.Name, "", row.bound(), string(row.Verdict), "", "", row.Floor}
		if row.Verdict != report.Skipped {
			s := row.Series[0]
			line[1] = Formatted(row.Value, row.Unit)
			line[4] = fmt.Sprint(s.N)
			line[5] = fmt.Sprintf("%s / %s / %s", Formatted(s.Min, s.Unit), Formatted(s.Median, s.Unit), Formatted(s.Max, s.Unit))
		}
		rows = append(rows, line)
	}
	if err := report.MarkdownTable(w, rows); err != nil {
		return err
	}
	fmt.Fprintln(w)
	fmt.Fprint(w, "- A value is the median of its samples; of what is counted it is the maximum.\n")
	if r.Samples < EnoughSamples {
		fmt.Fprintf(w, "- %d samples are few: with less than %d one that was disturbed may decide.\n", r.Samples, EnoughSamples)
	}
	if r.Quick {
		fmt.Fprint(w, "- The limits are meant for a release of 600 MB: with a small one, what is done once weighs more.\n")
	}
	for _, row := range r.Rows {
		if row.Note != "" {
			fmt.Fprintf(w, "- %s: %s.\n", row.Name, row.Note)
		}
	}

	fmt.Fprint(w, "\n## Samples\n\n")
	rows = [][]string{{"what", "of", "n", "min", "median", "max"}}
	for _, row := range r.Rows {
		for _, s := range row.Series {
			if len(row.Series) == 1 {
				continue // the row above says it
			}
			rows = append(rows, []string{row.Name, s.Name, fmt.Sprint(s.N), Formatted(s.Min, s.Unit), Formatted(s.Median, s.Unit), Formatted(s.Max, s.Unit)})
		}
	}
	if err := report.MarkdownTable(w, rows); err != nil {
		return err
	}

	fmt.Fprint(w, "\n## What else the machine did\n\n")
	rows = [][]string{{"experiment", "took", "load before", "load after", "processors used by others"}}
	for _, l := range r.Load {
		rows = append(rows, []string{l.Experiment, Formatted(l.TookSeconds, "s"), fmt.Sprintf("%.2f", l.Before), fmt.Sprintf("%.2f", l.After), fmt.Sprintf("%.0f %%", 100*l.Others)})
	}
	return report.MarkdownTable(w, rows)
}

// bound is the row's limit as it is printed.
func (row Row) bound() string {
	switch {
	case row.Limit == 0:
		return "none"
	case row.HigherIsBetter:
		return ">= " + Formatted(row.Limit, row.Unit)
	}
	return "<= " + Formatted(row.Limit, row.Unit)
}

// Formatted is a number of a row, or of a series, in its unit.
func Formatted(v float64, unit string) string {
	switch unit {
	case "":
		return fmt.Sprintf("%.0f", v)
	case "x":
		return fmt.Sprintf("%.2f x", v)
	}
	return fmt.Sprintf("%.1f %s", v, unit)
}

package report

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
)

// WriteText writes the report as an aligned table for a terminal.
func (r *Report) WriteText(w io.Writer) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n\n", r.Headline())
	t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "phase\ttook\ttarget\tverdict")
	for _, p := range r.Phases {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", p.Name, p.Took.Round(100*time.Millisecond), p.target(), p.Verdict)
	}
	fmt.Fprintln(t, "\t\t\t")
	for _, f := range r.Facts {
		fmt.Fprintf(t, "%s\t%s\n", f.Name, f.Value)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// WriteMarkdown writes the report for a job's summary or an issue: what failed comes
// first.
func (r *Report) WriteMarkdown(w io.Writer) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	var b strings.Builder
	fmt.Fprintf(&b, "## %s\n\n", r.Headline())
	if r.Proves != "" {
		fmt.Fprintf(&b, "%s\n\n", r.Proves)
	}
	for _, text := range r.Failures {
		fmt.Fprintf(&b, "%s\n\n", fenced(text))
	}
	if len(r.Failures) > 0 {
		fmt.Fprintf(&b, "Evidence: `%s`. Run it again:\n\n%s\n\n", r.Evidence, fenced(r.Again))
	}
	phases := [][]string{{"phase", "took", "target", "verdict"}}
	for _, p := range r.Phases {
		phases = append(phases, []string{p.Name, p.Took.Round(100 * time.Millisecond).String(), p.target(), string(p.Verdict)})
	}
	facts := [][]string{{"fact", "value"}}
	for _, f := range r.Facts {
		facts = append(facts, []string{f.Name, f.Value})
	}
	for _, rows := range [][][]string{phases, facts} {
		if len(rows) == 1 {
			continue
		}
		if err := MarkdownTable(&b, rows); err != nil {
			return err
		}
		b.WriteString("\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// MarkdownTable writes rows, the first of which are the headings, as a table that is
// readable as it is, too.
func MarkdownTable(w io.Writer, rows [][]string) error {
	t := tabwriter.NewWriter(w, 0, 0, 1, ' ', 0)
	for i, row := range rows {
		for _, text := range row {
			fmt.Fprintf(t, "| %s\t", cell(text))
		}
		fmt.Fprintln(t, "|")
		if i == 0 {
			fmt.Fprintf(t, "%s|\n", strings.Repeat("| ---\t", len(row)))
		}
	}
	return t.Flush()
}

// Headline is a report in one line.
func (r *Report) Headline() string {
	line := r.Title()
	if r.Verdict != "" {
		line += ": " + string(r.Verdict)
	}
	if r.Reason != "" {
		line += " (" + r.Reason + ")"
	}
	if r.Verdict == Skipped {
		return line
	}
	return line + ", " + r.Took.Round(time.Second).String()
}

// cell is a text that cannot end its cell of a table.
func cell(text string) string {
	return strings.NewReplacer("|", "\\|", "\r", "", "\n", " ").Replace(text)
}

// fenced is a text as it is. The fence is longer than any in the text.
func fenced(text string) string {
	fence := "```"
	for strings.Contains(text, fence) {
		fence += "`"
	}
	return fence + "\n" + strings.TrimRight(text, "\n") + "\n" + fence
}

package report

import (
	"encoding/xml"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
)

// All are the reports of a run of the suite, in its order.
type All []*Report

// Count returns how many scenarios have a verdict.
func (a All) Count(v Verdict) (n int) {
	for _, r := range a {
		if r.Verdict == v {
			n++
		}
	}
	return n
}

// WriteText writes one line a scenario and repeats what failed: its text, where its
// evidence is and how to run it again. It comes last, where one looks.
func (a All) WriteText(w io.Writer) error {
	var b strings.Builder
	t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	for _, r := range a {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", r.Title(), r.Verdict, r.Took.Round(time.Second), r.Reason)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, r := range a {
		if r.Verdict != Broken {
			continue
		}
		fmt.Fprintf(&b, "\nFAILED %s\n", r.Title())
		for _, text := range r.Failures {
			fmt.Fprintf(&b, "  %s\n", strings.ReplaceAll(strings.TrimSpace(text), "\n", "\n  "))
		}
		if r.Evidence != "" {
			fmt.Fprintf(&b, "  evidence: %s\n", r.Evidence)
		}
		fmt.Fprintf(&b, "  run it again: %s\n", r.Again)
	}
	fmt.Fprintf(&b, "\n%s\n", a.counts())
	_, err := io.WriteString(w, b.String())
	return err
}

// counts says how many of which verdict there are.
func (a All) counts() string {
	counts := []string{fmt.Sprintf("%d scenarios", len(a))}
	for _, v := range []Verdict{OK, Broken, Known, Skipped} {
		if n := a.Count(v); n > 0 {
			counts = append(counts, fmt.Sprintf("%d %s", n, v))
		}
	}
	return strings.Join(counts, ", ")
}

// WriteMarkdown writes all reports for a job's summary: those that failed first and
// whole, the others folded.
func (a All) WriteMarkdown(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "# %s\n\n", a.counts())
	for _, r := range a {
		if r.Verdict == Broken {
			if err := r.WriteMarkdown(&b); err != nil {
				return err
			}
		}
	}
	for _, r := range a {
		if r.Verdict == Broken {
			continue
		}
		fmt.Fprintf(&b, "<details><summary>%s</summary>\n\n", r.Headline())
		if err := r.WriteMarkdown(&b); err != nil {
			return err
		}
		b.WriteString("</details>\n\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// The elements of a JUnit file that CI systems read.
type (
	junitSuites struct {
		XMLName xml.Name     `xml:"testsuites"`
		Suites  []junitSuite `xml:"testsuite"`
	}
	junitSuite struct {
		Name     string      `xml:"name,attr"`
		Tests    int         `xml:"tests,attr"`
		Failures int         `xml:"failures,attr"`
		Skipped  int         `xml:"skipped,attr"`
		Time     string      `xml:"time,attr"`
		Cases    []junitCase `xml:"testcase"`
	}
	junitCase struct {
		Class   string        `xml:"classname,attr"`
		Name    string        `xml:"name,attr"`
		Time    string        `xml:"time,attr"`
		Failure *junitMessage `xml:"failure"`
		Skipped *junitMessage `xml:"skipped"`
		Out     string        `xml:"system-out,omitempty"`
	}
	junitMessage struct {
		Message string `xml:"message,attr"`
		Text    string `xml:",chardata"`
	}
)

// WriteJUnit writes a JUnit file. It has no word for a failure that is known; such a
// scenario counts as skipped and says why.
func (a All) WriteJUnit(w io.Writer) error {
	suite := junitSuite{
		Name: "scenarios", Tests: len(a),
		Failures: a.Count(Broken), Skipped: a.Count(Skipped) + a.Count(Known),
	}
	var took time.Duration
	for _, r := range a {
		var text strings.Builder
		if err := r.WriteText(&text); err != nil {
			return err
		}
		c := junitCase{Class: strings.TrimSuffix("e2e."+r.Group, "."), Name: r.Title(), Time: seconds(r.Took), Out: text.String()}
		switch r.Verdict {
		case Broken:
			all := strings.Join(r.Failures, "\n\n")
			first, _, _ := strings.Cut(strings.TrimSpace(all), "\n")
			c.Failure = &junitMessage{first, fmt.Sprintf("%s\n\nevidence: %s\nrun it again: %s\n", all, r.Evidence, r.Again)}
		case Skipped:
			c.Skipped = &junitMessage{Message: r.Reason}
		case Known:
			c.Skipped = &junitMessage{"it fails as is known: " + r.Reason, strings.Join(r.Failures, "\n\n")}
		}
		suite.Cases = append(suite.Cases, c)
		took += r.Took
	}
	suite.Time = seconds(took)
	raw, err := xml.MarshalIndent(junitSuites{Suites: []junitSuite{suite}}, "", "  ")
	if err != nil {
		return fmt.Errorf("cannot write a JUnit file: %w", err)
	}
	_, err = fmt.Fprintf(w, "%s%s\n", xml.Header, raw)
	return err
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.3f", d.Seconds()) }

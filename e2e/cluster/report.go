package cluster

import (
	"fmt"
	"io"
	"slices"
	"sync"
	"text/tabwriter"
	"time"
)

// Verdict judges a phase.
type Verdict string

const (
	OK     Verdict = "ok"
	Slow   Verdict = "slow" // it ended well but took longer than its target
	Broken Verdict = "failed"
)

// Phase is a timed part of a scenario.
type Phase struct {
	Name    string        `json:"name"`
	Took    time.Duration `json:"took_ns"`
	Target  time.Duration `json:"target_ns,omitempty"` // 0: none is set
	Verdict Verdict       `json:"verdict"`
}

// Fact is a measured or proven property.
type Fact struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Report is what a scenario has measured. Marshalled as JSON it is the raw
// form; WriteText and WriteMarkdown are for people. Methods may be called
// concurrently.
type Report struct {
	Scenario string        `json:"scenario"`
	Started  time.Time     `json:"started"`
	Took     time.Duration `json:"took_ns"`
	Phases   []Phase       `json:"phases"`
	Facts    []Fact        `json:"facts"`

	mu sync.Mutex
}

// NewReport starts the clock of a scenario.
func NewReport(scenario string) *Report {
	return &Report{Scenario: scenario, Started: time.Now()}
}

// Time runs a phase and records how long it took. A target of 0 is none.
func (r *Report) Time(name string, target time.Duration, run func() error) error {
	start := time.Now()
	err := run()
	r.Add(name, time.Since(start), target, err)
	return err
}

// Add records a phase that was timed elsewhere.
func (r *Report) Add(name string, took, target time.Duration, err error) {
	p := Phase{Name: name, Took: took, Target: target, Verdict: OK}
	switch {
	case err != nil:
		p.Verdict = Broken
	case target > 0 && took > target:
		p.Verdict = Slow
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.Phases = append(r.Phases, p)
	r.Took = time.Since(r.Started)
}

// Note records a fact, in place of an earlier one of that name.
func (r *Report) Note(name, format string, args ...any) {
	fact := Fact{name, fmt.Sprintf(format, args...)}
	r.mu.Lock()
	defer r.mu.Unlock()
	if i := slices.IndexFunc(r.Facts, func(f Fact) bool { return f.Name == name }); i >= 0 {
		r.Facts[i] = fact
		return
	}
	r.Facts = append(r.Facts, fact)
}

// Missed returns the phases that failed or took longer than their target.
func (r *Report) Missed() []Phase {
	r.mu.Lock()
	defer r.mu.Unlock()
	var missed []Phase
	for _, p := range r.Phases {
		if p.Verdict != OK {
			missed = append(missed, p)
		}
	}
	return missed
}

// WriteText writes the report as an aligned table for a terminal.
func (r *Report) WriteText(w io.Writer) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	fmt.Fprintf(w, "%s: %s\n\n", r.Scenario, r.Took.Round(time.Second))
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "phase\ttook\ttarget\tverdict")
	for _, p := range r.Phases {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", p.Name, p.Took.Round(100*time.Millisecond), p.target(), p.Verdict)
	}
	fmt.Fprintln(t, "\t\t\t")
	for _, f := range r.Facts {
		fmt.Fprintf(t, "%s\t%s\n", f.Name, f.Value)
	}
	return t.Flush()
}

// WriteMarkdown writes the report for a job summary or an issue.
func (r *Report) WriteMarkdown(w io.Writer) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	fmt.Fprintf(w, "## %s: %s\n\n| phase | took | target | verdict |\n| --- | ---: | ---: | --- |\n", r.Scenario, r.Took.Round(time.Second))
	for _, p := range r.Phases {
		fmt.Fprintf(w, "| %s | %s | %s | %s |\n", p.Name, p.Took.Round(100*time.Millisecond), p.target(), p.Verdict)
	}
	fmt.Fprint(w, "\n| fact | value |\n| --- | --- |\n")
	for _, f := range r.Facts {
		fmt.Fprintf(w, "| %s | %s |\n", f.Name, f.Value)
	}
	_, err := fmt.Fprintln(w)
	return err
}

func (p Phase) target() string {
	if p.Target == 0 {
		return "-"
	}
	return "< " + p.Target.String()
}

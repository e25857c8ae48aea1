// Package report is what is told of scenarios: how long their phases took, what was
// measured, what failed, and how to run one of them again.
package report

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// Verdict judges a phase, a scenario, or a number of a benchmark.
type Verdict string

const (
	OK       Verdict = "ok"
	Missed   Verdict = "missed"   // it ended well, but not within its target or limit
	Broken   Verdict = "failed"   // it did not end well
	Skipped  Verdict = "skipped"  // it could not run here
	Known    Verdict = "known"    // a scenario that failed as it must today
	Reported Verdict = "reported" // a number that has no limit
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

// Report is what is known of one run of a scenario. Marshalled as JSON it is the raw
// form; WriteText and WriteMarkdown are for people. Methods may be called concurrently.
type Report struct {
	Scenario string        `json:"scenario"`
	Sample   int           `json:"sample,omitempty"` // its number where a scenario is run several times; 0 where once
	Group    string        `json:"group,omitempty"`
	Proves   string        `json:"proves,omitempty"` // what is true if it passes
	Started  time.Time     `json:"started"`
	Took     time.Duration `json:"took_ns"`
	Verdict  Verdict       `json:"verdict"` // of the scenario; empty until End
	// Reason says why a scenario was skipped, or what is missing for one whose failure
	// is known.
	Reason   string   `json:"reason,omitempty"`
	Failures []string `json:"failures,omitempty"`
	Phases   []Phase  `json:"phases"`
	Facts    []Fact   `json:"facts"`
	Evidence string   `json:"evidence,omitempty"` // folder with what explains a failure
	Again    string   `json:"again,omitempty"`    // command that runs it again

	// Show, if it is set before the first phase, is called when a phase begins and when
	// it has ended, with a line that says so.
	Show func(line string) `json:"-"`

	mu      sync.Mutex
	running []running
	ended   time.Time // when the newest phase was
}

// running is a phase that has not ended.
type running struct {
	name  string
	start time.Time
}

// New starts the clock of a scenario.
func New(scenario string) *Report {
	now := time.Now()
	return &Report{Scenario: scenario, Started: now, ended: now}
}

// Title names the scenario, and its sample where there are several: auto#2.
func (r *Report) Title() string {
	if r.Sample == 0 {
		return r.Scenario
	}
	return fmt.Sprintf("%s#%d", r.Scenario, r.Sample)
}

// Slow tells whether nothing is wrong with the scenario but phases that took longer than
// their targets.
func (r *Report) Slow() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	// End has added a phase that failed for every failure that is not of a slow one.
	has := func(v Verdict) bool {
		return slices.ContainsFunc(r.Phases, func(p Phase) bool { return p.Verdict == v })
	}
	return r.Verdict == Broken && has(Missed) && !has(Broken)
}

// Time runs a phase and records how long it took, also when the phase ends the goroutine,
// as an assertion that fails does. A target of 0 is none.
func (r *Report) Time(name string, target time.Duration, run func() error) (err error) {
	r.Begin(name)
	this := running{name, time.Now()}
	r.mu.Lock()
	r.running = append(r.running, this)
	r.mu.Unlock()
	err = fmt.Errorf("%s did not end", name)
	defer func() {
		r.mu.Lock()
		r.running = slices.DeleteFunc(r.running, func(other running) bool { return other == this })
		r.mu.Unlock()
		r.Add(name, time.Since(this.start), target, err)
	}()
	err = run()
	return err
}

// Begin shows that a phase begins, and records nothing.
func (r *Report) Begin(name string) { r.show("%s", name) }

// Add records a phase that was timed elsewhere.
func (r *Report) Add(name string, took, target time.Duration, err error) {
	p := Phase{Name: name, Took: took, Target: target, Verdict: OK}
	switch {
	case err != nil:
		p.Verdict = Broken
	case target > 0 && took > target:
		p.Verdict = Missed
	}
	r.mu.Lock()
	if r.Verdict != "" {
		r.mu.Unlock()
		return
	}
	r.Phases = append(r.Phases, p)
	r.ended = time.Now()
	r.Took = r.ended.Sub(r.Started)
	r.mu.Unlock()
	r.show("%s: %s", name, p.summary())
}

// Note records a fact, in place of an earlier one of that name.
func (r *Report) Note(name, format string, args ...any) {
	fact := Fact{name, fmt.Sprintf(format, args...)}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.Verdict != "" {
		return
	}
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

// End gives the scenario its verdict; phases and facts that come later, from one that
// was left behind, are ignored. A phase that still runs has failed. One that failed
// outside of its phases gets a phase that says after which: a report always shows where.
func (r *Report) End(v Verdict, failures []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	r.Verdict, r.Failures, r.Took = v, failures, now.Sub(r.Started)
	for _, phase := range r.running {
		r.Phases = append(r.Phases, Phase{Name: phase.name, Took: now.Sub(phase.start), Verdict: Broken})
	}
	slow := 0 // each is a failure of its own
	for _, p := range r.Phases {
		switch p.Verdict {
		case Broken:
			return
		case Missed:
			slow++
		}
	}
	if len(failures) <= slow {
		return
	}
	name := "before the first phase"
	if n := len(r.Phases); n > 0 {
		name = "after: " + r.Phases[n-1].Name
	}
	r.Phases = append(r.Phases, Phase{Name: name, Took: now.Sub(r.ended), Verdict: Broken})
}

// Clean replaces every text of the report by what clean makes of it.
func (r *Report) Clean(clean func(string) string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.Reason = clean(r.Reason)
	for i := range r.Failures {
		r.Failures[i] = clean(r.Failures[i])
	}
	for i := range r.Phases {
		r.Phases[i].Name = clean(r.Phases[i].Name)
	}
	for i := range r.Facts {
		r.Facts[i] = Fact{clean(r.Facts[i].Name), clean(r.Facts[i].Value)}
	}
}

// Save writes the report into a folder, as report.json and report.md.
func (r *Report) Save(dir string) error {
	r.mu.Lock()
	raw, err := json.MarshalIndent(r, "", "  ")
	r.mu.Unlock()
	if err != nil {
		return fmt.Errorf("cannot save the report of %s: %w", r.Scenario, err)
	}
	var markdown strings.Builder
	if err := r.WriteMarkdown(&markdown); err != nil {
		return err
	}
	for name, content := range map[string]string{"report.json": string(raw) + "\n", "report.md": markdown.String()} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			return fmt.Errorf("cannot save the report of %s: %w", r.Scenario, err)
		}
	}
	return nil
}

func (r *Report) show(format string, args ...any) {
	if r.Show != nil {
		r.Show(fmt.Sprintf(format, args...))
	}
}

// summary is a phase in a few words.
func (p Phase) summary() string {
	took := p.Took.Round(100 * time.Millisecond).String()
	switch {
	case p.Verdict == OK && p.Target == 0:
		return took
	case p.Target == 0:
		return fmt.Sprintf("%s, %s", took, p.Verdict)
	}
	return fmt.Sprintf("%s, %s (target %s)", took, p.Verdict, p.Target)
}

func (p Phase) target() string {
	if p.Target == 0 {
		return "-"
	}
	return "< " + p.Target.String()
}

package certify

import (
	"fmt"
	"io"
	"strings"
	"time"
)

// Schema is the version of Report as JSON. It grows when the meaning of a field changes.
const Schema = 1

// Verdict is what became of a check.
type Verdict string

const (
	OK      Verdict = "ok"
	Failed  Verdict = "failed"
	NotTold Verdict = "not told" // it was not made, or has not ended
)

// Check is one thing that was tried.
type Check struct {
	Name    string  `json:"name"`
	Proves  string  `json:"proves"` // one sentence
	Verdict Verdict `json:"verdict"`
	// Needed: a mount on which it fails is not fit. Without the others a release can be
	// shared all the same, at a price that Means tells.
	Needed  bool    `json:"needed"`
	Seconds float64 `json:"seconds"` // it took
	Found   string  `json:"found,omitempty"`
	Means   string  `json:"means,omitempty"` // of a failed one, for the operator, and what to do
}

// Report is the result of a Run.
type Report struct {
	Schema     int       `json:"schema"`
	Path       string    `json:"path"`
	FileSystem string    `json:"file_system,omitempty"`
	Mount      string    `json:"mount,omitempty"` // what is mounted, and with which options
	Machines   int       `json:"machines"`        // that were to take part
	Hosts      []string  `json:"hosts,omitempty"` // of those that have met
	Started    time.Time `json:"started"`
	// Complete: all checks have been made, or were left out for one that failed.
	Complete bool `json:"complete"`
	Fit      bool `json:"fit"`
	// Verdict is a line for people: "fit", "fit, but: ...", "not fit: ..." or "not told: ...".
	Verdict     string   `json:"verdict"`
	Checks      []Check  `json:"checks"`
	NotChecked  []string `json:"not_checked"` // what a fit mount can still lack
	TookSeconds float64  `json:"took_seconds"`
}

// judge draws the conclusion from the checks. ended: nothing was broken off.
func (r *Report) judge(ended bool) {
	var unfit, lacks []string
	for _, c := range r.Checks {
		switch {
		case c.Verdict == Failed && c.Needed:
			unfit = append(unfit, c.Name)
		case c.Verdict == Failed:
			lacks = append(lacks, c.Name)
		}
	}
	r.Complete = ended
	r.Fit = ended && len(unfit) == 0
	switch {
	case len(unfit) > 0:
		r.Verdict = "not fit: " + strings.Join(unfit, ", ")
	case !ended:
		r.Verdict = "not told: the checks were broken off"
	case len(lacks) > 0:
		r.Verdict = "fit, but: " + strings.Join(lacks, ", ")
	default:
		r.Verdict = "fit"
	}
	r.NotChecked = []string{"a power cut of the file server: that what was synced survives it"}
	if r.Machines < 2 {
		r.NotChecked = append(r.NotChecked, "another machine: locks, names and installing between machines; run it there, too, with --machines")
	}
	r.NotChecked = append(r.NotChecked, "speed, and how it behaves when the file server is gone for a while")
}

// Print writes what follows the lines of the checks.
func (r Report) Print(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "\n%s: %s\n", r.Path, r.Verdict)
	if r.Mount != "" {
		fmt.Fprintf(&b, "  mounted: %s\n", r.Mount)
	}
	for _, c := range r.Checks {
		if c.Verdict == Failed {
			fmt.Fprintf(&b, "  %s: %s\n", c.Name, c.Means)
		}
	}
	fmt.Fprint(&b, "not checked:\n")
	for _, n := range r.NotChecked {
		fmt.Fprintf(&b, "  %s\n", n)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// String is a line about a check.
func (c Check) String() string {
	line := fmt.Sprintf("%-8s  %-24s %6.1f s  %s", c.Verdict, c.Name, c.Seconds, c.Proves)
	if c.Found != "" {
		line += " (" + c.Found + ")"
	}
	return line
}

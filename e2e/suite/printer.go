package suite

import (
	"fmt"
	"io"
	"regexp"
	"strings"
	"sync"
	"time"
)

// printer says what happens, in three levels: the scenario, its phases, and what is
// observed in them. Each line begins with the time of day. Secrets are not printed.
type printer struct {
	w      io.Writer
	column string // begins each line after the time; empty where one scenario runs at a time

	mu     sync.Mutex
	known  func() map[string]string // secrets; nil while there are none
	closed bool
}

func newPrinter(w io.Writer) *printer { return &printer{w: w} }

// name has each line name the scenario, in a column of that width: several print at once.
func (p *printer) name(scenario string, width int) {
	p.column = fmt.Sprintf("%-*s  ", width, scenario)
}

// The indentation of the levels.
const (
	phaseIndent       = "  "
	observationIndent = "    "
)

func (p *printer) scenario(format string, args ...any) { p.print("", fmt.Sprintf(format, args...)) }
func (p *printer) phase(line string)                   { p.print(phaseIndent, line) }
func (p *printer) observation(text string)             { p.print(observationIndent, text) }

// clock is how waits begin their lines.
var clock = regexp.MustCompile(`^\d\d:\d\d:\d\d `)

// print prints a text of one level. Its further lines are indented as its first one is.
func (p *printer) print(indent, text string) {
	now := time.Now().Format(time.TimeOnly) + " "
	if said := clock.FindString(text); said != "" {
		now, text = said, text[len(said):]
	}
	further := "\n" + strings.Repeat(" ", len(now)) + p.column + indent + "  "
	p.write(now + p.column + indent + strings.ReplaceAll(p.cleaned(strings.TrimRight(text, "\n")), "\n", further) + "\n")
}

// block prints lines that have no time, after an empty one.
func (p *printer) block(text string) {
	begin := ""
	if p.column != "" {
		begin = strings.Repeat(" ", len(time.TimeOnly)+1) + p.column
	}
	var b strings.Builder
	for line := range strings.Lines("\n" + p.cleaned(strings.TrimRight(text, "\n")) + "\n") {
		b.WriteString(strings.TrimRight(begin+line, " \n") + "\n")
	}
	p.write(b.String())
}

// write writes whole lines at once: nobody else's come between them.
func (p *printer) write(text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.closed {
		_, _ = io.WriteString(p.w, text) // There is nowhere to complain.
	}
}

// secrets has all that is printed from now on freed from what the function returns.
func (p *printer) secrets(known func() map[string]string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.known = known
}

// cleaned returns the text without secrets.
func (p *printer) cleaned(text string) string {
	p.mu.Lock()
	known := p.known
	p.mu.Unlock()
	if known == nil {
		return text
	}
	return redact(text, known())
}

// close ends the printing: whoever was left behind must not write to a test that has
// ended.
func (p *printer) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
}

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
	mu     sync.Mutex
	w      io.Writer
	known  func() map[string]string // secrets; nil while there are none
	closed bool
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
	further := "\n" + strings.Repeat(" ", len(now)) + indent + "  "
	p.plain(now + indent + strings.ReplaceAll(strings.TrimRight(text, "\n"), "\n", further) + "\n")
}

// plain prints a text as it is.
func (p *printer) plain(text string) {
	text = p.cleaned(text)
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

package suite

import (
	"regexp"
	"strings"
)

// label begins a part of what a failed assertion of testify says, which comes as a table:
// labels on the left, and lines that belong to the label above.
var label = regexp.MustCompile(`^\s*(Error Trace|Error|Test|Messages):\s*`)

// plain turns the table of a failed assertion into a sentence: what it was about, what was
// wrong, and where. What is no such table stays as it is. A report that is cut off keeps
// its reasons so.
func plain(text string) string {
	parts, current := map[string][]string{}, ""
	for line := range strings.Lines(text) {
		if found := label.FindStringSubmatch(line); found != nil {
			current, line = found[1], line[len(found[0]):]
		}
		if line = strings.TrimSpace(line); line != "" {
			parts[current] = append(parts[current], line)
		}
	}
	trace := parts["Error Trace"]
	if len(trace) == 0 || len(parts["Error"]) == 0 || len(parts[""]) > 0 {
		return text
	}
	said := strings.Join(parts["Error"], "\n")
	said = strings.TrimPrefix(said, "Received unexpected error:\n")
	if about := strings.Join(parts["Messages"], " "); about != "" {
		said = about + ": " + said
	}
	return said + " (" + trace[0][strings.LastIndex(trace[0], "/")+1:] + ")"
}

package concourse

import (
	"encoding/json"
	"net/url"
	"regexp"
	"strconv"
	"strings"
)

// saysWhy matches a line in which a program says what is wrong. Concourse's list of what
// ended with what names the causes among many lines without one.
var saysWhy = regexp.MustCompile(`(^|\b)(error|panic): .*[^:\s]\s*$`)

// lastWords reads the journal of a unit, as journalctl prints it in JSON. What systemd has
// written about the unit does not count, but why it could not start it.
func lastWords(journal string) (words string) {
	why := false
	for line := range strings.Lines(journal) {
		var entry struct {
			Message string `json:"MESSAGE"`
			By      string `json:"SYSLOG_IDENTIFIER"`
		}
		// A message that is no text is an array.
		if json.Unmarshal([]byte(line), &entry) != nil || entry.By == "systemd" || strings.TrimSpace(entry.Message) == "" {
			continue
		}
		text, wrong := readLogLine(entry.Message)
		if wrong || !why {
			words, why = text, why || wrong
		}
	}
	return words
}

// readLogLine reduces a line of Concourse's log to its message and its error, and tells
// whether the line says what is wrong.
func readLogLine(line string) (text string, wrong bool) {
	var record struct {
		Level   string `json:"level"`
		Message string `json:"message"`
		Data    struct {
			Error string `json:"error"`
		} `json:"data"`
	}
	if json.Unmarshal([]byte(line), &record) != nil || record.Message == "" {
		return line, saysWhy.MatchString(line)
	}
	if record.Data.Error != "" {
		record.Message += ": " + record.Data.Error
	}
	return record.Message, record.Level == "error" || record.Level == "fatal"
}

// longestWords is how much of a service's last words a status has room for.
const longestWords = 150

// shortestSecret is longer than words such as true and false, which options may have.
const shortestSecret = 6

// Quote makes one short line of what a service has written, without the secrets that it
// may have repeated.
func Quote(words string, secrets ...string) string {
	for _, secret := range secrets {
		for line := range strings.Lines(secret) { // a key has many
			line = strings.TrimSpace(line)
			if len(line) < shortestSecret {
				continue
			}
			quoted := strconv.Quote(line)
			for _, form := range []string{line, quoted[1 : len(quoted)-1], url.QueryEscape(line)} {
				words = strings.ReplaceAll(words, form, "REDACTED")
			}
		}
	}
	words = strings.Join(strings.Fields(words), " ")
	if len(words) > longestWords {
		words = strings.ToValidUTF8(words[:longestWords], "") + "..."
	}
	return words
}

package juju

import (
	"bytes"
	"encoding/json"
	"regexp"
	"slices"
	"strings"
	"sync"
)

// Redact makes Collect leave out these values, besides the private keys that it knows by
// their looks. Of a value with several lines each line is left out: logs put words of
// their own between.
func (c *Cluster) Redact(secrets ...string) { c.secrets.add(secrets...) }

const redacted = "[redacted]"

// redactor leaves secrets out of evidence. The zero value knows private keys only.
type redactor struct {
	mu     sync.Mutex
	values []string // longest first, so that none is hidden in part by another
}

// shortest is the length of the shortest value that is left out: shorter ones are found
// everywhere.
const shortest = 4

func (r *redactor) add(secrets ...string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, secret := range secrets {
		for _, line := range append(strings.Split(secret, "\n"), secret) {
			line = strings.TrimSpace(line)
			// What frames a key is no secret.
			if len(line) < shortest || line != secret && strings.HasPrefix(line, "-----") {
				continue
			}
			r.values = append(r.values, line)
			if quoted, err := json.Marshal(line); err == nil {
				r.values = append(r.values, strings.Trim(string(quoted), `"`))
			}
		}
	}
	slices.SortFunc(r.values, func(a, b string) int {
		if len(a) != len(b) {
			return len(b) - len(a)
		}
		return strings.Compare(a, b)
	})
	r.values = slices.Compact(r.values)
}

func (r *redactor) redact(text []byte) []byte {
	text = redactKeys(text)
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, value := range r.values {
		text = bytes.ReplaceAll(text, []byte(value), []byte(redacted))
	}
	return text
}

var (
	keyBegin = regexp.MustCompile(`-----BEGIN [A-Z ]*PRIVATE KEY-----`)
	keyEnd   = regexp.MustCompile(`-----END [A-Z ]*PRIVATE KEY-----`)
	// keyText is what a line of a key has that other text seldom has.
	keyText = regexp.MustCompile(`[A-Za-z0-9+/]{40,}={0,2}`)
)

// keySize is more than a private key of any kind takes, with what a log puts before each
// of its lines.
const keySize = 16 << 10

// redactKeys leaves out the bodies of private keys in PEM form, whether their lines are
// lines or written as in JSON. Of a key whose begin or end was cut off, it leaves out what
// looks like its lines near the other one.
func redactKeys(text []byte) []byte {
	var out []byte
	for {
		begin, end := keyBegin.FindIndex(text), keyEnd.FindIndex(text)
		switch {
		case begin == nil && end == nil:
			return append(out, text...)
		case end != nil && (begin == nil || end[0] < begin[0]): // no begin
			from := max(0, end[0]-keySize)
			out = append(out, text[:from]...)
			out = append(out, keyText.ReplaceAll(text[from:end[0]], []byte(redacted))...)
			out = append(out, text[end[0]:end[1]]...)
			text = text[end[1]:]
		case end != nil && end[0]-begin[1] <= keySize && keyBegin.FindIndex(text[begin[1]:end[0]]) == nil:
			out = append(out, text[:begin[1]]...)
			out = append(out, redacted...)
			out = append(out, text[end[0]:end[1]]...)
			text = text[end[1]:]
		default: // no end
			to := min(len(text), begin[1]+keySize)
			if next := keyBegin.FindIndex(text[begin[1]:to]); next != nil {
				to = begin[1] + next[0]
			}
			out = append(out, text[:begin[1]]...)
			out = append(out, keyText.ReplaceAll(text[begin[1]:to], []byte(redacted))...)
			text = text[to:]
		}
	}
}

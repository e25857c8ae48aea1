package judge

import (
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/cluster"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/observation"
)

var secretRules = []Rule{
	{Name: "no-secret", Promise: "No secret is in the log, in a status or anywhere on a machine but in its own files.", Broken: leakedSecrets},
	{Name: "no-private-key", Promise: "No private key is in the log or in a status.", Broken: leakedKeys},
}

// telling is the shortest text that is looked for: a shorter one is found everywhere.
const telling = 8

// leakedSecrets never repeats what it has found.
func leakedSecrets(r observation.Record) []string {
	var f findings
	// A log has a line for each line of a secret.
	parts := map[string]string{}
	collect := func(secrets map[string]string, whose string) {
		for _, what := range slices.Sorted(maps.Keys(secrets)) {
			for line := range strings.Lines(secrets[what]) {
				line = strings.TrimSpace(line)
				if _, known := parts[line]; !known && len(line) >= telling && !strings.HasPrefix(line, "-----") {
					parts[line] = what + whose
				}
			}
		}
	}
	collect(r.Secrets, "")
	for _, o := range r.Observations {
		for unit, m := range machines(o) {
			collect(m.Secrets, " of "+unit)
		}
	}
	find := func(text string) []string {
		found := map[string]bool{}
		for part, what := range parts {
			if strings.Contains(text, part) {
				found[what] = true
			}
		}
		return slices.Sorted(maps.Keys(found))
	}
	for _, line := range r.Log {
		for _, what := range find(line.Message) {
			f.note("%s has logged a secret (%s, %s): %s", line.Unit, line.Module, clock(line.Time), what)
		}
	}
	for _, o := range r.Observations {
		for _, m := range messages(o.Status) {
			for _, what := range find(m.text) {
				f.add(o, m.whose, "the status has a secret: %s", what)
			}
		}
		for unit, m := range machines(o) {
			for _, leak := range m.Leaks {
				f.add(o, unit, "a secret is where it must not be: %s", leak)
			}
		}
	}
	return f
}

// The header may be cut off by what logs it, and its line breaks may be escaped.
var keyHeader = regexp.MustCompile(`-----BEGIN [A-Z0-9 ]*PRIVATE KEY`)

func leakedKeys(r observation.Record) []string {
	var f findings
	for _, line := range r.Log {
		if keyHeader.MatchString(line.Message) {
			f.note("%s has logged a private key (%s, %s)", line.Unit, line.Module, clock(line.Time))
		}
	}
	for _, o := range r.Observations {
		for _, m := range messages(o.Status) {
			if keyHeader.MatchString(m.text) {
				f.add(o, m.whose, "the status has a private key")
			}
		}
	}
	return f
}

type message struct {
	whose string // an application's or a unit's
	text  string
}

// messages are those of all statuses.
func messages(s cluster.Status) (all []message) {
	for _, name := range slices.Sorted(maps.Keys(s.Apps)) {
		all = append(all, message{name, s.Apps[name].Message})
	}
	for u := range allUnits(s) {
		all = append(all, message{u.Name, u.Message})
	}
	return all
}

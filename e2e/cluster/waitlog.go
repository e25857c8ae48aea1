package cluster

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// waitLog says of a wait what it lacks when it begins, and from then on what changes.
type waitLog struct {
	log   func(format string, args ...any) // nil says nothing
	what  string
	start time.Time

	before  Status // the last reading
	read    bool   // there was one
	missing string // as it was last said, or is to be seen from changes
	problem string // why the last reading could not be had
}

func (l *waitLog) say(text string) {
	if l.log != nil {
		l.log("%s +%s %s", time.Now().Format(time.TimeOnly), elapsed(l.start), text)
	}
}

// unreadable takes note of a reading that cannot be had.
func (l *waitLog) unreadable(err error) {
	if text := fmt.Sprintf("cannot read status: %v", err); text != l.problem {
		l.say(text)
		l.problem = text
	}
}

// reading takes note of a reading. Missing is nil if it holds.
func (l *waitLog) reading(next Status, missing error) {
	if l.problem != "" {
		l.say("status can be read again")
		l.problem = ""
	}
	var changes []string
	if l.read {
		changes = Changes(l.before, next)
	}
	for _, change := range changes {
		l.say(change)
	}
	text := ""
	if missing != nil {
		text = missing.Error()
	}
	switch {
	case text == "":
	case !l.read:
		l.say(l.what + ": " + text)
	// Conditions repeat what changes say.
	case text != l.missing && len(changes) == 0:
		l.say(text)
	}
	l.before, l.read, l.missing = next, true, text
}

// holds ends the log.
func (l *waitLog) holds(since time.Time) {
	l.say(fmt.Sprintf("%s: holds since %s", l.what, since.Format(time.TimeOnly)))
}

// Changes returns a line for each unit that came, went or says something else, and for
// each machine that is in trouble or no longer. That a machine is made, or that an agent
// has something to do, is no news.
func Changes(prev, next Status) []string {
	before, after := news(prev), news(next)
	subjects := slices.Collect(maps.Keys(before))
	for subject := range after {
		if _, ok := before[subject]; !ok {
			subjects = append(subjects, subject)
		}
	}
	slices.SortFunc(subjects, func(a, b string) int {
		if len(a) != len(b) { // so that unit 10 comes after unit 2
			return len(a) - len(b)
		}
		return strings.Compare(a, b)
	})
	var lines []string
	for _, subject := range subjects {
		is, there := after[subject]
		switch {
		case !there && strings.HasPrefix(subject, "machine "):
			lines = append(lines, subject+" is well, or gone")
		case !there:
			lines = append(lines, subject+" is gone")
		case is != before[subject]:
			lines = append(lines, subject+is)
		}
	}
	return lines
}

// news is what a status says of units, and of machines in trouble, by their names.
func news(s Status) map[string]string {
	found := map[string]string{}
	for id, m := range s.Machines {
		if !slices.Contains([]string{"", "pending", "allocating", "running"}, m.Instance) || m.Agent == "down" {
			found["machine "+id] = strings.TrimRight(fmt.Sprintf(" is %s, agent %s: %s", m.Instance, m.Agent, m.Message), ": ")
		}
	}
	for app := range s.Apps {
		for _, u := range s.Units(app) {
			text := fmt.Sprintf(" is %s %q", u.Workload, u.Message)
			if u.Leader {
				text = "*" + text
			}
			if slices.Contains([]string{"lost", "error", "failed"}, u.Agent) {
				text += ", agent " + u.Agent
			}
			found[u.Name] = text
		}
	}
	return found
}

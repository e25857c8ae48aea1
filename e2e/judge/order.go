package judge

import (
	"regexp"
	"time"

	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/observation"
)

var orderRules = []Rule{
	{Name: "web-first", Promise: "Workers start a release when a web server has answered with it.", Broken: startedTooEarly},
}

// These are the statuses that Juju records in the log: of a web server that has answered,
// or of a leader that knows one which has, and of a leader that has a complaint to show in
// place of that.
var (
	webReady  = regexp.MustCompile(`status-history \(status: "(?:active|maintenance)", status-message: "(?:Web server ready|Ready|Replacing the workers) \(v([^()\s"]+)\)`)
	complaint = regexp.MustCompile(`status-history \(status: "blocked", status-message: "(?:Unknown|Unusable|Malformed|Upgrade) `)
)

// startedTooEarly compares when a worker was first seen to run a release with when the
// first web server was said to be ready with it. A worker beside a web server is
// left out: the two are ready together. So is a log without statuses.
func startedTooEarly(r observation.Record) []string {
	var f findings
	ready := map[string]time.Time{} // by version
	for _, line := range r.Log {
		if m := webReady.FindStringSubmatch(line.Message); m != nil {
			if first, ok := ready[m[1]]; !ok || line.Time.Before(first) {
				ready[m[1]] = line.Time
			}
		}
	}
	beside := map[string]bool{} // units that have both
	for _, o := range r.Observations {
		for unit, m := range machines(o) {
			_, works := m.Service(worker)
			_, serves := m.Service(server)
			beside[unit] = beside[unit] || works && serves
		}
	}
	reported := map[string]bool{}
	for _, o := range r.Observations {
		for unit, m := range machines(o) {
			s, ok := runs(m, worker)
			e, _, found := entryOf(s.Executable)
			first, known := ready[e.version]
			if !ok || beside[unit] || !found || !known || s.Started.IsZero() || reported[unit+e.version] {
				continue
			}
			if s.Started.Before(first.Add(-alike)) && !complained(r, s.Started, first) {
				reported[unit+e.version] = true
				f.add(o, unit, "its worker runs %s since %s, and the first web server was ready with it at %s",
					e.version, clock(s.Started), clock(first))
			}
		}
	}
	return f
}

// complained tells whether a leader that served may have shown a complaint when a worker
// was started, and only later that it was ready.
func complained(r observation.Record, started, ready time.Time) bool {
	open := false
	for _, line := range r.Log {
		switch {
		case complaint.MatchString(line.Message) && line.Time.Before(ready):
			open = true
		case webReady.MatchString(line.Message) && line.Time.Before(started):
			open = false
		}
	}
	return open
}

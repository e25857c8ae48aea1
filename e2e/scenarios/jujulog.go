package scenarios

import (
	"regexp"
	"time"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/sim"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/cluster"
)

// These are Juju's words for what a hook itself cannot know.
var (
	hookFailed  = regexp.MustCompile(`^hook "([^"]+)" \(via .*\) failed: `)
	unitStarted = regexp.MustCompile(`^unit ".*" started$`)
)

// loggedWithin is how soon after a hook's end Juju says that it has failed.
const loggedWithin = 5 * time.Second

// judgeByLog takes from Juju's log what hooks cannot know: which have failed after their
// end, as what they had set was refused, and when a unit's worker in the agent began anew,
// without what it remembers of settings.
func judgeByLog(history []sim.Record, base time.Time, log []cluster.LogLine) {
	at := func(line cluster.LogLine) time.Duration { return line.Time.Sub(base) }
	lives := map[string][]time.Duration{}
	for _, line := range log {
		if unitStarted.MatchString(line.Message) {
			lives[line.Unit] = append(lives[line.Unit], at(line))
		}
	}
	for i := range history {
		r := &history[i]
		for _, began := range lives[r.Unit] {
			if began <= r.Begin {
				r.Life++ // both may tell of one start: what counts is that it differs
			}
		}
		for _, line := range log {
			failed := hookFailed.FindStringSubmatch(line.Message)
			if failed == nil || line.Unit != r.Unit || r.Event != failed[1] || !r.OK {
				continue
			}
			if soon := at(line) - r.End; soon >= 0 && soon < loggedWithin {
				r.OK = false
			}
		}
	}
}

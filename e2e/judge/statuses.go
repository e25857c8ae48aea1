package judge

import (
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/cluster"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/observation"
)

var statusRules = []Rule{
	{Name: "no-error", Promise: "No hook fails: what goes wrong is a status.", Broken: failedHooks},
	{Name: "says-what-to-do", Promise: "A unit that is blocked says what its operator has to do.", Broken: blockedInSilence},
	{Name: "blocked-not-waiting", Promise: "A unit that needs its operator is blocked, and one that waits says for what.", Broken: waitsForOperator},
}

// hookFailed is how Juju logs it.
var hookFailed = regexp.MustCompile(`^hook "[^"]+" \(via [^)]*\) failed: `)

// afterFault is for how long a fault explains that a hook or an agent failed: the calls
// of a hook go over the network.
const afterFault = time.Minute

// failedHooks leaves agents alone that are lost: their machines may be off.
func failedHooks(r observation.Record) []string {
	var f findings
	explained := func(at time.Time) bool { return faulty(r, at.Add(-afterFault), at) }
	for _, line := range r.Log {
		if strings.HasPrefix(line.Unit, r.App+"/") && hookFailed.MatchString(line.Message) && !explained(line.Time) {
			f.note("%s at %s: %s%s", line.Unit, clock(line.Time), line.Message, lastWords(r, line.Unit, line.Time))
		}
	}
	for _, o := range r.Observations {
		for _, u := range o.Status.Units(r.App) {
			failed := u.Agent == "error" || u.Agent == "failed"
			if u.Workload == "error" || failed && !explained(o.Time) {
				f.add(o, u.Name, "is in error (workload %s, agent %s): %s%s", u.Workload, u.Agent, u.Message, lastWords(r, u.Name, o.Time))
			}
		}
	}
	return f
}

// lastWords is what a unit complained of in the half minute before, such as what a hook wrote
// before it failed.
func lastWords(r observation.Record, unit string, at time.Time) string {
	var words strings.Builder
	for _, line := range r.Log {
		complains := line.Level == "WARNING" || line.Level == "ERROR"
		if line.Unit == unit && complains && !line.Time.After(at) && line.Time.After(at.Add(-30*time.Second)) && !hookFailed.MatchString(line.Message) {
			fmt.Fprintf(&words, "; it said: %s", line.Message)
		}
	}
	return words.String()
}

// remedy is a word by which a message tells somebody to do something, or what is
// required.
var remedy = regexp.MustCompile(`(?i)\b(set|use|run|check|attach|detach|mount|unmount|remount|enlarge|remove|put|add|free|grant|` +
	`relate|integrate|required|restore|replace|install|upgrade|start|stop|move|activate)\b`)

// inability is what a message says cannot be done, or was not: that tells nobody to do it.
var inability = regexp.MustCompile(`(?i)\b(cannot|could not|does not|did not|failed to|unable to) \w+`)

func blockedInSilence(r observation.Record) []string {
	var f findings
	for _, o := range r.Observations {
		for _, u := range o.Status.Units(r.App) {
			if u.Workload == "blocked" && !remedy.MatchString(inability.ReplaceAllString(u.Message, "")) {
				f.add(o, u.Name, "is blocked and does not say what to do: %q", u.Message)
			}
		}
	}
	return f
}

// operators are words about what does not go away by waiting.
var operators = regexp.MustCompile(`(?i)\b(unavailable|required|unknown|malformed|unusable|cannot|failed|mismatch|not enough|` +
	`not found|unreachable|denied|damaged|corrupt|shared storage|another volume|belongs to|read-only)\b`)

func waitsForOperator(r observation.Record) []string {
	var f findings
	for _, o := range r.Observations {
		for _, u := range o.Status.Units(r.App) {
			switch {
			case u.Workload != cluster.Waiting:
			case operators.MatchString(u.Message):
				f.add(o, u.Name, "is waiting, and must be blocked: %q", u.Message)
			// Juju itself has units wait for a machine, and for the agent.
			case o.Resting && !strings.HasPrefix(strings.ToLower(u.Message), "waiting for "):
				f.add(o, u.Name, "is waiting and does not say for what: %q", u.Message)
			}
		}
	}
	return f
}

package judge

import (
	"slices"
	"strings"
	"time"

	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/cluster"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/observation"
)

// Seen returns the rule that all others stand on. They say nothing of what was not seen,
// so that a suite which sees nothing would let everything pass.
func Seen() Rule {
	return Rule{Name: "nothing-unseen", Promise: "Of a cluster at rest everything is seen that a rule is about.", Broken: unseen}
}

// returning is for how long a fault explains that less is seen.
const returning = 2 * time.Minute

// unseen leaves out what was seen during a fault, and soon after it.
func unseen(r observation.Record) []string {
	var f findings
	var before observation.Observation
	for o := range resting(r) {
		if faulty(r, o.Time.Add(-returning), o.Time) {
			before = observation.Observation{}
			continue
		}
		unseenMachines(&f, r, o)
		unseenWeb(&f, r, before, o)
		if sent, told := r.Allowed[o.Expected]; o.Expected != "" && (!told || sent > 0) && o.Downloads[o.Expected].Sent == 0 {
			f.note("at the end of %q: it was not seen that the mirror sent %s", o.Phase, o.Expected)
		}
		unseenBuilds(&f, r, o)
		before = o
	}
	return f
}

func unseenMachines(f *findings, r observation.Record, o observation.Observation) {
	mounted, read := false, false
	for _, u := range o.Status.Units(r.App) {
		m, ok := o.Machines[u.Name]
		read = read || m.Volume != nil && m.Volume.Unsound != nil // who reads them for all may be paused
		if !active(o, u.Name) {
			continue
		}
		unseen := func(is bool, what string) {
			if is {
				f.add(o, u.Name, "was not seen: %s", what)
			}
		}
		unseen(!ok, "its machine")
		unseen(!slices.ContainsFunc(r.Log, func(line cluster.LogLine) bool { return line.Unit == u.Name && isRun(line) }), "which hooks it has run")
		if !ok {
			continue
		}
		unseen(m.Charm == "", "its charm")
		unseen(m.Started.IsZero(), "when its machine was started")
		unseen(m.Received == 0, "what it has received")
		unseen(m.Used == 0, "what is on its own disk")
		unseen(len(m.Secrets) == 0, "its secrets")
		for s := range running(m) {
			unseen(s.Invocation == "" || s.Started.IsZero(), "when "+s.Name+" was started")
			unseen(s.Executable == "" || s.File.Inode == 0, "what "+s.Name+" executes")
			unseen(s.Name == worker && s.Directory == "", "the directory of "+s.Name)
			unseen(strings.HasPrefix(s.Executable, root+"/") && !slices.ContainsFunc(m.Processes, func(p observation.Process) bool { return p.PID == s.PID }),
				"the process of "+s.Name)
		}
		if !r.Shared || !m.Mount.Mounted {
			continue
		}
		mounted = true
		unseen(m.Mount.FileSystem == "", "the file system of its mount")
		unseen(m.Volume == nil, "its volume")
		if m.Volume == nil {
			continue
		}
		h := m.Volume.History
		unseen(h == nil || len(h.Activations) == 0 || len(h.Claims) == 0, "the history of its volume")
		unseen(len(m.Volume.Releases) == 0 || m.Volume.Use.Store == 0, "the releases on its volume")
	}
	if mounted && !read {
		f.note("at the end of %q: nobody has read the bytes of the releases", o.Phase)
	}
}

// unseenWeb wants the workers where somebody had logged in before, at a web server of the
// same release: the fly of another one is refused.
func unseenWeb(f *findings, r observation.Record, before, o observation.Observation) {
	serves := false
	for _, m := range machines(o) {
		_, runs := runs(m, server)
		serves = serves || runs
	}
	if serves && o.Web == nil {
		f.note("at the end of %q: the web server was not asked", o.Phase)
	}
	if serves && !slices.ContainsFunc(r.Log, func(line cluster.LogLine) bool { return webReady.MatchString(line.Message) }) {
		f.note("at the end of %q: it was not seen when a web server was ready", o.Phase)
	}
	if o.Web == nil || before.Web == nil || o.Web.Workers != nil || o.Expected == "" || before.Expected != o.Expected || before.Web.URL != o.Web.URL {
		return
	}
	if slices.ContainsFunc(r.Builds, func(b observation.Build) bool {
		return b.Result == "succeeded" && b.Started.After(before.Time) && b.Ended.Before(o.Time)
	}) {
		f.note("at the end of %q: the web server was not asked for its workers", o.Phase)
	}
}

// besideLimit is how long builds that run beside a scenario may take to show the first: one
// takes 5 s, and 12 s on a machine that is busy.
const besideLimit = 30 * time.Second

func unseenBuilds(f *findings, r observation.Record, o observation.Observation) {
	for _, span := range r.Beside {
		end := o.Time
		if !span.End.IsZero() && span.End.Before(end) {
			end = span.End
		}
		if end.Sub(span.Begin) < besideLimit || faulty(r, span.Begin.Add(-returning), end) {
			continue
		}
		if !slices.ContainsFunc(r.Builds, func(b observation.Build) bool {
			return b.Beside && !b.Started.Before(span.Begin) && !b.Started.After(end)
		}) {
			f.note("at the end of %q: no build was seen beside the scenario from %s on", o.Phase, clock(span.Begin))
		}
	}
}

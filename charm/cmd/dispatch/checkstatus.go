package main

import (
	"cmp"
	"slices"
	"strings"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/juju"
	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/plan"
	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/relations"
	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/supervisor"
)

// checkStatus tells what the unit should be, how it is, and what is still due. It changes
// nothing.
func checkStatus(in plan.Input) error {
	s, app := in.Status, in.Juju.Peers.App
	planned := plan.Make(in)
	spec := in.Before
	if planned.Spec != nil {
		spec = *planned.Spec
	}
	results := map[string]string{
		"status":         string(planned.Changes.Status.Level),
		"message":        planned.Changes.Status.Message,
		"target-version": cmp.Or(app[relations.TargetVersion], "none"),
		"active-version": cmp.Or(app[relations.ActiveVersion], "none"),
		"version":        cmp.Or(s.Run, "none"),
		"web-server":     serviceState(spec.Web != nil, s.Web),
		"worker":         serviceState(spec.Worker != nil, s.Worker),
		"listed-workers": cmp.Or(s.Workers, "none"),
		"volume":         cmp.Or(string(s.Fault), "healthy"),
		"volume-id":      cmp.Or(s.VolumeID, "none"),
		"restart-id":     cmp.Or(spec.Restarts, "none"),
		"restart-state":  restartState(spec, s),
		"check-id":       cmp.Or(spec.Check.ID, "none"),
		"check-state":    checkState(spec, s),
		"turns":          cmp.Or(app[relations.Turns], relations.None),
		"due":            cmp.Or(strings.Join(stillDue(spec, s), "; "), "nothing"),
	}
	switch {
	case s.Paused:
		results["worker"] = relations.Paused
	case spec.Paused && spec.Worker != nil:
		results["worker"] = relations.Pausing
	case s.Landing:
		results["worker"] = "landing"
	}
	return juju.ActionResults(results)
}

// serviceState says how a service is.
func serviceState(wanted bool, a supervisor.Answer) string {
	switch {
	case a.Exits != "":
		return "exits again and again " + a.Exits
	case a.Executes != "":
		return "executes " + a.Executes
	case a.Version != "":
		return "v" + a.Version
	case wanted:
		return "does not answer"
	}
	return "none"
}

// stillDue says what the supervisor has yet to do.
func stillDue(spec supervisor.Spec, s supervisor.Status) (due []string) {
	for what, is := range map[string]bool{
		"install v" + spec.Fetch:              spec.Fetch != "" && s.Installed != spec.Fetch,
		"run v" + spec.Run:                    spec.Run != "" && s.Run != spec.Run,
		"replace the worker, by v" + s.Due:    s.Due != "",
		"land the worker":                     s.Landing,
		"verify the volume":                   spec.Check.ID != s.Checked.ID,
		"start the services anew":             s.Restarted != spec.Restarts,
		"start the worker when it is resumed": s.Paused,
		"try again: " + s.Stuck:               s.Stuck != "",
	} {
		if is {
			due = append(due, what)
		}
	}
	slices.Sort(due)
	return due
}

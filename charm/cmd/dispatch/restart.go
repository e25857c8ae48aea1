package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"strings"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/juju"
	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/plan"
	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/supervisor"
)

// restartServices files the request with the supervisor, or tells how far one is.
func restartServices(in *plan.Input) (proceed bool, err error) {
	var params struct {
		ID     string `json:"id"`
		AtOnce bool   `json:"at-once"`
	}
	if err := juju.ActionParams(&params); err != nil {
		return false, err
	}
	switch {
	case in.Before.Unit == "":
		return false, juju.ActionFails("this unit is still being prepared; try again in a minute")
	case params.ID == "":
		in.Before.Restarts, in.Before.AtOnce = strings.ToLower(rand.Text()[:8]), params.AtOnce
		return true, nil // see awaitRestart
	case params.ID != in.Before.Restarts:
		return false, juju.ActionFails("%s has no restart %q: its last one is %q", in.Juju.Unit, params.ID, in.Before.Restarts)
	}
	return false, tellRestart(in.Before, in.Status)
}

// awaitRestart waits a while for a restart that needs no hook. A worker that lands hears of
// its turn when the action has ended.
func (c charm) awaitRestart(ctx context.Context, spec supervisor.Spec) error {
	if spec.AtOnce || spec.Worker == nil {
		c.wait(ctx, c.patience.action, func(s supervisor.Status) bool { return s.Restarted == spec.Restarts })
	}
	status, err := c.files().Status()
	if err != nil {
		return err
	}
	return tellRestart(spec, status)
}

// restartState is how far the last restart is that was asked for.
func restartState(spec supervisor.Spec, s supervisor.Status) string {
	switch {
	case spec.Restarts == "":
		return "none"
	case s.Restarted == spec.Restarts:
		return "done"
	case s.Landing:
		return "landing"
	}
	return "waiting"
}

func tellRestart(spec supervisor.Spec, s supervisor.Status) error {
	messages := map[string]string{
		"done":    "The services of %s were started anew; juju status shows when they answer",
		"landing": "The worker of %s ends with its builds; ask again with this id, or run check-status",
		"waiting": "The services of %s are to be started anew, a worker in its turn; ask again with this id, or run check-status",
	}
	state := restartState(spec, s)
	return juju.ActionResults(map[string]string{"id": spec.Restarts, "state": state, "message": fmt.Sprintf(messages[state], spec.Unit)})
}

package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"strings"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/juju"
	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/plan"
	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/supervisor"
)

// verifyVolume files the request with the supervisor, or tells how far one is.
func verifyVolume(in *plan.Input) (proceed bool, err error) {
	var params struct {
		ID     string `json:"id"`
		Repair bool   `json:"repair"`
	}
	if err := juju.ActionParams(&params); err != nil {
		return false, err
	}
	switch {
	case in.Before.Unit == "":
		return false, juju.ActionFails("this unit is still being prepared; try again in a minute")
	case params.ID == "":
		in.Before.Check = supervisor.Check{ID: strings.ToLower(rand.Text()[:8]), Repair: params.Repair}
		return true, nil // see awaitCheck
	case params.ID != in.Before.Check.ID:
		return false, juju.ActionFails("%s has no check %q: its last one is %q", in.Juju.Unit, params.ID, in.Before.Check.ID)
	}
	return false, tellCheck(in.Before, in.Status)
}

func (c charm) awaitCheck(ctx context.Context, spec supervisor.Spec) error {
	c.wait(ctx, c.patience.action, func(s supervisor.Status) bool { return s.Checked.ID == spec.Check.ID })
	status, err := c.files().Status()
	if err != nil {
		return err
	}
	return tellCheck(spec, status)
}

// checkState is how far the last check of the volume is that was asked for.
func checkState(spec supervisor.Spec, s supervisor.Status) string {
	switch {
	case spec.Check.ID == "":
		return "none"
	case s.Checked.ID != spec.Check.ID:
		return "verifying"
	case s.Checked.Sound:
		return "sound"
	}
	return "damaged"
}

func tellCheck(spec supervisor.Spec, s supervisor.Status) error {
	state, found := checkState(spec, s), ""
	switch state {
	case "verifying":
		found = cmp.Or(s.Stuck, "The releases are being read; ask again with this id, or run check-status")
	case "damaged":
		found = s.Checked.Found + "; run verify-volume repair=true to have it installed anew"
	default:
		found = s.Checked.Found
	}
	return juju.ActionResults(map[string]string{"id": spec.Check.ID, "state": state, "message": found})
}

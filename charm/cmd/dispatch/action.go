package main

import (
	"cmp"
	"crypto/rand"
	"fmt"
	"strings"
	"time"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/concourse"
	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/juju"
	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/plan"
	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/relations"
	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/supervisor"
	"github.com/concourse-ci-machine/concourse-ci-machine/charm/product"
	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator"
)

// act answers an action. It tells whether the hook should go on to plan with what the
// action has changed in the snapshot.
func act(in *plan.Input) (proceed bool, err error) {
	if in.Juju.Peers == nil {
		return false, juju.ActionFails("this unit is still being prepared; try again in a minute")
	}
	switch in.Juju.Action {
	case "get-admin-password":
		return false, adminPassword(*in)
	case "upgrade":
		return upgrade(in.Juju)
	case "accept-volume":
		return acceptVolume(in.Juju, in.Status)
	case "pause":
		return pause(in)
	case "resume":
		return resume(in)
	case "check-status":
		return false, checkStatus(*in)
	case "restart-services":
		return restartServices(in)
	case "verify-volume":
		return verifyVolume(in)
	}
	return false, juju.ActionFails("unknown action %s", in.Juju.Action)
}

func adminPassword(in plan.Input) error {
	id := in.Juju.Peers.App[relations.KeysSecret]
	keys, err := concourse.ParseKeys(in.Juju.Secrets[id])
	switch {
	case id == "":
		return juju.ActionFails("there is no password yet: the leader makes it when it is first set up")
	case err != nil:
		return juju.ActionFails("the password cannot be read by this unit at present; try again in a minute, or on the leader")
	}
	return juju.ActionResults(map[string]string{
		"username": in.Config.InitialAdminUsername,
		"password": keys.AdminPassword,
		"message":  "Log in with: fly -t NAME login -c URL -u USERNAME -p PASSWORD",
	})
}

// acceptVolume has all units take the volume that is mounted on the leader for theirs. The
// supervisors do it.
func acceptVolume(s juju.Snapshot, status supervisor.Status) (proceed bool, err error) {
	application, _, _ := strings.Cut(s.Unit, "/")
	switch {
	case !s.Leader:
		return false, juju.ActionFails("only the leader accepts a volume, for all units: run it on %s/leader", application)
	case status.Fault == supervisor.Healthy:
		return false, juju.ActionFails("there is nothing to accept: the units of %s use the volume that is mounted here", application)
	case status.Fault != supervisor.Foreign && status.Fault != supervisor.OtherModel:
		return false, juju.ActionFails("no volume that could be accepted is mounted on %s: see its status", s.Unit)
	}
	accepted := cmp.Or(status.Mounted, rand.Text()) // one without an id gets this one
	if err := s.SetApp(relations.AcceptedVolume, accepted); err != nil {
		return false, err
	}
	id := coordinator.AcceptedID(accepted)
	return true, juju.ActionResults(map[string]string{
		"volume-id": id,
		"message":   "Volume " + id + " is accepted for all units; attach it to those that have another one. run this for each other application that shares it, too",
	})
}

// upgrade leaves the request with this unit's settings, where the leader finds
// it: any unit can be asked. It does not wait for the upgrade.
func upgrade(s juju.Snapshot) (proceed bool, err error) {
	var params struct {
		Version string `json:"version"`
	}
	if err := juju.ActionParams(&params); err != nil {
		return false, err
	}
	version, err := product.ParseVersion(params.Version)
	if err != nil {
		return false, juju.ActionFails("malformed version %q: use the form 7.14.3", params.Version)
	}
	// The same version may be asked for twice, so requests are told apart.
	request := fmt.Sprintf("%d %s", time.Now().UnixNano(), version)
	if err := s.SetSelf(relations.UpgradeRequest, request); err != nil {
		return false, err
	}
	return true, juju.ActionResults(map[string]string{
		"target-version": version,
		"message":        "Upgrade to v" + version + " requested; juju status shows how far it is",
	})
}

// pause has this unit's worker end with its builds, and stay out. It does not wait: the web
// server, which has to stay meanwhile, hears of it when the action has ended.
func pause(in *plan.Input) (proceed bool, err error) {
	if refused := in.Pause(time.Now()); refused != "" {
		return false, juju.ActionFails("%s", refused)
	}
	state := relations.Pausing
	if in.Status.Paused {
		state = relations.Paused
	}
	return true, juju.ActionResults(map[string]string{
		"state":   state,
		"message": fmt.Sprintf("The worker of %s ends with its builds, in %s at most, and stays out until you run resume; juju status shows how far it is", in.Juju.Unit, in.Config.DrainTimeout),
	})
}

// resume has a worker that was paused start, from the release that all units run by now.
func resume(in *plan.Input) (proceed bool, err error) {
	message := "The worker of " + in.Juju.Unit + " starts; juju status shows when it is ready"
	if !in.Before.Paused {
		message = in.Juju.Unit + " is not paused"
	}
	in.Resume()
	return true, juju.ActionResults(map[string]string{"state": "resumed", "message": message})
}

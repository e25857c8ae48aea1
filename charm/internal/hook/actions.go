package hook

import (
	"fmt"
	"time"

	"github.com/gruyaume/goops"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/reconcile"
	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/relations"
	"github.com/concourse-ci-machine/concourse-ci-machine/charm/product"
)

// act answers an action. It reports whether the hook should go on to reconcile
// with what the action changed in desired.
func act(name string, d *reconcile.Desired) (proceed bool, err error) {
	if d.Peers == nil {
		return false, goops.FailActionf("this unit is still being prepared; try again in a minute")
	}
	switch name {
	case "get-admin-password":
		return false, adminPassword(d)
	case "upgrade":
		return upgrade(d)
	}
	return false, goops.FailActionf("unknown action %s", name)
}

func adminPassword(d *reconcile.Desired) error {
	keys, err := readKeys(d.Peers, false)
	if err != nil {
		return err
	}
	if keys == nil {
		return goops.FailActionf("there is no password yet: the leader makes it when it is first set up")
	}
	return goops.SetActionResults(map[string]string{
		"username": d.Config.InitialAdminUsername,
		"password": keys.AdminPassword,
		"message":  "Log in with: fly -t NAME login -c URL -u USERNAME -p PASSWORD",
	})
}

// upgrade leaves the request with this unit's settings, where the leader finds
// it: any unit can be asked. It does not wait for the upgrade.
func upgrade(d *reconcile.Desired) (proceed bool, err error) {
	var params struct {
		Version string `json:"version"`
	}
	if err := goops.GetActionParams(&params); err != nil {
		return false, err
	}
	version, err := product.ParseVersion(params.Version)
	if err != nil {
		return false, goops.FailActionf("malformed version %q: use the form 7.14.3", params.Version)
	}
	// The same version may be asked for twice, so requests are told apart.
	request := map[string]string{
		relations.UpgradeRequest: fmt.Sprintf("%d %s", time.Now().UnixNano(), version),
	}
	if err := d.Peers.Write(nil, request); err != nil {
		return false, err
	}
	d.Peers.Self[relations.UpgradeRequest] = request[relations.UpgradeRequest]
	return true, goops.SetActionResults(map[string]string{
		"target-version": version,
		"message":        "Upgrade to v" + version + " requested; juju status shows how far it is",
	})
}

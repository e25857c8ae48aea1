package plan_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/plan"
	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/relations"
	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/supervisor"
)

// An upgrade was taken back after its web server had taken the schema up: the release
// before does not start on that, and the newer one, which hangs, is overdue for good. The
// status says: run upgrade again. That is heard, and begins anew.
func TestUpgradeThatWasTakenBackIsAskedForAgain(t *testing.T) {
	for name, u := range map[string]unit{
		"the leader serves": leader(installed(old, next), status(func(s *supervisor.Status) {
			s.Run, s.Web.Version, s.Overdue = next, "", next
		})),
		"another unit serves": follower(installed(old, next), func(u *unit) {
			u.in.Juju.Leader = true
			u.relate()
			u.in.Juju.Peers.Units["ci/9"][relations.OverdueVersion] = next
		}),
	} {
		t.Run(name, func(t *testing.T) {
			u.app()[relations.FailedUpgrade] = "Upgrade to v7.14.3 failed: the web server did not answer in time; see journalctl -u concourse-server.service, then run upgrade again"
			u.in.Juju.Peers.Self[relations.UpgradeRequest] = "18 " + next
			app := plan.Make(u.in).Changes.App
			require.Equal(t, "18 "+next, app[relations.Handled("ci/0")], "it was heard")
			require.Equal(t, next, app[relations.TargetVersion], "it was taken back in the hook that has heard it: %s", app[relations.FailedUpgrade])
		})
	}
}

package plan_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/plan"
	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/supervisor"
)

// What keeps a service from answering is said, and no version that does not answer.
func TestServicesThatDoNotAnswer(t *testing.T) {
	for name, test := range map[string]struct {
		unit   unit
		status string
	}{
		"a web server that exits": {
			leader(status(func(s *supervisor.Status) {
				s.Web.Version, s.Web.Exits = "", "(exit status 1): error: missing scheme in 'ci.example.com'"
			})),
			"blocked concourse-server.service exits again and again (exit status 1): error: missing scheme in 'ci.example.com'; see journalctl -u concourse-server.service",
		},
		"a worker that exits during an upgrade": {
			follower(app("target-version", next), status(func(s *supervisor.Status) { s.Worker.Version, s.Worker.Exits = "", "(killed by SIGSEGV)" })),
			"blocked concourse-worker.service exits again and again (killed by SIGSEGV); see journalctl -u concourse-worker.service",
		},
		"another program": {
			follower(status(func(s *supervisor.Status) {
				s.Worker.Version, s.Worker.Executes = "", "/var/lib/concourse/store/7.14.1.1/bin/concourse"
			})),
			"blocked concourse-worker.service executes /var/lib/concourse/store/7.14.1.1/bin/concourse and not Concourse v7.14.2: " +
				"run systemctl restart concourse-worker.service on its machine",
		},
	} {
		t.Run(name, func(t *testing.T) {
			status := plan.Make(test.unit.in).Changes.Status
			require.Equal(t, test.status, string(status.Level)+" "+status.Message)
		})
	}
}

package plan_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/plan"
	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/supervisor"
)

// What keeps a service from answering, or from serving, is said.
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
		"no database": {
			leader(status(func(s *supervisor.Status) { s.Database = "at 10.0.0.9:5432 does not answer: connection refused" })),
			"waiting PostgreSQL at 10.0.0.9:5432 does not answer: connection refused",
		},
		"a password that is refused": {
			leader(status(func(s *supervisor.Status) { s.Database = "refuses the web server: password authentication failed" })),
			"waiting PostgreSQL refuses the web server: password authentication failed",
		},
		"no database, and nothing to run": {
			fresh(status(func(s *supervisor.Status) { s.Database = "at 10.0.0.9:5432 does not answer: connection refused" })),
			"maintenance Waiting for binaries v7.14.2...",
		},
		"a newer schema": {
			leader(status(func(s *supervisor.Status) {
				s.Schema = supervisor.Schema{Release: old, Supported: 1630515499, Database: 1746768931}
			})),
			"blocked The database has schema 1746768931, newer than 1630515499 of Concourse v7.14.2: run the version that made it, or a newer one; going back loses data",
		},
		"an older schema": {
			leader(status(func(s *supervisor.Status) {
				s.Schema = supervisor.Schema{Release: old, Supported: 1746768931, Database: 1630515499}
			})),
			"blocked The database has schema 1630515499, older than 1746768931 of Concourse v7.14.2, which runs: " +
				"see that nothing else takes it down, then run systemctl restart concourse-server.service",
		},
		"an older version is refused": {
			leader(app("target-version", "7.14.1"), status(func(s *supervisor.Status) {
				s.Schema = supervisor.Schema{Release: "7.14.1", Supported: 1630515499, Database: 1746768931}
			})),
			"blocked Downgrade to v7.14.1 refused: Concourse v7.14.2 has served with schema 1746768931 of the database, " +
				"and to take it down to 1630515499 loses data; run upgrade version=7.14.2, or set the option version, to stay",
		},
		"the schema has gone ahead in an upgrade": {
			leader(app("target-version", next), status(func(s *supervisor.Status) {
				s.Schema = supervisor.Schema{Release: old, Supported: 1630515499, Database: 1746768931}
			})),
			"maintenance Upgrading to v7.14.3...",
		},
	} {
		t.Run(name, func(t *testing.T) {
			status := plan.Make(test.unit.in).Changes.Status
			require.Equal(t, test.status, string(status.Level)+" "+status.Message)
		})
	}
}

// A web server that only answers is not one that others may follow.
func TestWebServerThatOnlyAnswers(t *testing.T) {
	for name, change := range map[string]func(*supervisor.Status){
		"no database":    func(s *supervisor.Status) { s.Database = "refuses the web server: no" },
		"another schema": func(s *supervisor.Status) { s.Schema.Release = old },
	} {
		require.NotContains(t, plan.Make(leader(status(change)).in).Changes.App, "active-version", name)
	}
	require.Contains(t, plan.Make(leader().in).Changes.App, "active-version")
}

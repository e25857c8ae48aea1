package plan_test

import (
	"maps"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/juju"
	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/plan"
	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/relations"
	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/supervisor"
)

const (
	oldSchema, nextSchema = 100, 200
	up                    = "1 ci/0 " + next + " 100 200"
	begun                 = next + " 100" // see relations.SchemaBefore
)

// asked is a leader that serves and is asked for the next release, whose schema is newer.
func asked(changes ...func(*unit)) unit {
	return leader(append([]func(*unit){
		config(func(c *plan.Config) { c.Version = next }),
		status(func(s *supervisor.Status) {
			s.Installed, s.Schema = next, supervisor.Schema{Release: next, Supported: nextSchema, Database: oldSchema, Due: true}
		}),
	}, changes...)...)
}

func self(name, value string) func(*unit) {
	return func(u *unit) { u.in.Juju.Peers.Self[name] = value }
}

// migrating is asked when the leader has chosen it.
func migrating(changes ...func(*unit)) unit {
	return asked(append([]func(*unit){
		app(relations.TargetVersion, next), app(relations.ConfigVersion, next), app(relations.Migration, up), app(relations.SchemaBefore, begun),
	}, changes...)...)
}

// The leader lets one unit change the schema, and takes that back when it is over.
func TestWhoMigrates(t *testing.T) {
	failed := "Upgrade to v7.14.3 failed: the migration of the database ends (exit status 1): column is gone; see journalctl -u concourse-migration.service on ci/0, then run upgrade again"
	reports := func(value string) func(*unit) { return status(func(s *supervisor.Status) { s.Migrated = value }) }
	down := func(changes ...func(*unit)) unit {
		return leader(append([]func(*unit){
			app(relations.SchemaBefore, begun),
			status(func(s *supervisor.Status) {
				s.Schema = supervisor.Schema{Release: old, Supported: oldSchema, Database: 150}
			}),
		}, changes...)...)
	}
	for name, test := range map[string]struct {
		unit           unit
		grant, before  string
		target, failed string
	}{
		"the web server's unit":     {asked(), up, begun, next, ""},
		"one after another":         {asked(app(relations.Migration, "7")), "8 ci/0 7.14.3 100 200", begun, next, ""},
		"no other schema":           {asked(status(func(s *supervisor.Status) { s.Schema = supervisor.Schema{} })), "", "", next, ""},
		"once more from the middle": {asked(app(relations.SchemaBefore, next+" 60")), up, next + " 60", next, ""},
		"it goes on":                {migrating(), up, begun, next, ""},
		"it is done":                {migrating(reports("1"), status(func(s *supervisor.Status) { s.Schema = supervisor.Schema{} })), "1", begun, next, ""},
		"what was done before":      {migrating(reports("0")), up, begun, next, ""},
		"it fails":                  {migrating(reports("1 (exit status 1): column is gone")), "1", begun, old, failed},
		"it is not wanted any more": {migrating(config(func(c *plan.Config) { c.Version = old })), "1", begun, old, ""},
		"its unit is gone":          {migrating(app(relations.Migration, "1 ci/7 7.14.3 100 200")), "2 ci/0 7.14.3 100 200", begun, next, ""},
		"no way back, it fails on":  {migrating(app(relations.ActiveVersion, next), app(relations.SchemaBefore, ""), reports("1 (exit status 1)")), up, "", next, ""},
		"back, as none has served":  {down(), "1 ci/0 7.14.3 150 100", begun, old, ""},
		"back is done": {down(app(relations.Migration, "1 ci/0 7.14.3 150 100"), reports("1"),
			status(func(s *supervisor.Status) { s.Schema = supervisor.Schema{} })), "1", "", old, ""},
		"back goes on, though it fails":  {down(app(relations.Migration, "1 ci/0 7.14.3 150 100"), reports("1 (exit status 1)")), "1 ci/0 7.14.3 150 100", begun, old, ""},
		"not back of what has served":    {down(app(relations.SchemaBefore, "")), "", "", old, ""},
		"not back below what was before": {down(app(relations.SchemaBefore, next+" 120")), "", next + " 120", old, ""},
		"served, there is no way back":   {leader(app(relations.SchemaBefore, old+" 60")), "", "", old, ""},
	} {
		t.Run(name, func(t *testing.T) {
			settings := maps.Clone(test.unit.app())
			maps.Copy(settings, plan.Make(test.unit.in).Changes.App)
			require.Equal(t, test.grant, settings[relations.Migration])
			require.Equal(t, test.before, settings[relations.SchemaBefore])
			require.Equal(t, test.target, settings[relations.TargetVersion])
			require.Equal(t, test.failed, settings[relations.FailedUpgrade])
		})
	}
}

// All web servers stop before the schema is changed: those that say so, and those that are
// silent. What was begun goes on, whoever comes back.
func TestWebServersStopFirst(t *testing.T) {
	halted := status(func(s *supervisor.Status) { s.Halted, s.Run, s.Pinned = "1", next, next })
	web := config(func(c *plan.Config) { c.Mode = "web" })
	others := func(settings map[string]string) func(*unit) {
		return func(u *unit) {
			u.in.Juju.Peers.Units = map[string]map[string]string{"ci/1": {relations.WebIP: "10.0.0.2"}}
			maps.Copy(u.in.Juju.Peers.Units["ci/1"], settings)
		}
	}
	before := func(u *unit) { u.in.Before.Migrate = &supervisor.Migration{ID: "1", Go: true} }
	for name, test := range map[string]struct {
		unit   unit
		goes   bool
		status string
	}{
		"its own runs":               {migrating(), false, "Migrating the database to v7.14.3 (schema 100 to 200): 0 min"},
		"alone":                      {migrating(halted), true, "Migrating the database to v7.14.3 (schema 100 to 200): 0 min"},
		"the release is not current": {migrating(status(func(s *supervisor.Status) { s.Halted, s.Run = "1", next })), false, "Migrating the database to v7.14.3 (schema 100 to 200): 0 min"},
		"a worker's unit":            {migrating(halted, others(nil)), true, "Migrating the database to v7.14.3 (schema 100 to 200): 0 min"},
		"another runs":               {migrating(web, halted, others(nil)), false, "Waiting for the web server of ci/1 to end before the database is migrated..."},
		"another was told before":    {migrating(web, halted, others(map[string]string{relations.WebHalted: "0"})), false, "Waiting for the web server of ci/1 to end before the database is migrated..."},
		"another has stopped":        {migrating(web, halted, others(map[string]string{relations.WebHalted: "1"})), true, "Migrating the database to v7.14.3 (schema 100 to 200): 0 min"},
		"another is off":             {migrating(web, halted, others(nil), status(func(s *supervisor.Status) { s.Silent = "10.0.0.2:8080#1" })), true, "Migrating the database to v7.14.3 (schema 100 to 200): 0 min"},
		"another comes back":         {migrating(web, halted, others(nil), before), true, "Waiting for the web server of ci/1 to end before the database is migrated..."},
		"steps": {migrating(halted, before, status(func(s *supervisor.Status) {
			s.Migration = supervisor.Progress{Version: next, Done: 12, Steps: 55, Minutes: 3}
		})), true, "Migrating the database to v7.14.3 (schema 100 to 200): 12 of 55 steps, 3 min"},
	} {
		t.Run(name, func(t *testing.T) {
			answer := plan.Make(test.unit.in)
			require.Equal(t, "1", answer.Spec.Halt)
			require.Equal(t, &supervisor.Migration{ID: "1", Version: next, From: 100, To: 200, Go: test.goes}, answer.Spec.Migrate)
			require.Equal(t, juju.Status{Level: juju.Maintenance, Message: test.status}, answer.Changes.Status)
		})
	}
	another := follower(app(relations.Migration, "1 ci/9 7.14.3 100 200"), app(relations.TargetVersion, next))
	answer := plan.Make(another.in)
	require.Empty(t, answer.Spec.Halt, "a worker has no web server")
	require.Nil(t, answer.Spec.Migrate)
	require.NotContains(t, answer.Spec.Watch, "10.0.0.9:8080", "that does not serve is no news")
	require.Equal(t, "Waiting for ci/9 to change the schema of the database (100 to 200)...", answer.Changes.Status.Message)
}

// A release with an older schema than one that has served is refused, with what to do.
func TestDowngradeIsRefused(t *testing.T) {
	u := leader(app(relations.ActiveVersion, next), app(relations.TargetVersion, old), status(func(s *supervisor.Status) {
		s.Schema = supervisor.Schema{Release: old, Supported: oldSchema, Database: nextSchema}
	}))
	answer := plan.Make(u.in)
	require.Equal(t, juju.Status{Level: juju.Blocked, Message: "Downgrade to v7.14.2 refused: Concourse v7.14.3 has served with schema 200 of the database, " +
		"and to take it down to 100 loses data; run upgrade version=7.14.3, or set the option version, to stay"}, answer.Changes.Status)
	require.Empty(t, answer.Changes.App[relations.Migration])
	require.Empty(t, answer.Spec.Halt)
}

// A unit says what the leader has to know of its schema, its web server and its migration.
func TestTellsOfTheSchema(t *testing.T) {
	u := migrating(self(relations.Migrated, "0"), status(func(s *supervisor.Status) { s.Halted, s.Migrated = "1", "1 it failed" }))
	said := plan.Make(u.in).Changes.Self
	require.Equal(t, next+" 100 200", said[relations.SchemaDue])
	require.Equal(t, "1", said[relations.WebHalted])
	require.Equal(t, "1 it failed", said[relations.Migrated])
}

// While one changes the schema, its silence has nobody appointed in its place.
func TestSilentWhileItMigrates(t *testing.T) {
	silent := []func(*unit){
		func(u *unit) { u.in.Juju.Leader = true },
		app(relations.TargetVersion, next), app(relations.ConfigVersion, next),
		config(func(c *plan.Config) { c.Version = next }),
		status(func(s *supervisor.Status) { s.Silent, s.Answering = "10.0.0.9:8080", "" }),
		self(relations.ConcourseVersion, old),
		(*unit).relate,
	}
	u := follower(silent...)
	require.Equal(t, "ci/0", plan.Make(u.in).Changes.App[relations.NextWebUnit])
	u = follower(append(silent, app(relations.Migration, "1 ci/9 7.14.3 100 200"))...)
	require.Empty(t, plan.Make(u.in).Changes.App[relations.NextWebUnit])
}

package plan_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/plan"
	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/relations"
	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/supervisor"
)

// served has a unit's web server elsewhere, ci/9, say more.
func served(settings map[string]string) func(*unit) {
	return func(u *unit) {
		for name, value := range settings {
			u.in.Juju.Peers.Units["ci/9"][name] = value
		}
	}
}

// What a worker's unit is told of its turn.
func TestTurn(t *testing.T) {
	knows := served(map[string]string{relations.MayLand: relations.None})
	none := app(relations.Turns, relations.None)
	runs := status(func(s *supervisor.Status) { s.Process = "100" })
	for name, test := range map[string]struct {
		changes []func(*unit)
		turn    supervisor.Turn
		may     bool
	}{
		"the leader knows no turns":     {[]func(*unit){knows}, supervisor.NoTurn, false},
		"the web server knows none":     {[]func(*unit){none}, supervisor.NoTurn, false},
		"its web server is gone":        {[]func(*unit){none, func(u *unit) { delete(u.in.Juju.Peers.Units, "ci/9") }}, supervisor.Wait, false},
		"its process has landed":        {[]func(*unit){none, runs, served(map[string]string{relations.MayLand: relations.None, relations.LandedWorkers: "ci-1=7 ci-0=100"})}, supervisor.Wait, false},
		"the process before has landed": {[]func(*unit){none, runs, served(map[string]string{relations.MayLand: relations.None, relations.LandedWorkers: "ci-1=7 ci-0=99"})}, supervisor.Wait, false},
		"nobody has one":                {[]func(*unit){knows, none}, supervisor.Wait, false},
		"another has one":               {[]func(*unit){knows, app(relations.Turns, "ci/1=100"), runs}, supervisor.Wait, false},
		"it has one":                    {[]func(*unit){knows, app(relations.Turns, "ci/1=7 ci/0=100"), runs}, supervisor.TakeTurn, false},
		"the process before had one":    {[]func(*unit){knows, app(relations.Turns, "ci/0=99"), runs}, supervisor.Wait, false},
		"one of the former charm":       {[]func(*unit){knows, app(relations.Turns, "ci/0=")}, supervisor.TakeTurn, false},
		"it may land":                   {[]func(*unit){served(map[string]string{relations.MayLand: "ci-1 ci-0"}), app(relations.Turns, "ci/0=100"), runs}, supervisor.TakeTurn, true},
		"no web server has it for long": {[]func(*unit){knows, none, served(map[string]string{relations.MissingWorkers: "ci-0"})}, supervisor.Unlisted, false},
	} {
		t.Run(name, func(t *testing.T) {
			spec := plan.Make(follower(test.changes...).in).Spec
			require.Equal(t, test.turn, spec.Turn)
			require.Equal(t, test.may, spec.MayLand)
			require.Equal(t, name == "its process has landed", spec.Landed)
			require.Empty(t, spec.Landing, "its web server is elsewhere")
		})
	}
}

// cluster is a leader with the web server, at rest, and two workers.
func cluster(changes ...func(*unit)) unit {
	return leader(append([]func(*unit){func(u *unit) {
		u.in.Status.Workers, u.in.Status.Began = "ci-1 ci-2", "ci-1=100 ci-2=200"
		for unit, process := range map[string]string{"ci/1": "99", "ci/2": "199"} {
			u.in.Juju.Peers.Units[unit] = map[string]string{relations.ConcourseVersion: old, relations.WorkerProcess: process}
		}
	}}, changes...)...)
}

func says(who, setting, value string) func(*unit) {
	return func(u *unit) { u.in.Juju.Peers.Units[who][setting] = value }
}

// Whom the leader gives a turn, and what it says meanwhile.
func TestLeaderGivesTurns(t *testing.T) {
	due, both := says("ci/2", relations.WorkerDue, old), says("ci/1", relations.WorkerDue, old)
	of := func(turns string) func(*unit) { return app(relations.Turns, turns) }
	missing := status(func(s *supervisor.Status) { s.Workers, s.Began, s.Missing = "ci-1", "ci-1=100", "ci-2" })
	for name, test := range map[string]struct {
		changes []func(*unit)
		turns   string
		status  string
	}{
		"nobody is due":     {nil, relations.None, "active Web server ready (v7.14.2)"},
		"one is due":        {[]func(*unit){due}, "ci/2=199", "maintenance Replacing the workers (v7.14.2): 1 of 2 are through..."},
		"two are due":       {[]func(*unit){due, both}, "ci/1=99", "maintenance Replacing the workers (v7.14.2): 0 of 2 are through..."},
		"two may":           {[]func(*unit){due, both, config(func(c *plan.Config) { c.MaxUnavailable = 2 })}, "ci/1=99 ci/2=199", "maintenance Replacing the workers (v7.14.2): 0 of 2 are through..."},
		"one has a turn":    {[]func(*unit){due, both, of("ci/2=199")}, "ci/2=199", "maintenance Replacing the workers (v7.14.2): 0 of 2 are through..."},
		"its worker starts": {[]func(*unit){both, of("ci/2=199"), says("ci/2", relations.WorkerProcess, "201")}, "ci/2=199", "maintenance Replacing the workers (v7.14.2): 0 of 2 are through..."},
		"its worker runs":   {[]func(*unit){both, of("ci/2=199"), says("ci/2", relations.WorkerProcess, "200")}, "ci/1=99", "maintenance Replacing the workers (v7.14.2): 1 of 2 are through..."},
		"it is missing":     {[]func(*unit){due, both, of("ci/2=199"), missing}, "ci/1=99", "maintenance Replacing the workers (v7.14.2): 0 of 2 are through, and there is no worker of ci/2..."},
		"the new one is missing": {[]func(*unit){both, of("ci/2=199"), says("ci/2", relations.WorkerProcess, "201"), missing}, "ci/2=199",
			"blocked Replacing the workers (v7.14.2) has stopped at 0 of 2: the new worker of ci/2 does not run; see journalctl -u concourse-worker.service there, and set right what it names, or remove the unit"},
		"the new one is missing, two may": {[]func(*unit){both, of("ci/2=199"), says("ci/2", relations.WorkerProcess, "201"), missing, config(func(c *plan.Config) { c.MaxUnavailable = 2 })},
			"ci/1=99 ci/2=199", "maintenance Replacing the workers (v7.14.2): 0 of 2 are through, and there is no worker of ci/2..."},
		"only it is missing": {[]func(*unit){due, of("ci/2=199"), missing}, relations.None, "active Web server ready (v7.14.2)"},
		"it is being removed": {[]func(*unit){due, both, of("ci/2=199"), func(u *unit) {
			u.in.Juju.Members.Dying = []string{"ci/2"}
		}}, "ci/1=99", "maintenance Replacing the workers (v7.14.2): 0 of 2 are through..."},
		"it has got the web server": {[]func(*unit){both, of("ci/0=7")}, "ci/1=99", "maintenance Replacing the workers (v7.14.2): 1 of 2 are through..."},
		"it is gone": {[]func(*unit){both, of("ci/2=199"), func(u *unit) { delete(u.in.Juju.Peers.Units, "ci/2") }},
			"ci/1=99", "maintenance Replacing the workers (v7.14.2): 0 of 1 are through..."},
		"it runs another version":             {[]func(*unit){says("ci/2", relations.ConcourseVersion, "7.14.1")}, relations.None, "maintenance Replacing the workers (v7.14.2): 1 of 2 are through..."},
		"it has not heard of the options":     {[]func(*unit){says("ci/2", relations.WorkerSettings, "others")}, relations.None, "maintenance Replacing the workers (v7.14.2): 1 of 2 are through..."},
		"no web server has proven the target": {[]func(*unit){due, app(relations.TargetVersion, next)}, relations.None, "maintenance Upgrading to v7.14.3..."},
		"a turn goes on in an upgrade":        {[]func(*unit){due, of("ci/2=199"), app(relations.TargetVersion, next)}, "ci/2=199", "maintenance Upgrading to v7.14.3..."},
	} {
		t.Run(name, func(t *testing.T) {
			got := plan.Make(cluster(test.changes...).in)
			require.Equal(t, test.turns, got.Changes.App[relations.Turns])
			require.Equal(t, test.status, string(got.Changes.Status.Level)+" "+got.Changes.Status.Message)
		})
	}
}

// The web server's unit stays for those with a turn who are due, as the leader has said.
func TestWebServerHearsOfTurns(t *testing.T) {
	due := says("ci/2", relations.WorkerDue, old)
	require.Empty(t, plan.Make(cluster(due).in).Spec.Landing, "what this hook decides is not said yet")
	require.Equal(t, []string{"ci/2"}, plan.Make(cluster(due, app(relations.Turns, "ci/1=9 ci/2=9")).in).Spec.Landing)
	may := status(func(s *supervisor.Status) { s.MayLand, s.Missing = "ci-2", "ci-1" })
	self := plan.Make(cluster(may).in).Changes.Self
	require.Equal(t, []string{"ci-2", "ci-1", "ci-1=100 ci-2=200"},
		[]string{self[relations.MayLand], self[relations.MissingWorkers], self[relations.WorkersBegan]})
	require.Equal(t, relations.None, plan.Make(cluster().in).Changes.Self[relations.MayLand], "it knows turns")
}

// What a worker's unit says of its turn.
func TestWorkerSaysHowFarItIs(t *testing.T) {
	got := plan.Make(follower(status(func(s *supervisor.Status) { s.Due, s.Process = next, "100" })).in)
	require.Equal(t, "Waiting for its turn to replace the worker (v7.14.3)...", got.Changes.Status.Message)
	require.Equal(t, []string{next, "100"}, []string{got.Changes.Self[relations.WorkerDue], got.Changes.Self[relations.WorkerProcess]})
	got = plan.Make(follower(status(func(s *supervisor.Status) { s.Due, s.Landing = next, true })).in)
	require.Equal(t, "Landing the worker for v7.14.3: it ends with its builds, in 0s at most...", got.Changes.Status.Message)

	settings := plan.Make(follower().in).Changes.Self[relations.WorkerSettings]
	require.NotEmpty(t, settings)
	tagged := follower(config(func(c *plan.Config) { c.Tag = "gpu" }))
	require.Empty(t, plan.Make(tagged.in).Changes.Self[relations.WorkerSettings], "it does not run with them yet")
	tagged.settle()
	require.NotEqual(t, settings, plan.Make(tagged.in).Changes.Self[relations.WorkerSettings])
}

// Where every unit has a web server it stays for its own worker alone, and the version is
// proven before any worker has had its turn.
func TestTurnsWhereEveryUnitHasBoth(t *testing.T) {
	both := func(changes ...func(*unit)) unit {
		return cluster(append([]func(*unit){config(func(c *plan.Config) { c.Mode = "all" }), func(u *unit) { u.settle() }}, changes...)...)
	}
	waits := status(func(s *supervisor.Status) {
		s.Due, s.Process, s.Workers, s.Began = old, "100", "ci-0 ci-1 ci-2", "ci-0=100 ci-1=100 ci-2=200"
	})
	u := both(waits, app(relations.ActiveVersion, ""), says("ci/1", relations.WorkerDue, old))
	u.in.Status.Worker.Is = "another"
	got := plan.Make(u.in)
	require.Equal(t, old, got.Changes.App[relations.ActiveVersion])
	u = both(waits, says("ci/1", relations.WorkerDue, old), says("ci/1", relations.RunningWorkers, "ci-1"),
		app(relations.Turns, "ci/0=100 ci/1=99"), config(func(c *plan.Config) { c.MaxUnavailable = 2 }))
	got = plan.Make(u.in)
	require.Equal(t, []string{"ci/0"}, got.Spec.Landing)
	require.Equal(t, supervisor.TakeTurn, got.Spec.Turn)
	require.Equal(t, "ci/0=100 ci/1=99", got.Changes.App[relations.Turns])
}

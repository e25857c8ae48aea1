package supervisor_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/concourse"
	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/supervisor"
)

// upgraded is a unit whose worker runs 7.14.2 and has to become 7.14.3.
func upgraded(turn supervisor.Turn) (supervisor.Spec, supervisor.Seen, supervisor.Memory) {
	spec := supervisor.Spec{
		Unit: "ci/1", Run: "7.14.2", Proven: "7.14.2", Turn: turn, DrainTimeout: time.Hour, Worker: &concourse.Worker{Name: "ci-1"},
	}
	seen := supervisor.Seen{
		Installed: map[string]string{"7.14.2": "", "7.14.3": ""}, Current: "7.14.3", CurrentBy: "ci/0", WorkDir: "/w",
		Running: map[string]bool{}, ToldAgo: time.Hour,
	}
	m := supervisor.Memory{Running: "7.14.2"}
	started := supervisor.Next(paths, spec, seen, m).Worker
	started.At = time.Unix(100, 0)
	m, seen.Running[concourse.WorkerUnit] = m.Did(started, spec), true
	spec.Run, spec.Proven = "7.14.3", "7.14.3"
	return spec, seen, m
}

// A worker that runs is replaced in its turn, after it has landed.
func TestTurns(t *testing.T) {
	const keep = supervisor.Verb("")
	told := func(ago time.Duration) func(*supervisor.Spec, *supervisor.Seen, *supervisor.Memory) {
		return func(spec *supervisor.Spec, seen *supervisor.Seen, m *supervisor.Memory) {
			at := time.Unix(200, 0)
			*m = m.Did(supervisor.Task{Verb: supervisor.Land, Service: concourse.Service{Unit: concourse.WorkerUnit}, At: at}, *spec)
			seen.LandedFor, seen.ToldAgo = ago, ago
		}
	}
	type change = func(*supervisor.Spec, *supervisor.Seen, *supervisor.Memory)
	mayLand := func(spec *supervisor.Spec, _ *supervisor.Seen, _ *supervisor.Memory) { spec.MayLand = true }
	ended := func(_ *supervisor.Spec, seen *supervisor.Seen, _ *supervisor.Memory) {
		seen.Running = map[string]bool{}
	}
	back := func(spec *supervisor.Spec, _ *supervisor.Seen, _ *supervisor.Memory) {
		spec.Run, spec.Proven = "7.14.2", "7.14.2"
	}
	listed := func(state string, began int64) change {
		return func(_ *supervisor.Spec, seen *supervisor.Seen, _ *supervisor.Memory) {
			seen.Workers, seen.Began = map[string]string{"ci-1": state}, map[string]int64{"ci-1": began}
		}
	}
	for name, test := range map[string]struct {
		turn    supervisor.Turn
		changes []change
		due     string
		run     string
		verb    supervisor.Verb
	}{
		"it waits":                       {supervisor.Wait, nil, "7.14.3", "7.14.2", keep},
		"no turn is needed":              {supervisor.NoTurn, nil, "", "7.14.3", keep}, // once it is pinned
		"no web server lists it":         {supervisor.Unlisted, nil, "7.14.3", "7.14.2", keep},
		"none does so for long":          {supervisor.Unlisted, []change{func(_ *supervisor.Spec, seen *supervisor.Seen, _ *supervisor.Memory) { seen.UnlistedFor = time.Minute }}, "", "7.14.3", keep},
		"none does so since it was told": {supervisor.Unlisted, []change{told(time.Minute)}, "7.14.3", "7.14.2", keep},
		"none does so for long since":    {supervisor.Unlisted, []change{told(time.Minute), func(_ *supervisor.Spec, seen *supervisor.Seen, _ *supervisor.Memory) { seen.UnlistedFor = time.Minute }}, "7.14.3", "7.14.3", keep},
		"the one before has landed":      {supervisor.TakeTurn, []change{told(time.Minute), listed(concourse.Landed, 99)}, "7.14.3", "7.14.2", keep},
		"it has landed":                  {supervisor.TakeTurn, []change{told(time.Minute), listed(concourse.Landed, 100)}, "7.14.3", "7.14.3", keep},
		"there is nothing to do":         {supervisor.Wait, []change{back}, "", "7.14.2", keep},
		"it does not run":                {supervisor.Wait, []change{ended}, "", "7.14.3", keep},
		"its web server may not stay":    {supervisor.TakeTurn, nil, "7.14.3", "7.14.2", keep},
		"its web server stays":           {supervisor.TakeTurn, []change{mayLand}, "7.14.3", "7.14.2", supervisor.Land},
		"a turn, and nothing to do":      {supervisor.TakeTurn, []change{mayLand, back}, "", "7.14.2", keep},
		"it was just told":               {supervisor.TakeTurn, []change{mayLand, told(time.Second)}, "7.14.3", "7.14.2", keep},
		"it lands":                       {supervisor.TakeTurn, []change{told(time.Minute)}, "7.14.3", "7.14.2", keep},
		"it has forgotten":               {supervisor.TakeTurn, []change{mayLand, told(time.Minute)}, "7.14.3", "7.14.2", supervisor.Land},
		"it has ended":                   {supervisor.TakeTurn, []change{told(time.Minute), ended}, "7.14.3", "7.14.3", keep},
		"it has no builds":               {supervisor.TakeTurn, []change{told(time.Minute), func(spec *supervisor.Spec, _ *supervisor.Seen, _ *supervisor.Memory) { spec.Landed = true }}, "7.14.3", "7.14.3", keep},
		"it was not told yet":            {supervisor.TakeTurn, []change{mayLand, func(spec *supervisor.Spec, _ *supervisor.Seen, _ *supervisor.Memory) { spec.Landed = true }}, "7.14.3", "7.14.2", supervisor.Land},
		"its time is over":               {supervisor.TakeTurn, []change{mayLand, told(time.Hour)}, "7.14.3", "7.14.3", keep},
		"it has no time":                 {supervisor.TakeTurn, []change{func(spec *supervisor.Spec, _ *supervisor.Seen, _ *supervisor.Memory) { spec.DrainTimeout = 0 }}, "7.14.3", "7.14.3", keep},
		"who was told stays told":        {supervisor.Wait, []change{mayLand, told(time.Minute)}, "7.14.3", "7.14.2", supervisor.Land},
		"whatever it was to become":      {supervisor.Wait, []change{mayLand, told(time.Minute), back}, "7.14.2", "7.14.2", supervisor.Land},
		"its leader knows turns no more": {supervisor.NoTurn, []change{told(time.Minute)}, "7.14.3", "7.14.2", keep},
		"the volume that it runs from went": {supervisor.Wait, []change{func(_ *supervisor.Spec, seen *supervisor.Seen, _ *supervisor.Memory) {
			seen.Fault = supervisor.NotMounted
		}}, "", "7.14.2", supervisor.Stop},
	} {
		t.Run(name, func(t *testing.T) {
			spec, seen, m := upgraded(test.turn)
			for _, change := range test.changes {
				change(&spec, &seen, &m)
			}
			due := supervisor.Next(paths, spec, seen, m)
			require.Equal(t, test.due, due.Due)
			require.Equal(t, test.run, due.Run)
			require.Equal(t, test.verb, due.Worker.Verb)
			if test.run == "7.14.2" {
				require.Empty(t, due.Pin, "what it runs is to be kept")
				return
			}
			require.Equal(t, "7.14.3", due.Pin)
			m.Running = "7.14.3"
			due = supervisor.Next(paths, spec, seen, m)
			require.Equal(t, supervisor.Start, due.Worker.Verb)
			require.Zero(t, m.Did(due.Worker, spec).Started[concourse.WorkerUnit].Told, "the next one was told nothing")
		})
	}
}

// A restart that was asked for takes a turn, unless it is to be at once; the next process was
// started for it.
func TestRestartOfAWorker(t *testing.T) {
	for turn, verb := range map[supervisor.Turn]supervisor.Verb{supervisor.Wait: "", supervisor.TakeTurn: supervisor.Land} {
		spec, seen, m := upgraded(turn)
		spec.Run, spec.Proven, spec.MayLand, seen.Current = "7.14.2", "7.14.2", true, "7.14.2"
		due := supervisor.Next(paths, spec, seen, m)
		require.Empty(t, due.Worker.Verb)
		require.Empty(t, due.Due)
		spec.Restarts = "one"
		due = supervisor.Next(paths, spec, seen, m)
		require.Equal(t, verb, due.Worker.Verb)
		require.Equal(t, "7.14.2", due.Due)
		var s supervisor.Status
		s.Note(spec, seen, m, due)
		require.Empty(t, s.Restarted)
		spec.AtOnce = true
		due = supervisor.Next(paths, spec, seen, m)
		require.Equal(t, supervisor.Start, due.Worker.Verb)
		m = m.Did(due.Worker, spec)
		due = supervisor.Next(paths, spec, seen, m)
		require.Empty(t, due.Worker.Verb)
		s.Note(spec, seen, m, due)
		require.Equal(t, "one", s.Restarted)
	}
}

// A worker beside its web server lands when that is to stay.
func TestTurnBesideTheWebServer(t *testing.T) {
	spec, seen, m := upgraded(supervisor.TakeTurn)
	spec.Web, spec.Landing = &concourse.Web{}, []string{"ci/1"}
	seen.Supported = map[string]int64{"7.14.3": 0, "7.14.2": 0}
	due := supervisor.Next(paths, spec, seen, m)
	require.Equal(t, "7.14.3", due.Run, "the web server waits for no turn")
	m.Running = "7.14.3"
	due = supervisor.Next(paths, spec, seen, m)
	require.Equal(t, []supervisor.Verb{supervisor.Start, ""}, []supervisor.Verb{due.Web.Verb, due.Worker.Verb})
	m, seen.Running[concourse.ServerUnit] = m.Did(due.Web, spec), true
	due = supervisor.Next(paths, spec, seen, m)
	require.Empty(t, due.Stays, "it does not answer yet")
	seen.WebServes, seen.Workers = true, map[string]string{"ci-1": concourse.Running}
	require.Empty(t, supervisor.Next(paths, spec, seen, m).Stays, "it has not taken up the builds yet")
	seen.TakenUp = map[string]bool{"ci-1": true}
	due = supervisor.Next(paths, spec, seen, m)
	require.Equal(t, []string{"ci/1"}, due.Stays)
	require.Empty(t, due.Worker.Verb, "that it stays is not kept yet")
	m.Stays = due.Stays
	require.Equal(t, supervisor.Land, supervisor.Next(paths, spec, seen, m).Worker.Verb)
}

// A web server that serves is not changed while a worker lands, or is about to be told so.
func TestWebServerStaysForWorkersThatLand(t *testing.T) {
	spec := supervisor.Spec{Unit: "ci/0", Run: "7.14.3", Proven: "7.14.3", Web: &concourse.Web{}, DrainTimeout: time.Hour, Landing: []string{"ci/1"}}
	seen := supervisor.Seen{
		Installed: map[string]string{"7.14.3": ""}, Current: "7.14.3", CurrentBy: "ci/0", Supported: map[string]int64{"7.14.3": 0},
		Running: map[string]bool{}, WebServes: true, TakenUp: map[string]bool{"ci-1": true, "ci-2": true},
	}
	m := supervisor.Memory{Running: "7.14.3"}
	m, seen.Running[concourse.ServerUnit] = m.Did(supervisor.Next(paths, spec, seen, m).Web, spec), true
	m.Stays = supervisor.Next(paths, spec, seen, m).Stays
	require.Equal(t, []string{"ci/1"}, m.Stays)

	spec.Web = &concourse.Web{ExternalURL: "https://ci.example.com"}
	spec.Landing = append(spec.Landing, "ci/2")
	due := supervisor.Next(paths, spec, seen, m)
	require.Empty(t, due.Web.Verb)
	require.Equal(t, []string{"ci/1"}, due.Stays, "the next one has to wait for the web server")
	m.Stays, seen.WebServes = due.Stays, false
	require.Equal(t, supervisor.Start, supervisor.Next(paths, spec, seen, m).Web.Verb, "it does not serve anyhow")
	seen.WebServes, spec.Landing = true, []string{"ci/2"}
	due = supervisor.Next(paths, spec, seen, m)
	require.Equal(t, supervisor.Start, due.Web.Verb, "the turn is over")
	require.Empty(t, due.Stays)
	seen.Lands = true
	require.Empty(t, supervisor.Next(paths, spec, seen, m).Web.Verb, "the worker lands on")
}

// What the list says of workers: who is away, and who is missing.
func TestListed(t *testing.T) {
	spec := supervisor.Spec{Unit: "ci/0", Web: &concourse.Web{Address: "10.0.0.1"}, DrainTimeout: time.Hour, Members: []string{"ci/0", "ci/1", "ci/2"}}
	const absence, takeUp = 20 * time.Second, 30 * time.Second
	var l supervisor.Listed
	at := func(seconds int) time.Time { return time.Unix(1000, 0).Add(time.Duration(seconds) * time.Second) }
	worker := func(name, state string) concourse.ListedWorker {
		return concourse.ListedWorker{Name: name, State: state, Address: "10.0.0.1:7000", Began: 7}
	}
	tell := func(now int, serves bool) (seen supervisor.Seen, status supervisor.Status) {
		seen.WebServes = serves
		l.Tell(at(now), spec, absence, takeUp, &seen, &status)
		return seen, status
	}
	for now := 0; now <= 120; now += 10 {
		l.Read(at(now), spec, supervisor.Listing{Workers: []concourse.ListedWorker{worker("ci-1", "running")}})
		seen, status := tell(now, true)
		require.Equal(t, now >= 30, seen.TakenUp["ci-1"])
		require.Equal(t, "ci-1=7", status.Began)
		require.Equal(t, map[bool]string{true: "ci-2"}[now >= 120], status.Missing)
	}
	l.Read(at(130), spec, supervisor.Listing{Workers: []concourse.ListedWorker{worker("ci-1", "landing")}})
	seen, status := tell(130, true)
	require.True(t, seen.Lands)
	require.Equal(t, []string{"", "", "ci-2"}, []string{status.Workers, status.Began, status.Missing})
	tell(135, false)
	l.Read(at(140), spec, supervisor.Listing{Workers: []concourse.ListedWorker{worker("ci-1", "running")}})
	seen, status = tell(140, true)
	require.False(t, seen.Lands || seen.TakenUp["ci-1"], "another process of the web server")
	require.Empty(t, status.Missing, "that has to wait for it as long")
	_, status = tell(170, true)
	require.Equal(t, supervisor.Status{}, status, "the list is old")
	l.Read(at(180), spec, supervisor.Listing{Workers: []concourse.ListedWorker{worker("ci-1", "landing")}})
	for now := 190; now <= 180+3600+120; now += 10 {
		l.Read(at(now), spec, supervisor.Listing{Workers: []concourse.ListedWorker{worker("ci-1", "landing")}})
	}
	seen, _ = tell(180+3600+120, true)
	require.False(t, seen.Lands, "it does not end")
}

// A worker that lands while no build runs at all has landed, and where none runs there is
// nothing that a new web server would have to take up. But it has to have the worker: the
// first list of a process shows those of the process before, at the same address.
func TestListedWithoutBuilds(t *testing.T) {
	spec := supervisor.Spec{Unit: "ci/0", Web: &concourse.Web{Address: "10.0.0.1"}, DrainTimeout: time.Hour, Members: []string{"ci/1"}}
	var l supervisor.Listed
	for at, look := range []struct {
		process      int
		address      string
		builds       bool
		landed, here bool
	}{
		{process: 1, address: "10.0.0.1:7000", builds: true},
		{process: 1, address: "10.0.0.1:7000", landed: true},
		{process: 1, address: "10.0.0.1:7001", landed: true, here: true},
		{process: 1, address: "10.0.0.1:7001", builds: true, here: true},
		{process: 2, address: "10.0.0.1:7001", landed: true},
		{process: 2, address: "10.0.0.1:7001", landed: true},
		{process: 2, address: "10.0.0.1:7002", builds: true},
		{process: 2, address: "10.0.0.1:7002", landed: true, here: true},
	} {
		now := time.Unix(1000+int64(at), 0)
		l.Forget(look.process)
		l.Read(now, spec, supervisor.Listing{Idle: !look.builds, Workers: []concourse.ListedWorker{{Name: "ci-1", State: "landing", Address: look.address}}})
		seen, status := supervisor.Seen{WebServes: true}, supervisor.Status{}
		l.Tell(now, spec, time.Minute, time.Minute, &seen, &status)
		require.Equal(t, look.landed, status.Landed == "ci-1=0", "look %d", at)
		require.Equal(t, look.here, seen.TakenUp["ci-1"], "look %d", at)
		require.Equal(t, !look.landed, seen.Lands, "look %d", at)
	}
}

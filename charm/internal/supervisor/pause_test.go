package supervisor_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/concourse"
	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/supervisor"
)

// A worker that is paused, or whose unit leaves, ends with its builds, for as long as these
// may go on, and does not start again.
func TestLandsForGood(t *testing.T) {
	type change = func(*supervisor.Spec, *supervisor.Seen, *supervisor.Memory)
	const keep, start, land, stop = supervisor.Verb(""), supervisor.Start, supervisor.Land, supervisor.Stop
	mayLand := func(spec *supervisor.Spec, _ *supervisor.Seen, _ *supervisor.Memory) { spec.MayLand = true }
	ended := func(_ *supervisor.Spec, seen *supervisor.Seen, m *supervisor.Memory) {
		seen.Running = map[string]bool{}
		m.Started = nil
	}
	for name, test := range map[string]struct {
		changes         []change
		paused, leaving supervisor.Verb
		run             string // while it is paused
	}{
		"its web server may not stay": {nil, keep, land, "7.14.2"}, // who leaves hears of nothing any more
		"its web server stays":        {[]change{mayLand}, land, land, "7.14.2"},
		"it was just told": {[]change{mayLand, func(_ *supervisor.Spec, seen *supervisor.Seen, _ *supervisor.Memory) {
			seen.ToldAgo = time.Second
		}}, keep, keep, "7.14.2"},
		"it has landed": {[]change{func(spec *supervisor.Spec, _ *supervisor.Seen, _ *supervisor.Memory) { spec.Landed = true }}, stop, land, "7.14.3"}, // the process before, it may be
		"its time is over": {[]change{mayLand, func(_ *supervisor.Spec, seen *supervisor.Seen, _ *supervisor.Memory) {
			seen.LandedFor = time.Hour
		}}, stop, keep, "7.14.3"},
		"its volume is lost": {[]change{mayLand, func(_ *supervisor.Spec, seen *supervisor.Seen, _ *supervisor.Memory) {
			seen.Fault = supervisor.NotMounted
		}}, stop, keep, "7.14.2"},
		"its web server is gone": {[]change{mayLand, func(_ *supervisor.Spec, seen *supervisor.Seen, _ *supervisor.Memory) {
			seen.Webless = time.Minute
		}}, land, keep, "7.14.2"}, // it fails, and the builds go on
		"it is out": {[]change{ended}, keep, keep, "7.14.3"},
	} {
		t.Run(name, func(t *testing.T) {
			for _, turn := range []supervisor.Turn{supervisor.NoTurn, supervisor.Wait, supervisor.TakeTurn} {
				spec, seen, m := upgraded(turn)
				spec.Paused = true
				for _, change := range test.changes {
					change(&spec, &seen, &m)
				}
				due := supervisor.Next(paths, spec, seen, m)
				require.Equal(t, test.paused, due.Worker.Verb, turn)
				require.Equal(t, test.run, due.Run)
				require.Empty(t, due.Due, "it needs no turn")
				require.Equal(t, test.run == "7.14.3", due.Pin == "7.14.3", "it takes the new release when it is out")

				spec.Paused, spec.Leaving = false, true
				due = supervisor.Next(paths, spec, seen, m)
				require.Equal(t, test.leaving, due.Worker.Verb, turn)
				retires := test.leaving == keep && name != "it was just told" && name != "it is out"
				require.Equal(t, retires, due.RetireSelf)
			}
		})
	}
	spec, seen, m := upgraded(supervisor.Wait)
	ended(&spec, &seen, &m)
	m.Running = "7.14.3"
	require.Equal(t, start, supervisor.Next(paths, spec, seen, m).Worker.Verb, "it is resumed")
}

// Beside its web server, a worker that is paused lands when that is to stay, and one whose
// unit leaves when that has taken its builds up.
func TestLandsForGoodBesideTheWebServer(t *testing.T) {
	spec, seen, m := upgraded(supervisor.NoTurn)
	spec.Web, spec.Paused = &concourse.Web{}, true
	seen.WebServes, seen.Workers = true, map[string]string{"ci-1": concourse.Running}
	verb := func() supervisor.Verb { return supervisor.Next(paths, spec, seen, m).Worker.Verb }
	require.Empty(t, verb())
	seen.TakenUp = map[string]bool{"ci-1": true}
	require.Empty(t, verb(), "that it stays is not kept yet")
	m.Stays = []string{"ci/1"}
	require.Equal(t, supervisor.Land, verb())
	spec.Paused, spec.Leaving, m.Stays = false, true, nil
	require.Equal(t, supervisor.Land, verb())
	seen.Workers["ci-1"] = concourse.Landing
	require.Equal(t, supervisor.Due{}, supervisor.Next(paths, spec, seen, m), "its builds go on")
}

// The web server of a unit that leaves stays while workers of others land with it, for as long
// as builds may go on, and before it parts as after that.
func TestWebServerLeavesLast(t *testing.T) {
	spec := supervisor.Spec{Unit: "ci/1", Leaving: true, DrainTimeout: time.Hour, Members: []string{"ci/1", "ci/2"}, Web: &concourse.Web{}}
	serves := map[string]supervisor.Started{concourse.ServerUnit: {}}
	for name, test := range map[string]struct {
		seen   supervisor.Seen
		stays  bool
		parted bool
	}{
		"nobody lands":                  {supervisor.Seen{WebServes: true}, false, false},
		"a worker lands":                {supervisor.Seen{WebServes: true, Lands: true}, true, false},
		"one lands when it has parted":  {supervisor.Seen{WebServes: true, Lands: true}, true, true},
		"its time is over":              {supervisor.Seen{WebServes: true, Lands: true, LandedFor: time.Hour}, false, false},
		"the web server does not serve": {supervisor.Seen{Lands: true}, false, false},
	} {
		due := supervisor.Next(paths, spec, test.seen, supervisor.Memory{Started: serves, Parted: test.parted})
		require.Equal(t, !test.stays, due.Part || due.Web.Verb == supervisor.Stop, name)
		require.Equal(t, !test.stays && !test.parted, due.Part, name)
	}
}

// How long builds have had: from when they were asked to end.
func TestTimeOfBuilds(t *testing.T) {
	at := time.Unix(1000, 0)
	m := supervisor.Memory{Started: map[string]supervisor.Started{concourse.WorkerUnit: {Told: at.Add(-time.Minute)}}}
	asked, lands := at.Add(-time.Hour), at.Add(-time.Second)
	for want, spec := range map[time.Duration]supervisor.Spec{
		time.Minute: {Asked: asked}, time.Second: {Land: true, Asked: asked}, time.Hour: {Paused: true, Land: true, Asked: asked}, 0: {Leaving: true},
	} {
		require.Equal(t, want, spec.LandedFor(at, lands, m))
	}
	require.Equal(t, time.Hour, supervisor.Spec{Leaving: true, Asked: asked}.LandedFor(at, lands, m))
}

// A worker that is paused stays out when its supervisor is started anew, takes a release over
// meanwhile, and starts from that.
func TestPausedWorkerStaysOut(t *testing.T) {
	web := newWebServer(t, map[string]string{})
	m, c := newMirror(t), newCharm(t)
	end := c.run(t)
	did := func(what string) func() bool {
		return func() bool { return slices.Contains(c.system.Done(), what) }
	}
	const signal, begin = "SIGUSR1 " + concourse.WorkerUnit, "start " + concourse.WorkerUnit
	spec := m.serving(t.TempDir(), 1, "7.14.2")
	spec.Web, spec.Turn, spec.DrainTimeout, spec.Watch = nil, supervisor.Wait, time.Hour, []string{fmt.Sprintf("127.0.0.1:%d", web.port)}
	require.NoError(t, c.files.PutSpec(spec))
	eventually(t, "the worker", did(begin))
	spec.Paused, spec.Asked, spec.MayLand = true, time.Now(), true
	require.NoError(t, c.files.PutSpec(spec))
	eventually(t, "the signal", did(signal))
	eventually(t, "that it lands", c.saw(func(s supervisor.Status) bool { return s.Landing && !s.Paused && s.Due == "" }))
	c.system.Stop(concourse.WorkerUnit)
	eventually(t, "that it is out", c.saw(func(s supervisor.Status) bool { return s.Paused && !s.Landing }))
	end()
	c.system.Done()
	end = c.run(t)
	defer end()
	spec.Fetch, spec.Run, spec.Proven = "7.14.3", "7.14.3", "7.14.3"
	require.NoError(t, c.files.PutSpec(spec))
	eventually(t, "the release", c.saw(func(s supervisor.Status) bool { return s.Run == "7.14.3" && s.Paused }))
	require.Empty(t, c.system.Done(), "it stays out")
	spec.Paused = false
	require.NoError(t, c.files.PutSpec(spec))
	eventually(t, "the worker", did(begin))
	definition, _ := c.system.Definition(concourse.WorkerUnit)
	require.Contains(t, definition, "7.14.3/bin/concourse worker")
	eventually(t, "that it is not paused", c.saw(func(s supervisor.Status) bool { return !s.Paused }))
}

// A unit that leaves has its worker end with its builds, and says so; where no web server
// answers for long, nobody could tell that they have ended.
func TestLeavesWithItsBuilds(t *testing.T) {
	web := newWebServer(t, map[string]string{})
	m, c := newMirror(t), start(t)
	spec := m.serving(t.TempDir(), 1, "7.14.3")
	spec.Web, spec.DrainTimeout, spec.Watch = nil, time.Hour, []string{fmt.Sprintf("127.0.0.1:%d", web.port)}
	require.NoError(t, c.files.PutSpec(spec))
	var did []string
	done := func(what string) func() bool {
		return func() bool { did = append(did, c.system.Done()...); return slices.Contains(did, what) }
	}
	eventually(t, "the worker", done("start "+concourse.WorkerUnit))
	did = nil
	spec.Leaving, spec.Asked = true, time.Now()
	require.NoError(t, c.files.PutSpec(spec))
	eventually(t, "the signal", done("SIGUSR1 "+concourse.WorkerUnit))
	eventually(t, "that it lands", c.saw(func(s supervisor.Status) bool { return s.Landing && !s.Left }))
	time.Sleep(200 * time.Millisecond)
	require.False(t, done("remove "+concourse.WorkerUnit)(), "its builds go on")
	c.system.Stop(concourse.WorkerUnit)
	eventually(t, "that it has left", c.saw(func(s supervisor.Status) bool { return s.Left && !s.Landing }))
	require.True(t, done("remove "+concourse.WorkerUnit)())
	require.Equal(t, []string{"SIGUSR1 " + concourse.WorkerUnit, "concourse retire-worker --name=ci-0", "remove " + concourse.WorkerUnit}, did)
}

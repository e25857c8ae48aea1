package supervisor_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/concourse"
	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/supervisor"
)

var paths = concourse.Paths{Volume: "/var/lib/concourse", State: "/var/lib/state"}

// Which version a unit runs; the rest of Next is tested together with the plan.
func TestVersionToRun(t *testing.T) {
	const old, next = "7.14.2", "7.14.3"
	both := map[string]string{old: "sha256:old", next: "sha256:next"}
	for name, test := range map[string]struct {
		spec      supervisor.Spec
		installed map[string]string
		running   string
		want      string
	}{
		"nothing is installed":        {supervisor.Spec{Run: old}, nil, "", ""},
		"the first":                   {supervisor.Spec{Run: old}, both, "", old},
		"the next":                    {supervisor.Spec{Run: next}, both, old, next},
		"the next is not there yet":   {supervisor.Spec{Run: next}, map[string]string{old: "sha256:old"}, old, old},
		"none is wanted":              {supervisor.Spec{}, both, old, old},
		"what ran is damaged":         {supervisor.Spec{Run: old}, nil, old, ""},
		"pinned, and the same":        {supervisor.Spec{Run: next, Digest: "sha256:next"}, both, old, next},
		"pinned, and another archive": {supervisor.Spec{Run: next, Digest: "sha256:0"}, both, old, old},
		"pinned after it was started": {supervisor.Spec{Run: old, Digest: "sha256:0"}, both, old, old},
		"pinned after others ran it":  {supervisor.Spec{Run: old, Digest: "sha256:0", Proven: old}, both, "", old},
		"pinned before it was known":  {supervisor.Spec{Run: old, Digest: "sha256:0"}, both, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			due := supervisor.Next(paths, test.spec, supervisor.Seen{Installed: test.installed}, supervisor.Memory{Running: test.running})
			require.Equal(t, test.want, due.Run)
		})
	}
}

// A release that is not what the leader has found is not run, whoever says it is.
func TestContents(t *testing.T) {
	const old, next = "7.14.2", "7.14.3"
	seen := supervisor.Seen{
		Installed: map[string]string{old: "sha256:old", next: "sha256:next"},
		Contents:  map[string]string{old: "sha256:1", next: "sha256:2"},
	}
	for name, test := range map[string]struct {
		contents map[string]string
		want     string
	}{
		"nobody has said":     {nil, next},
		"as it should be":     {map[string]string{next: "sha256:2"}, next},
		"the next is changed": {map[string]string{old: "sha256:1", next: "sha256:0"}, old},
		"both are changed":    {map[string]string{old: "sha256:0", next: "sha256:0"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			spec := supervisor.Spec{Run: next, Contents: test.contents}
			require.Equal(t, test.want, supervisor.Next(paths, spec, seen, supervisor.Memory{Running: old}).Run)
		})
	}
}

// A unit that leads no more, and has not heard of it, replaces what it knew: not what is
// current anew, of the same version.
func TestReplacesWhatItKnew(t *testing.T) {
	spec := supervisor.Spec{Unit: "ci/1", Run: "7.14.3", Activate: true, Over: "7.14.2", OverAs: 4}
	seen := supervisor.Seen{Installed: map[string]string{"7.14.3": ""}, Current: "7.14.2", CurrentBy: "ci/0"}
	for as, activates := range map[int]string{4: "7.14.3", 6: ""} {
		seen.CurrentAs = as
		require.Equal(t, activates, supervisor.Next(paths, spec, seen, supervisor.Memory{}).Activate)
	}
	spec.OverAs = 0
	require.Equal(t, "7.14.3", supervisor.Next(paths, spec, seen, supervisor.Memory{}).Activate, "a former charm has not said it")
}

// Services start from what is active, and kept from being collected.
func TestServicesWaitForTheVolume(t *testing.T) {
	spec := supervisor.Spec{Unit: "ci/0", Run: "7.14.2", Activate: true, Web: &concourse.Web{}, Worker: &concourse.Worker{}}
	seen := supervisor.Seen{Installed: map[string]string{"7.14.2": ""}, WorkDir: "/w"}
	due := supervisor.Next(paths, spec, seen, supervisor.Memory{})
	require.Equal(t, supervisor.Due{Run: "7.14.2", Activate: "7.14.2", Pin: "7.14.2"}, due)
	seen.Current, seen.CurrentBy = "7.14.2", "ci/0"
	due = supervisor.Next(paths, spec, seen, supervisor.Memory{Running: "7.14.2"})
	require.Equal(t, []supervisor.Verb{supervisor.Start, supervisor.Start}, []supervisor.Verb{due.Web.Verb, due.Worker.Verb})
	spec.TSA = "10.0.0.1"
	due = supervisor.Next(paths, spec, seen, supervisor.Memory{Running: "7.14.2"})
	require.Equal(t, "10.0.0.1", due.TSA)
	require.Empty(t, due.Worker.Verb, "it could not find the web server")
	spec.TSA, seen.Stale = "", true
	due = supervisor.Next(paths, spec, seen, supervisor.Memory{Running: "7.14.2"})
	require.Equal(t, []supervisor.Verb{supervisor.Start, supervisor.Start}, []supervisor.Verb{due.Web.Verb, due.Worker.Verb}, "it missed nothing")
	seen.Current = "7.14.3"
	due = supervisor.Next(paths, spec, seen, supervisor.Memory{Running: "7.14.2"})
	require.Empty(t, due.Web.Verb+due.Worker.Verb, "it was off for an upgrade")
	seen.Stale, seen.Current = false, "" // it cannot be read, say
	due = supervisor.Next(paths, spec, seen, supervisor.Memory{Running: "7.14.2"})
	require.Empty(t, due.Web.Verb)
}

// Workers that the web server has to forget.
func TestRetire(t *testing.T) {
	serves, works := &concourse.Web{}, &concourse.Worker{}
	members := func(units ...string) supervisor.Spec {
		return supervisor.Spec{Unit: "ci/0", Web: serves, Members: units}
	}
	m := supervisor.Memory{}.Note(members("ci/0", "ci/1", "ci/2"))
	require.Empty(t, m.Retire)
	m = m.Note(members("ci/0", "ci/2"))
	require.Equal(t, []string{"ci/1"}, m.Retire)
	m = m.Note(members("ci/0", "ci/2"))
	require.Equal(t, []string{"ci/1"}, m.Retire, "until it is done, and once")
	require.Empty(t, m.Note(members("ci/0", "ci/1")).Note(members("ci/0", "ci/1", "ci/2")).Retire, "who is back is not forgotten")

	spec := members("ci/0", "ci/2")
	spec.Web = nil
	require.Empty(t, m.Note(spec).Retire, "another unit serves, and sees to it")

	// A worker that makes room for a web server on its own unit, which may be late.
	stop := supervisor.Task{Verb: supervisor.Stop, Service: concourse.Service{Unit: concourse.WorkerUnit}}
	none := supervisor.Spec{Unit: "ci/0", Members: []string{"ci/0"}}
	m = supervisor.Memory{}.Note(none).Did(stop, none)
	require.Equal(t, []string{"ci/0"}, m.Note(none).Note(members("ci/0")).Retire)
	both := members("ci/0")
	both.Worker = works
	require.Empty(t, m.Note(both).Retire, "it works again")
	require.Empty(t, supervisor.Memory{}.Did(stop, both).Retire, "it only lost its volume")

	m.Retire = []string{"ci/1"}
	require.Empty(t, supervisor.Next(paths, both, supervisor.Seen{}, m).Retire)
	require.Equal(t, "ci/1", supervisor.Next(paths, both, supervisor.Seen{WebServes: true}, m).Retire)
}

// What a lost unit has left is removed by one unit, and nobody else's is.
func TestForgetLostUnits(t *testing.T) {
	spec := supervisor.Spec{
		Unit: "ci/0", Shared: true, Activate: true, Members: []string{"ci/0", "ci/1", "ci/2"},
	}
	for name, test := range map[string]struct {
		change func(*supervisor.Spec, *supervisor.Seen)
		want   string
	}{
		"it is gone":                          {nil, "ci/4"},
		"it has not joined yet":               {func(_ *supervisor.Spec, seen *supervisor.Seen) { seen.Lost = []string{"ci/2"} }, ""},
		"it is this one":                      {func(_ *supervisor.Spec, seen *supervisor.Seen) { seen.Lost = []string{"ci/0"} }, ""},
		"it is another application's":         {func(_ *supervisor.Spec, seen *supervisor.Seen) { seen.Lost = []string{"ci-web/4", "c/4"} }, ""},
		"the first stays":                     {func(_ *supervisor.Spec, seen *supervisor.Seen) { seen.Lost = []string{"ci/1", "ci/4", "ci/5"} }, "ci/4"},
		"another unit sees to it":             {func(spec *supervisor.Spec, _ *supervisor.Seen) { spec.Activate = false }, ""},
		"nobody else is on the volume":        {func(spec *supervisor.Spec, _ *supervisor.Seen) { spec.Shared = false }, ""},
		"which units there are is unknown":    {func(spec *supervisor.Spec, _ *supervisor.Seen) { spec.Members = nil }, ""},
		"the spec is older than this machine": {func(_ *supervisor.Spec, seen *supervisor.Seen) { seen.Stale = true }, ""},
		"the volume cannot be used":           {func(_ *supervisor.Spec, seen *supervisor.Seen) { seen.Fault = supervisor.ReadOnly }, ""},
		"the volume is full":                  {func(_ *supervisor.Spec, seen *supervisor.Seen) { seen.Fault = supervisor.Full }, "ci/4"},
		"this unit leaves":                    {func(spec *supervisor.Spec, _ *supervisor.Seen) { spec.Leaving = true }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			spec, seen := spec, supervisor.Seen{Lost: []string{"ci/4"}}
			if test.change != nil {
				test.change(&spec, &seen)
			}
			require.Equal(t, test.want, supervisor.Next(paths, spec, seen, supervisor.Memory{}).Forget)
		})
	}
}

// A unit that leaves does one thing after the other.
func TestLeave(t *testing.T) {
	spec := supervisor.Spec{Unit: "ci/0", Run: "7.14.2", Leaving: true, Worker: &concourse.Worker{}}
	seen := supervisor.Seen{Running: map[string]bool{concourse.WorkerUnit: true}}
	m := supervisor.Memory{Running: "7.14.2", Started: map[string]supervisor.Started{concourse.WorkerUnit: {}}}
	require.Equal(t, supervisor.Due{RetireSelf: true}, supervisor.Next(paths, spec, seen, m))
	m.Retired = true
	due := supervisor.Next(paths, spec, seen, m)
	require.Equal(t, supervisor.Stop, due.Worker.Verb)
	require.False(t, due.LeaveVolume || due.Left, "its worker still writes there")
	m, seen.Running = m.Did(due.Worker, spec), nil
	require.Equal(t, supervisor.Due{LeaveVolume: true}, supervisor.Next(paths, spec, seen, m))
	m.LeftVolume = true
	require.Equal(t, supervisor.Due{Left: true}, supervisor.Next(paths, spec, seen, m))
	spec.Leaving = false
	m = m.Note(spec)
	require.False(t, m.Retired || m.LeftVolume)
}

// What a worker has left is removed when it works elsewhere, and not before: an operator may
// want it back. What was begun with is no worker's any more.
func TestClearsWhatAWorkerHasLeft(t *testing.T) {
	worker := concourse.Worker{Name: "ci-0", WorkDir: "/fast/ci-0"}
	for name, test := range map[string]struct {
		change func(spec *supervisor.Spec, seen *supervisor.Seen, m *supervisor.Memory)
		want   string
	}{
		"it works elsewhere": {func(*supervisor.Spec, *supervisor.Seen, *supervisor.Memory) {}, "/volume/ci-0"},
		"it does not answer": {func(_ *supervisor.Spec, seen *supervisor.Seen, _ *supervisor.Memory) { seen.Works = false }, ""},
		"it is to be started anew": {func(spec *supervisor.Spec, _ *supervisor.Seen, _ *supervisor.Memory) {
			spec.Worker = &concourse.Worker{Name: "ci-0", LogLevel: "debug"}
		}, ""},
		"it is being started": {func(spec *supervisor.Spec, _ *supervisor.Seen, m *supervisor.Memory) {
			spec.TSA = "10.0.0.1" // for which it waits
			*m = m.Begun(supervisor.Task{Verb: supervisor.Start, Service: concourse.Service{Unit: concourse.WorkerUnit}})
		}, ""},
		"it is to go back":             {func(_ *supervisor.Spec, seen *supervisor.Seen, _ *supervisor.Memory) { seen.WorkDir = "/volume/ci-0" }, ""},
		"there is no directory for it": {func(_ *supervisor.Spec, seen *supervisor.Seen, _ *supervisor.Memory) { seen.WorkDir = "" }, ""},
		"the former charm has started it": {func(_ *supervisor.Spec, _ *supervisor.Seen, m *supervisor.Memory) {
			started := m.Started[concourse.WorkerUnit]
			started.WorkDir = ""
			m.Started[concourse.WorkerUnit] = started
		}, ""},
		"it has left nothing": {func(_ *supervisor.Spec, _ *supervisor.Seen, m *supervisor.Memory) {
			m.WorkDirs = []string{"/fast/ci-0"}
		}, ""},
		"the volume is lost": {func(_ *supervisor.Spec, seen *supervisor.Seen, _ *supervisor.Memory) {
			seen.Fault = supervisor.NotMounted
		}, ""},
		"it was begun with": {func(_ *supervisor.Spec, seen *supervisor.Seen, m *supervisor.Memory) {
			seen.Works, m.Clearing = false, "/volume/ci-0"
		}, "/volume/ci-0"},
		"the unit leaves": {func(spec *supervisor.Spec, _ *supervisor.Seen, m *supervisor.Memory) {
			spec.Leaving, m.Clearing = true, "/volume/ci-0"
		}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			spec := supervisor.Spec{Unit: "ci/0", Run: "7.14.2", Worker: &concourse.Worker{Name: "ci-0"}}
			seen := supervisor.Seen{
				Installed: map[string]string{"7.14.2": ""}, Current: "7.14.2", WorkDir: "/fast/ci-0", Works: true,
				Running: map[string]bool{concourse.WorkerUnit: true},
			}
			m := supervisor.Memory{Running: "7.14.2", WorkDirs: []string{"/fast/ci-0", "/volume/ci-0"}}
			m = m.Did(supervisor.Task{Verb: supervisor.Start, Service: worker.Service(paths, "7.14.2"), WorkDir: worker.WorkDir}, spec)
			test.change(&spec, &seen, &m)
			require.Equal(t, test.want, supervisor.Next(paths, spec, seen, m).Clear)
		})
	}
}

// Where the whole application leaves, workers have to reach the web server.
func TestWebServerServesOnForAMoment(t *testing.T) {
	spec := supervisor.Spec{Unit: "ci/0", Leaving: true, Web: &concourse.Web{}, Members: []string{"ci/1", "ci/0"}}
	seen := supervisor.Seen{Running: map[string]bool{concourse.ServerUnit: true}}
	m := supervisor.Memory{Started: map[string]supervisor.Started{concourse.ServerUnit: {}}}
	require.Equal(t, supervisor.Due{Part: true}, supervisor.Next(paths, spec, seen, m))
	m.Parted = true
	require.Equal(t, supervisor.Stop, supervisor.Next(paths, spec, seen, m).Web.Verb)
	m.Parted, spec.Members = false, []string{"ci/0"}
	require.Equal(t, supervisor.Stop, supervisor.Next(paths, spec, seen, m).Web.Verb, "there are no others")
	spec.Leaving = false
	require.False(t, supervisor.Memory{Parted: true}.Note(spec).Parted)
}

// The worker of a unit that takes over is stalled, after a minute without a web server, until
// its beacon has noticed and dialled anew. To prune it then is to lose its builds.
func TestLandingWorkerIsNotPrunedWhileItRuns(t *testing.T) {
	spec := supervisor.Spec{
		Unit: "ci/0", Run: "7.14.2", Web: &concourse.Web{}, Land: true, DrainTimeout: time.Hour, Members: []string{"ci/0", "ci/1"},
	}
	m := supervisor.Memory{Running: "7.14.2", Started: map[string]supervisor.Started{concourse.WorkerUnit: {}, concourse.ServerUnit: {}}}
	seen := supervisor.Seen{
		Installed: map[string]string{"7.14.2": ""}, Current: "7.14.2", CurrentBy: "ci/0", WebServes: true,
		Running: map[string]bool{concourse.WorkerUnit: true, concourse.ServerUnit: true},
		Workers: map[string]string{"ci-0": concourse.Stalled, "ci-1": concourse.Running},
	}
	due := supervisor.Next(paths, spec, seen, m)
	require.Empty(t, due.Worker.Verb, "its builds go on")
	require.Empty(t, due.Prune, "the web server is told to forget a worker whose process runs, with its builds")
}

// Machines that boot while Juju's controller is away start what they ran. That another
// application on the same volume has activated its own version, long ago, says nothing.
func TestBootBesideAnotherApplication(t *testing.T) {
	spec := supervisor.Spec{Unit: "ci/0", Shared: true, Run: "7.14.2", Proven: "7.14.2", Activate: true, Web: &concourse.Web{}, Worker: &concourse.Worker{}}
	m := supervisor.Memory{Running: "7.14.2", Started: map[string]supervisor.Started{concourse.WorkerUnit: {}, concourse.ServerUnit: {}}}
	seen := supervisor.Seen{
		Installed: map[string]string{"7.14.2": "", "7.14.3": ""}, Current: "7.14.3", CurrentBy: "other/0", WorkDir: "/w", Stale: true,
	}
	due := supervisor.Next(paths, spec, seen, m)
	require.Equal(t, []supervisor.Verb{supervisor.Start, supervisor.Start}, []supervisor.Verb{due.Web.Verb, due.Worker.Verb},
		"nothing starts until the controller is back")
}

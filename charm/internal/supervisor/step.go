package supervisor

import (
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/concourse"
)

// Seen is how the unit is.
type Seen struct {
	Fault     Fault
	Current   string            // active release
	CurrentBy string            // unit that activated it
	CurrentAs int               // generation of that
	Installed map[string]string // releases that are sound, with the digests of their archives
	Contents  map[string]string // of these, see coordinator.Release
	WorkDir   string            // for the worker's state; empty while there is none that it may use
	// What the machine has for the worker, see concourse.Worker.
	NameServers, Certificates string

	Running   map[string]bool   // services that systemd runs
	TSA       string            // addresses that concourse.TSAName means
	NoSchema  bool              // the database has not said lately which schema it has
	Schema    int64             // version of the database's schema; 0 where there is none yet
	Supported map[string]int64  // newest schema that a web server of each release works with
	WebServes bool              // the web server answers
	Works     bool              // the worker answers
	Workers   map[string]string // states of the workers that the web server lists, by name
	Lands     bool              // a unit's worker is among them that lands, and not for longer than it may
	Began     map[string]int64  // when their processes began, in seconds
	TakenUp   map[string]bool   // workers that have registered with this unit's web server, which has their builds
	LandedFor time.Duration     // since the worker was told to land, or could have been
	// Webless is since when no web server has answered with which the worker may be registered.
	Webless time.Duration
	// UnlistedFor is since when the spec's turn is Unlisted.
	UnlistedFor time.Duration
	ToldAgo     time.Duration // since it was told last; long, if this supervisor has not told it
	Lost        []string      // units that have something on the volume, and are gone for a while
	Busy        bool          // something that writes to the volume, or changes a service, is under way
	WebChanges  bool          // the web server is being started or stopped
	// How a migration has ended that failed, and whether it is to rest before the next try.
	MigrationFailed string
	MigrationRests  bool
	// Stale is a spec that no hook has written since the supervisor was started: the unit
	// may have been off, and the others gone on to another release.
	Stale bool
}

// Verb is what to do with a service.
type Verb string

const (
	Start  Verb = "start" // write its files and start it, anew if it runs
	Reload Verb = "reload"
	Land   Verb = "land" // tell the worker to end with its builds
	Stop   Verb = "stop" // and remove it
)

// Task is for one service; the zero value is to leave it as it is.
type Task struct {
	Verb    Verb
	Service concourse.Service // with its Unit alone to stop
	Is      string            // Identity of what is started
	Version string            // from which
	TSAHost string            // of a worker
	WorkDir string            // of a worker
	// Restarts is that of the spec for which it is started.
	Restarts string
	At       time.Time // when it was begun: who does it says so
}

// Due is what to do next. Its parts do not depend on one another: what has to wait for
// another thing is due when that is done.
type Due struct {
	Run      string // version that the services run, or are to run
	Activate string // version to make current on the volume
	Pin      string // version to keep from being collected
	TSA      string // addresses that concourse.TSAName is to mean
	Web      Task
	Worker   Task
	Migrate  Task
	Due      string   // what the worker that runs has to become, see Status
	Stays    []string // see Memory
	Retire   string   // unit whose worker the web server is to forget
	Prune    string   // worker that is to be forgotten, as no unit has it
	Forget   string   // unit whose files on the volume are to be removed
	Clear    string   // directory that the worker has left, to be removed
	// A unit that leaves: it has the web server forget its worker, then stops, then
	// removes what it has on the volume. A web server serves on for a moment, Part: where
	// the whole application leaves, the others have to reach it.
	RetireSelf  bool
	Part        bool
	LeaveVolume bool
	Left        bool
}

// Next decides what a unit does next. It is pure, and asked again and again: nothing has
// to be seen in time.
func Next(paths concourse.Paths, spec Spec, seen Seen, m Memory) Due {
	if spec.Leaving {
		return leave(spec, seen, m)
	}
	wanted := chooseRun(spec, seen, m)
	due := Due{Run: wanted}
	if spec.Web == nil && stays(spec, seen, m) {
		due.Run = keepsRunning(spec, seen, m, wanted)
	}
	if spec.TSA != seen.TSA && spec.TSA != "" {
		due.TSA = spec.TSA
	}
	if due.Run != "" && !seen.Fault.severe() {
		// Of two leaders whose applications share a volume the last to change its
		// version has said what is current.
		others := seen.Current != "" && application(seen.CurrentBy) != application(spec.Unit)
		knew := seen.Current == "" || seen.CurrentBy == spec.Unit ||
			seen.Current == spec.Over && (spec.OverAs == 0 || seen.CurrentAs == spec.OverAs) // 0 is said by a former charm
		if spec.Activate && knew && due.Run == spec.Run && !seen.Stale && due.Run != seen.Current && (!others || due.Run != m.Running) {
			due.Activate = due.Run
		}
		if due.Run != m.Running {
			due.Pin = due.Run
		}
	}
	// Services start from what is active, and kept from being collected.
	ready := due.Run != "" && due.Activate == "" && due.Pin == ""
	damaged := due.Run == "" && m.Running != ""
	due.Web, due.Stays = stay(spec, seen, m, ready, nextWeb(paths, spec, seen, m, due.Run, ready, damaged))
	due.Migrate = nextMigration(paths, spec, seen, m, ready)
	due.Worker = nextWorker(paths, spec, seen, m, wanted, damaged)
	due.Worker, due.Due = inTurn(spec, seen, m, wanted, due.Worker)
	if due.Worker.Verb == Start && !ready {
		due.Worker = Task{}
	}
	due.Clear = leftDir(seen, m, due.Worker)
	if spec.Web != nil && seen.WebServes {
		if due.Prune = stranger(spec, seen.Workers, m); len(m.Retire) > 0 {
			due.Retire = m.Retire[0]
		}
	}
	if spec.Shared && spec.Activate && len(spec.Members) > 0 && !seen.Stale && !seen.Fault.severe() {
		if i := slices.IndexFunc(seen.Lost, func(unit string) bool { return isLost(spec, unit) }); i >= 0 {
			due.Forget = seen.Lost[i]
		}
	}
	return due
}

// leftDir returns a directory that the worker has left for another one, in which it works.
// Until it does, it may be given the former one again, with all that is there.
func leftDir(seen Seen, m Memory, worker Task) string {
	started := m.Started[concourse.WorkerUnit]
	switch {
	case seen.Fault.severe():
		return ""
	case m.Clearing != "":
		return m.Clearing
	case worker.Verb != "" || !seen.Works || started.Restart == "" || started.WorkDir == "" || started.WorkDir != seen.WorkDir:
		return ""
	}
	if i := slices.IndexFunc(m.WorkDirs, func(dir string) bool { return dir != seen.WorkDir }); i >= 0 {
		return m.WorkDirs[i]
	}
	return ""
}

// stranger returns a worker that was a unit's of this application, and is nobody's now:
// its unit, or the whole application, was removed while no web server could be told. Or it
// has landed, where this unit serves in its place.
func stranger(spec Spec, workers map[string]string, m Memory) string {
	_, works := m.Started[concourse.WorkerUnit]
	for _, worker := range slices.Sorted(maps.Keys(workers)) {
		member := func(unit string) bool {
			return concourse.WorkerName(unit) == worker && (unit != spec.Unit || !spec.Land || works)
		}
		gone := workers[worker] == concourse.Stalled || workers[worker] == concourse.Landed
		if gone && concourse.IsWorkerOf(worker, application(spec.Unit)) && !slices.ContainsFunc(spec.Members, member) {
			return worker
		}
	}
	return ""
}

// chooseRun follows the spec when its version is installed. That a digest is pinned is
// about what is to be installed: what runs, or has run before, has a digest of its own.
// A web server stays with its version while the schema does not suit the other one.
func chooseRun(spec Spec, seen Seen, m Memory) string {
	chosen := ""
	for _, version := range []string{spec.Run, m.Running} {
		digest, installed := seen.Installed[version]
		accepted := spec.Digest == "" || digest == spec.Digest || version == m.Running || version == spec.Proven
		if expected := spec.Contents[version]; expected != "" && expected != seen.Contents[version] {
			accepted = false // somebody has changed it
		}
		if version == "" || !installed || !accepted {
			continue
		}
		if chosen = version; spec.Web == nil || seen.suits(version) || spec.Migrate.up(version) {
			break
		}
	}
	return chosen
}

// suits tells whether a web server of a version may start: on a newer schema than it knows
// it would answer, and every build would fail; an older one it would take up beside others. An
// empty database it sets up itself.
func (seen Seen) suits(version string) bool {
	return !seen.NoSchema && (seen.Schema == 0 || seen.Schema == seen.Supported[version])
}

func application(unit string) string {
	name, _, _ := strings.Cut(unit, "/")
	return name
}

// outdated tells whether the others may have gone on to another version, while this unit
// was off. What another application has activated says nothing.
func outdated(spec Spec, seen Seen, version string) bool {
	return seen.Stale && seen.Current != version && application(seen.CurrentBy) == application(spec.Unit)
}

// nextWeb leaves a web server alone whose volume went away, as it writes nothing there
// and users keep their pages, and one whose release is being repaired.
func nextWeb(paths concourse.Paths, spec Spec, seen Seen, m Memory, version string, ready, damaged bool) Task {
	switch {
	case spec.Web == nil || spec.Halt != "":
		return stop(concourse.ServerUnit, seen, m)
	case seen.Stale && !spec.Shared && len(spec.Members) > 1:
		return Task{} // the others may be changing the schema
	case !ready || seen.Fault.severe() || seen.Fault == NoAccess || damaged:
		return Task{}
	case outdated(spec, seen, version), version != spec.Run && version != spec.Proven:
		return Task{}
	}
	t := start(Task{Service: spec.Web.Service(paths, version), Version: version, Restarts: spec.Restarts}, spec.Web.Identity, seen, m)
	if t.Verb == Start && !seen.suits(version) {
		return Task{}
	}
	return t
}

// nextWorker stops a worker whose volume went away: it would fill the directory
// underneath. One whose release is being repaired stays.
func nextWorker(paths concourse.Paths, spec Spec, seen Seen, m Memory, version string, damaged bool) Task {
	switch {
	case spec.Worker == nil && spec.Land && seen.Running[concourse.WorkerUnit] && !seen.Fault.severe() && !drained(spec, seen, m):
		return land(spec, seen, m)
	case spec.Worker == nil || seen.Fault.severe():
		return stop(concourse.WorkerUnit, seen, m)
	case spec.Paused:
		return landForGood(spec, seen, m)
	case version == "" || damaged || seen.WorkDir == "" || spec.TSA != seen.TSA:
		return Task{}
	case outdated(spec, seen, version):
		return Task{} // builds would go to an old worker that is about to be replaced
	}
	worker := *spec.Worker
	worker.WorkDir, worker.NameServers, worker.Certificates = seen.WorkDir, seen.NameServers, seen.Certificates
	described := Task{Service: worker.Service(paths, version), Version: version, TSAHost: worker.TSAHost, WorkDir: worker.WorkDir, Restarts: spec.Restarts}
	t, before := start(described, worker.Identity, seen, m), m.Started[concourse.WorkerUnit]
	if former := formerWorker(worker, spec.TSA).Service(paths, version); t.Verb == Start && before.Restart == former.RestartDigest() {
		t.Service = former // it runs as the former charm has described it
		t = start(t, worker.Identity, seen, m)
	}
	if t.Verb != Start && !before.Told.IsZero() { // it ends, though it is what it should be
		described.Verb, described.Is = Start, worker.Identity()
		return described
	}
	return t
}

// start is due where a service does not run as it is described.
func start(t Task, identity func() string, seen Seen, m Memory) Task {
	before, started := m.Started[t.Service.Unit]
	switch {
	case !started || !seen.Running[t.Service.Unit] || before.Restart != t.Service.RestartDigest() || before.Restarts != t.Restarts:
		t.Verb = Start
	case before.Reload != t.Service.ReloadDigest():
		t.Verb = Reload
	default:
		return Task{}
	}
	t.Is = identity()
	return t
}

func stop(unit string, seen Seen, m Memory) Task {
	if _, started := m.Started[unit]; !started && !seen.Running[unit] {
		return Task{}
	}
	return Task{Verb: Stop, Service: concourse.Service{Unit: unit}}
}

// leave goes while the web server still knows this worker's key. The worker ends with its
// builds, unless its web server is gone, which alone could tell that it has.
func leave(spec Spec, seen Seen, m Memory) Due {
	spec.Landed = false // no hook says it any more: it may be of the process before
	if _, works := m.Started[concourse.WorkerUnit]; works && !m.Retired {
		if seen.Running[concourse.WorkerUnit] && !seen.Fault.severe() && seen.Webless < webless && !drained(spec, seen, m) {
			return Due{Worker: landForGood(spec, seen, m)}
		}
		return Due{RetireSelf: true}
	}
	if _, serves := m.Started[concourse.ServerUnit]; serves {
		due := Due{Worker: stop(concourse.WorkerUnit, seen, m)}
		switch {
		case seen.WebServes && seen.Lands && seen.LandedFor < spec.DrainTimeout:
			return due // see stay
		case len(spec.Members) > 1 && !m.Parted:
			due.Part = true
			return due
		}
	}
	due := Due{
		Web: stop(concourse.ServerUnit, seen, m), Worker: stop(concourse.WorkerUnit, seen, m),
		Migrate: stop(concourse.MigrationUnit, seen, m),
	}
	if due.Web.Verb == "" && due.Worker.Verb == "" && due.Migrate.Verb == "" && !seen.Busy {
		due.LeaveVolume, due.Left = !m.LeftVolume, m.LeftVolume
	}
	return due
}

// Did returns the memory after a task for a service was done, under the spec of now.
func (m Memory) Did(t Task, spec Spec) Memory {
	m = m.clone()
	switch t.Verb {
	case Land:
		if started, ok := m.Started[t.Service.Unit]; ok && started.Told.IsZero() {
			started.Told = t.At
			m.Started[t.Service.Unit] = started
		}
		return m
	case Stop:
		delete(m.Started, t.Service.Unit)
		// A web server that takes its place here would show it as running for a while.
		if t.Service.Unit == concourse.WorkerUnit && spec.Worker == nil && !spec.Land && !slices.Contains(m.Retire, spec.Unit) {
			m.Retire = append(m.Retire, spec.Unit)
		}
		return m
	}
	if m.Started == nil {
		m.Started = map[string]Started{}
	}
	before := m.Started[t.Service.Unit]
	m.Started[t.Service.Unit] = Started{
		Restart: t.Service.RestartDigest(), Reload: t.Service.ReloadDigest(), Is: t.Is, Version: t.Version, WorkDir: t.WorkDir,
		At: t.At, Restarts: t.Restarts,
	}
	if t.Service.Unit == concourse.MigrationUnit {
		started := m.Started[t.Service.Unit]
		if before.Is == t.Is {
			started.At, started.Tries = before.At, before.Tries
		}
		started.Tries++
		m.Started[t.Service.Unit] = started
	}
	if t.TSAHost != "" {
		m.TSAHost = t.TSAHost
	}
	return m
}

// Begun returns the memory when a service is about to be started: from then on its files
// are not those of the process that runs, until it was started. A migration is not forgotten
// by a supervisor that ends meanwhile: nothing else would stop it.
func (m Memory) Begun(t Task) Memory {
	m = m.clone()
	before, started := m.Started[t.Service.Unit]
	if t.Service.Unit == concourse.MigrationUnit && before.Is != t.Is {
		if m.Started == nil {
			m.Started = map[string]Started{}
		}
		before, started = Started{Is: t.Is, Version: t.Version, At: t.At}, true
	}
	if started && t.Verb == Start {
		before.Restart = ""
		m.Started[t.Service.Unit] = before
	}
	return m
}

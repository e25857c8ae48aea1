package supervisor

import (
	"strconv"
	"strings"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/concourse"
)

// Status is what a unit is, as its supervisor saw it last. Hooks read it. The zero value
// is that of a supervisor that has not looked yet.
type Status struct {
	WorkerKey string `json:"worker_key,omitempty"` // public half of the unit's own key

	// The volume.
	Fault    Fault  `json:"fault,omitempty"`
	Detail   string `json:"detail,omitempty"`    // of the fault
	VolumeID string `json:"volume_id,omitempty"` // that the unit has to use
	// Mounted is the state of a foreign volume that is mounted instead, for Spec.Accepted;
	// empty if that has no id.
	Mounted   string `json:"mounted,omitempty"`
	Current   string `json:"current,omitempty"`    // the active release
	CurrentAs int    `json:"current_as,omitempty"` // its generation

	// Installed is Spec.Fetch once it is there. Trying is the version that is being
	// installed, Holder the unit that downloads it, Percent how far this unit's own
	// download is, and Failure why the last try failed.
	Installed string `json:"installed,omitempty"`
	Contents  string `json:"contents,omitempty"` // of Installed
	Changed   string `json:"changed,omitempty"`  // a version whose contents are not Spec.Contents
	Trying    string `json:"trying,omitempty"`
	Holder    string `json:"holder,omitempty"`
	Percent   int    `json:"percent,omitempty"`
	Failure   string `json:"failure,omitempty"`
	// Newest is the newest version at the source, or NewestFailure says why it is unknown.
	Newest        string `json:"newest,omitempty"`
	NewestFailure string `json:"newest_failure,omitempty"`

	// Run is the version that the services are to run now; empty if none is installed.
	Run    string `json:"run,omitempty"`
	Pinned string `json:"pinned,omitempty"` // Run, once it is current and kept from being collected
	Web    Answer `json:"web,omitzero"`
	Worker Answer `json:"worker,omitzero"`
	// Overdue is a version with which the web server owes an answer for longer than the
	// deadline, with a space and Spec.Try behind it.
	Overdue string `json:"overdue,omitempty"`
	// Database says why the database of the web server does not answer; it goes on where
	// "PostgreSQL" begins a sentence.
	Database string `json:"database,omitempty"`
	Schema   Schema `json:"schema,omitzero"` // zero if it is as it should be
	// Halted is Spec.Halt once the web server does not run. Migration is how far Spec.Migrate is,
	// and Migrated its ID when it is done; with a space and the reason behind it, it fails.
	Halted    string   `json:"halted,omitempty"`
	Migration Progress `json:"migration,omitzero"`
	Migrated  string   `json:"migrated,omitempty"`
	// Workers are the names of those that the web server of this unit lists as running.
	// Answering and Silent are of Spec.Watch: those that have answered lately, and those
	// that have not for long. All three are lists with a space between.
	Workers   string `json:"workers,omitempty"`
	Answering string `json:"answering,omitempty"`
	Silent    string `json:"silent,omitempty"`
	// Began are when the processes of Workers began, as NAME=SECONDS. Missing are members that
	// were not listed for long though the web server answers.
	Began   string `json:"began,omitempty"`
	Missing string `json:"missing,omitempty"`
	// MayLand are the names of workers that may be told to land now: they are listed as
	// running, and this unit's web server stays while they land.
	MayLand string `json:"may_land,omitempty"`
	Landed  string `json:"landed,omitempty"`  // those that have landed, or have no builds, as in Began
	Landing bool   `json:"landing,omitempty"` // the worker was told to land, or is to be: see Spec.Land
	// Due says what the worker that runs has to become, and Process when that was started, in
	// seconds, by this unit's clock.
	Due     string `json:"due,omitempty"`
	Process string `json:"process,omitempty"`
	// Stuck says what the supervisor could not do, and why; it goes on trying.
	Stuck string `json:"stuck,omitempty"`
	Left  bool   `json:"left,omitempty"` // the unit has left the cluster, see Spec.Leaving
	// Paused says that the worker is out, see Spec.Paused.
	Paused bool `json:"paused,omitempty"`
	// Restarted is Spec.Restarts once no service of before runs any more.
	Restarted string `json:"restarted,omitempty"`
	// Checked is the answer to the last Spec.Check that was done.
	Checked Checked `json:"checked,omitzero"`
	// Lost are units that are gone, of which something is on the volume. It is removed when
	// a hook has written a spec that still does not know them.
	Lost string `json:"lost,omitempty"`
}

// Note says what was decided.
func (s *Status) Note(spec Spec, seen Seen, m Memory, due Due) {
	worker, works := m.Started[concourse.WorkerUnit]
	s.Run, s.Left, s.Due, s.Process = due.Run, due.Left, due.Due, ""
	s.Landing = works && (spec.Land || spec.Paused || spec.Leaving || !worker.Told.IsZero())
	s.Paused = spec.Paused && spec.Worker != nil && !works && !seen.Running[concourse.WorkerUnit]
	if works && !worker.At.IsZero() {
		s.Process = strconv.FormatInt(worker.At.Unix(), 10)
	}
	s.Restarted = spec.Restarts
	for _, started := range m.Started {
		if started.Restarts != spec.Restarts {
			s.Restarted = ""
		}
	}
	var may []string
	for _, unit := range due.Stays {
		if name := concourse.WorkerName(unit); seen.Workers[name] == concourse.Running {
			may = append(may, name)
		}
	}
	s.MayLand = strings.Join(may, " ")
	s.Halted, s.Pinned = "", ""
	if due.Activate == "" && due.Pin == "" {
		s.Pinned = due.Run
	}
	if _, serves := m.Started[concourse.ServerUnit]; !serves && !seen.Running[concourse.ServerUnit] && !seen.WebChanges {
		s.Halted = spec.Halt
	}
	s.Migrated = migrated(spec, seen, m)
}

// Fault says what is wrong with a volume.
type Fault string

const (
	Healthy    Fault = ""
	NotMounted Fault = "not-mounted"
	Unmarked   Fault = "unmarked"    // mounted, and not marked as shared
	Foreign    Fault = "foreign"     // another volume than before
	OtherModel Fault = "other-model" // it belongs to another model
	Newer      Fault = "newer"       // its layout is that of a newer charm
	ReadOnly   Fault = "read-only"   // a worker can neither make a container nor end one
	NoExec     Fault = "noexec"      // each container needs programs of the release
	Hung       Fault = "hung"        // the mount does not answer
	Broken     Fault = "broken"      // any other error

	// With these the unit goes on. The web server's user is shut out, and it is not
	// started in vain; a worker is root. What is full a worker empties as builds end.
	NoAccess Fault = "no-access"
	Full     Fault = "full"
)

// severe tells whether the volume cannot be used at all. A worker stops then: builds that
// it was given would fail one after the other, or fill the directory underneath. A web
// server stays, as it writes nothing there.
func (f Fault) severe() bool { return f != Healthy && f != NoAccess && f != Full }

// Answer is that of a service: of which description, and from which version.
type Answer struct {
	Version string `json:"version,omitempty"` // empty while it does not answer
	Is      string `json:"is,omitempty"`      // Identity of the Web or Worker that was started
	// Exits says how the service ends, and with which words, while it does so again and
	// again. Executes is the program of one that answers, if it is not of its release.
	Exits    string `json:"exits,omitempty"`
	Executes string `json:"executes,omitempty"`
}

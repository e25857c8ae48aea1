// Package observation is what was seen of a cluster: no judgement and no way to change
// anything. Package judge says what is right.
package observation

import (
	"time"

	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator"
	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/history"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/cluster"
)

// Record is all that was seen in one scenario, in the order of time.
type Record struct {
	Scenario string `json:"scenario"`
	App      string `json:"app"`
	// Shared tells that the units of App are to share one marked volume.
	Shared       bool          `json:"shared"`
	Observations []Observation `json:"observations"`
	// Log is Juju's debug-log, from the beginning.
	Log []cluster.LogLine `json:"log"`
	// Acts are what the scenario did, such as "upgrade to 7.14.3".
	Acts []Act `json:"acts"`
	// Faults are what was done to machines, volumes and networks.
	Faults []Fault `json:"faults"`
	Builds []Build `json:"builds"`
	// Beside are the times in which builds were to run beside the scenario.
	Beside []Span `json:"beside"`
	// Allowed is how often the archive of a version may be sent, at most: 1 where
	// nothing is said, more where the scenario breaks a download, 0 where the volume
	// had the release before.
	Allowed map[string]int `json:"allowed,omitempty"`
	// Secrets are values that must be nowhere but in their files, by what they are. They
	// are never written down.
	Secrets map[string]string `json:"-"`
}

// Observation is the cluster at one moment.
type Observation struct {
	Time   time.Time      `json:"time"`
	Phase  string         `json:"phase"` // that has just ended
	Status cluster.Status `json:"status"`
	// Machines are the units' by unit. One that could not be asked, as it is down or its
	// network is cut, is not there.
	Machines map[string]Machine `json:"machines"`
	// Downloads are what the mirror has sent so far, by version; SentBefore is how much of
	// that it had sent when the look began: more is sent while machines are looked at.
	Downloads  map[string]cluster.Transfer `json:"downloads"`
	SentBefore map[string]int64            `json:"sent_before"`
	// Web is what the web server says; nil if none was asked.
	Web *Web `json:"web,omitempty"`
	// Resting tells that the scenario holds the cluster to be at rest: every unit says
	// what it will say until somebody does something.
	Resting bool `json:"resting"`
	// Expected is the version that all units should run; empty while they may differ.
	Expected string `json:"expected,omitempty"`
}

// Machine is one unit's machine, as a process on it sees it.
type Machine struct {
	// Charm is the one that Juju's agent has put there, such as
	// "local:concourse-ci-machine-1". Juju's status has that of the application even
	// for a unit whose agent is away and has not taken it.
	Charm     string    `json:"charm"`
	Services  []Service `json:"services"`
	Processes []Process `json:"processes"`
	Mount     Mount     `json:"mount"`
	// Volume is what the mount holds; nil if nothing is mounted.
	Volume *Volume `json:"volume,omitempty"`
	// Received is how many bytes came over the network since the machine was started.
	Received uint64 `json:"received"`
	// Started is when the machine was.
	Started time.Time `json:"started"`
	// Used is how many bytes are allocated on the machine's own disk to what the charm
	// has put there: everything but the system's and Juju's files.
	Used uint64 `json:"used"`
	// Copies are files of a release on the machine's own disk.
	Copies []string `json:"copies"`
	// Leaks are places where a secret of this unit was found: "/proc/12/cmdline: the
	// database's password".
	Leaks []string `json:"leaks"`
	// Panics are lines of the journal in which a program of ours panics.
	Panics []string `json:"panics"`
	// Secrets are this unit's, by what they are. They are never written down.
	Secrets map[string]string `json:"-"`
}

// Service is a systemd unit of the charm.
type Service struct {
	Name       string    `json:"name"`
	State      string    `json:"state"`      // active, activating, inactive, failed
	Invocation string    `json:"invocation"` // differs after each start
	Restarts   int       `json:"restarts"`   // by systemd itself
	PID        int       `json:"pid"`        // 0 if it does not run
	Started    time.Time `json:"started"`
	// Executable is the path that the main process was started from, as the kernel
	// knows it, with all links resolved.
	Executable string `json:"executable"`
	File       File   `json:"file"` // that Executable is
	// Directory is where the service keeps its state; a worker's is below the volume.
	Directory string `json:"directory,omitempty"`
}

// Process is a process on a machine, in its own words.
type Process struct {
	PID        int    `json:"pid"`
	Executable string `json:"executable"`
	// Deleted: the file that it runs from is gone.
	Deleted bool `json:"deleted,omitempty"`
}

// File identifies a file among all machines that see the same file system.
type File struct {
	FileSystem string `json:"file_system"` // its id, as statfs(2) has it
	Inode      uint64 `json:"inode"`
}

// Mount is what is where the volume belongs.
type Mount struct {
	Mounted    bool   `json:"mounted"`
	FileSystem string `json:"file_system,omitempty"` // id
	ReadOnly   bool   `json:"read_only,omitempty"`
	Marked     bool   `json:"marked,omitempty"`
	// Underneath are names in the directory when nothing is mounted there.
	Underneath []string `json:"underneath,omitempty"`
}

// Volume is the content of a volume.
type Volume struct {
	coordinator.Inspection
	// InstalledVersion is the content of .installed_version.
	InstalledVersion string `json:"installed_version"`
	// Bin is where the link bin leads, and BinFile the program that is found there.
	Bin     string `json:"bin"`
	BinFile File   `json:"bin_file"`
	// Workers are the names below worker/.
	Workers []string `json:"workers"`
	// Staged are the names below staging/.
	Staged []string `json:"staged"`
	// History is what tells of the steps that the units have taken; nil if it was not read.
	History *history.Volume `json:"history,omitempty"`
	// Unsound are what is wrong with each release, file by file, after all of it was
	// read; nil if that was not asked for.
	Unsound map[string]string `json:"unsound"`
}

// Web is what the web server says.
type Web struct {
	URL     string   `json:"url"`
	Version string   `json:"version"` // empty if it did not answer
	Workers []Worker `json:"workers"` // nil if nobody was logged in
}

// Worker is a worker as the web server knows it.
type Worker struct {
	Name    string `json:"name"`
	State   string `json:"state"` // running, landing, landed, stalled, retiring
	Version string `json:"version"`
}

// Act is something that a scenario did, after which the cluster may change.
type Act struct {
	Name string    `json:"name"`
	Time time.Time `json:"time"`
}

// Fault is what a scenario did, and undid.
type Fault struct {
	Name string `json:"name"` // "web-0: killed"
	// Units are those whose builds it may have cost.
	Units []string  `json:"units"`
	Begin time.Time `json:"begin"`
	End   time.Time `json:"end"` // zero: it was not undone
}

// Span is a time from a beginning to an end.
type Span struct {
	Begin time.Time `json:"begin"`
	End   time.Time `json:"end"` // zero: it goes on
}

// Build is one build that the suite has run.
type Build struct {
	Name    string    `json:"name"`
	Started time.Time `json:"started"`
	Ended   time.Time `json:"ended"`
	Worker  string    `json:"worker"` // that ran its task; empty if it came to none
	// Result is succeeded, failed, errored, not begun or unknown.
	Result string `json:"result"`
	// Begun is how often its task was seen to begin: more than once if what it had done
	// was lost.
	Begun int `json:"begun"`
	// Due is when the task would have ended that was begun first; zero if nobody knows.
	Due time.Time `json:"due,omitzero"`
	// Beside tells that it ran beside the scenario, which did not ask for it.
	Beside bool   `json:"beside,omitempty"`
	Output string `json:"output,omitempty"` // of one that did not succeed
	// Flaw is the known flaw of Concourse that explains an error, such as
	// "concourse#7056".
	Flaw string `json:"flaw,omitempty"`
}

// Service returns a service of a machine by its name.
func (m Machine) Service(name string) (Service, bool) {
	for _, s := range m.Services {
		if s.Name == name {
			return s, true
		}
	}
	return Service{}, false
}

// Last returns the newest observation; the zero value if there is none.
func (r Record) Last() Observation {
	if len(r.Observations) == 0 {
		return Observation{}
	}
	return r.Observations[len(r.Observations)-1]
}

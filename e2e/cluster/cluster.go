// Package cluster says what a scenario may do with a deployed charm, and
// nothing about how: no Juju and no LXD is imported here, so that one scenario
// runs on every substrate that implements Cluster.
package cluster

import (
	"context"
	"errors"
	"time"
)

// What callers can test for with errors.Is.
var (
	// ErrNoUnit: the unit is not in the cluster, or has no machine yet.
	ErrNoUnit = errors.New("no such unit")
	// ErrAction: an action ran and failed; the text carries its message.
	ErrAction = errors.New("action failed")
	// ErrFailed: a unit or machine reached a state that it does not leave by waiting.
	ErrFailed = errors.New("cluster failed")
	// ErrTimeout: what was waited for did not come true in time.
	ErrTimeout = errors.New("timed out")
)

// App is an application to deploy.
type App struct {
	Name string
	// Charm is the path of a .charm file, or "ch:NAME" for a charm of Charmhub.
	Charm   string
	Channel string // of Charmhub, such as "16/stable"
	Units   int
	Config  map[string]string
	// Volume is attached to every unit of the application as soon as its machine
	// exists, those added later included. Nil is for units without one.
	Volume Volume
	// Storage has Juju make a volume for each unit, by the names that the charm's metadata
	// has for it, such as "10G", as with `juju deploy --storage`.
	Storage map[string]string
}

// Storage is a volume that Juju has made for one unit. It can be attached to others, of
// which Juju learns nothing.
type Storage struct {
	Volume
	ID string // in Juju, such as "concourse-data/0"
}

// Cluster is one private, empty place to deploy applications to. Its methods are safe
// for concurrent use. Each ends when its context does.
//
// Deploy, AddUnits and Configure only ask; Wait is how a scenario learns that
// what it asked for has happened.
type Cluster interface {
	// Name identifies the cluster in messages and evidence.
	Name() string
	Deploy(ctx context.Context, app App) error
	// AddUnits returns the names of the new units.
	AddUnits(ctx context.Context, app string, n int) ([]string, error)
	// AddUnitWithStorage adds a unit that gets a storage which is there, by its id, as
	// with `juju add-unit --attach-storage`, and returns its name.
	AddUnitWithStorage(ctx context.Context, app, storage string) (string, error)
	// Storage waits until Juju has attached a storage to a unit, and returns it.
	Storage(ctx context.Context, unit string) (Storage, error)
	// RemoveStorage takes a storage from its unit, and deletes it once Juju has done so,
	// as with `juju detach-storage` and `juju remove-storage`.
	RemoveStorage(ctx context.Context, id string) error
	// RemoveUnit removes a unit. Its storage stays.
	RemoveUnit(ctx context.Context, unit string) error
	// RemoveLostUnit removes a unit whose machine is gone for good: none of its hooks
	// runs, as with `juju remove-unit --force --no-wait`.
	RemoveLostUnit(ctx context.Context, unit string) error
	// RemoveApp removes an application with all its units, in the orderly way. Their
	// storage stays.
	RemoveApp(ctx context.Context, app string) error
	// Refresh puts another charm, the path of a .charm file, in place of an
	// application's.
	Refresh(ctx context.Context, app, charm string) error
	Configure(ctx context.Context, app string, options map[string]string) error
	// Integrate relates two endpoints, each "app" or "app:endpoint".
	Integrate(ctx context.Context, a, b string) error
	// Disintegrate takes the relation of two endpoints away.
	Disintegrate(ctx context.Context, a, b string) error
	// Resolve has a unit run the hook that failed again.
	Resolve(ctx context.Context, unit string) error
	// RunAction returns the action's results once it has ended. An action that
	// failed is ErrAction.
	RunAction(ctx context.Context, unit, action string, params map[string]any) (map[string]string, error)
	// Shell runs a script as somebody at a terminal would, for whom the commands juju and lxc
	// mean this cluster, with variables of his own, and hands on each line that it prints.
	Shell(ctx context.Context, script string, variables map[string]string, line func(string)) error
	// Machine is the one that a unit is on. The unit need not exist yet: what the
	// machine is asked for is ErrNoUnit until it does.
	Machine(unit string) Machine
	// NewVolume makes a volume, in LXD's notation of a size such as "4GiB". Empty is
	// as large as the pool.
	NewVolume(ctx context.Context, size string) (Volume, error)
	Status(ctx context.Context) (Status, error)
	// DebugLog returns what the units logged so far, oldest first, each line once.
	DebugLog(ctx context.Context) ([]LogLine, error)
	// Collect writes evidence into dir: whatever of it can be had.
	Collect(ctx context.Context, dir string) error
	// Destroy removes all that the cluster made, however broken it is.
	Destroy(ctx context.Context) error
}

// Machine is a unit's machine, reached without Juju: it answers also while Juju's agent
// does not.
type Machine interface {
	// Unit is whose machine it is.
	Unit() string
	// Run puts a program of this host there, once, and runs it as root. It returns the
	// standard output.
	Run(ctx context.Context, program string, args ...string) ([]byte, error)
	// Exec runs a command of the machine as root and returns its standard output.
	Exec(ctx context.Context, argv ...string) (string, error)
	// Kill ends the main process of a service, as a crash does.
	Kill(service string) Fault
	// Stop takes the machine's power away; healed, it boots.
	Stop() Fault
	// Freeze stops every process where it is, until it is healed.
	Freeze() Fault
	// CutOff takes the machine's network away.
	CutOff() Fault
	// BlockPort keeps what the machine sends from a TCP port of all others.
	BlockPort(port int) Fault
	// LockTable keeps everybody from a table of a database on this machine.
	LockTable(database, table string) Fault
	// StopAgent stops Juju's agent, and nothing else.
	StopAgent() Fault
	// FreezeAgent stops it where it is, until it is healed.
	FreezeAgent() Fault
}

// Volume is a directory that several machines can share, at /var/lib/concourse.
type Volume interface {
	Name() string
	// Attach waits for the unit's machine and attaches the volume to it. It is
	// idempotent.
	Attach(ctx context.Context, unit string, how ...Attachment) error
	// Detach takes the volume from a running unit. The unit is left without it, also
	// if its application has a volume.
	Detach(ctx context.Context, unit string) error
	// Lost is Detach, healed by Attach.
	Lost(unit string) Fault
	// ReadOnly attaches the volume to a unit, so that nothing there can write to it.
	ReadOnly(unit string) Fault
	// Full leaves less than that many bytes of the volume free.
	Full(leaving int64) Fault
	// Change edits one file of the volume, by its path below the volume's root; a nil
	// result removes it. The content is nil if there is no such file. Mode and owner
	// stay.
	Change(ctx context.Context, path string, edit func(content []byte) []byte) error
}

// Attachment is a way to attach a volume.
type Attachment int

const (
	// Unmarked leaves out the marker by which somebody says that the volume is shared
	// on purpose.
	Unmarked Attachment = iota + 1
	// AsReadOnly lets nobody on the machine write to the volume.
	AsReadOnly
)

// Fault is something that goes wrong, and how it is put right. It does nothing by
// itself.
type Fault struct {
	// Name says what happens to whom: "machine of concourse-ci/0 stopped".
	Name string
	// Units are those that it may cost builds.
	Units  []string
	Inject func(ctx context.Context) error
	// Heal is nil for what needs no healing.
	Heal func(ctx context.Context) error
}

// LogLine is one line that a unit logged.
type LogLine struct {
	Time    time.Time `json:"time"`
	Unit    string    `json:"unit"` // "concourse-ci/0"; "machine-0" for lines of a machine
	Level   string    `json:"level"`
	Module  string    `json:"module"`
	Message string    `json:"message"`
}

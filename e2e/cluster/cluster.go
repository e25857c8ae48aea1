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
	// Shared attaches the cluster's volume to every unit of the application,
	// as soon as its machine exists, those added later included.
	Shared bool
}

// Cluster is one private, empty place to deploy applications to, with one
// volume that its units can share. Its methods are safe for concurrent use.
//
// Deploy, AddUnits and Configure only ask; Wait is how a scenario learns that
// what it asked for has happened.
type Cluster interface {
	// Name identifies the cluster in messages and evidence.
	Name() string
	Deploy(ctx context.Context, app App) error
	// AddUnits returns the names of the new units.
	AddUnits(ctx context.Context, app string, n int) ([]string, error)
	RemoveUnit(ctx context.Context, unit string) error
	Configure(ctx context.Context, app string, options map[string]string) error
	// Integrate relates two endpoints, each "app" or "app:endpoint".
	Integrate(ctx context.Context, a, b string) error
	// RunAction returns the action's results once it has ended. An action that
	// failed is ErrAction.
	RunAction(ctx context.Context, unit, action string, params map[string]any) (map[string]string, error)
	// AttachVolume waits for the unit's machine, attaches the shared volume to
	// it and marks the volume as shared on purpose. It is idempotent.
	AttachVolume(ctx context.Context, unit string) error
	// DetachVolume takes the volume from a running unit, as a lost mount does.
	// The unit is left without it until AttachVolume.
	DetachVolume(ctx context.Context, unit string) error
	// Exec runs a command as root in the unit's machine, whether or not Juju's
	// agent lives, and returns its standard output.
	Exec(ctx context.Context, unit string, argv ...string) (string, error)
	Status(ctx context.Context) (Status, error)
	// DebugLog returns what the units logged so far, oldest first, each line once.
	DebugLog(ctx context.Context) ([]LogLine, error)
	// Collect writes evidence into dir: whatever of it can be had.
	Collect(ctx context.Context, dir string) error
	// Destroy removes all that the cluster made, however broken it is.
	Destroy(ctx context.Context) error
}

// LogLine is one line that a unit logged.
type LogLine struct {
	Time    time.Time `json:"time"`
	Unit    string    `json:"unit"` // "concourse-ci/0"; "machine-0" for lines of a machine
	Level   string    `json:"level"`
	Module  string    `json:"module"`
	Message string    `json:"message"`
}

package juju

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"

	"github.com/gruyaume/goops"
)

// Level is a status of Juju.
type Level string

const (
	Active      Level = "active"
	Waiting     Level = "waiting"
	Maintenance Level = "maintenance"
	Blocked     Level = "blocked"
)

// Status is what a unit tells its operator.
type Status struct {
	Level   Level
	Message string
}

// Changes are what a hook tells Juju. Settings reach the other units when the hook ends
// well.
type Changes struct {
	App, Self map[string]string // for the peers; App on the leader only
	Database  map[string]string // for the database, by the leader
	Ports     []int             // TCP ports to have open, and no others; nil leaves them
	Version   string            // of the application; empty leaves it
	Status    Status
}

// Write makes the changes, all that can be made.
func (s Snapshot) Write(c Changes) error {
	var errs []error
	if s.Peers != nil {
		errs = append(errs,
			set(goops.SetAppRelationData, s.Peers.ID, s.Peers.App, c.App),
			set(goops.SetUnitRelationData, s.Peers.ID, s.Peers.Self, c.Self))
	}
	if s.Database != nil && s.Leader {
		errs = append(errs, set(goops.SetAppRelationData, s.Database.ID, s.Database.App, c.Database))
	}
	if c.Ports != nil {
		ports := []*goops.Port{}
		for _, port := range c.Ports {
			ports = append(ports, &goops.Port{Port: port, Protocol: goops.ProtocolTCP})
		}
		errs = append(errs, goops.SetPorts(ports))
	}
	if c.Version != "" {
		errs = append(errs, goops.SetAppVersion(c.Version))
	}
	return errors.Join(append(errs, SetStatus(c.Status))...)
}

// SetApp writes one of the application's settings for the peers at once.
func (s Snapshot) SetApp(name, value string) error {
	s.Peers.App[name] = value
	return goops.SetAppRelationData(s.Peers.ID, map[string]string{name: value})
}

// SetSelf writes one of this unit's settings for the peers at once.
func (s Snapshot) SetSelf(name, value string) error {
	s.Peers.Self[name] = value
	return goops.SetUnitRelationData(s.Peers.ID, map[string]string{name: value})
}

// set writes what differs.
func set(write func(id string, settings map[string]string) error, id string, old, settings map[string]string) error {
	changed := maps.Clone(settings)
	maps.DeleteFunc(changed, func(name, value string) bool { return old[name] == value })
	if len(changed) == 0 {
		return nil
	}
	return write(id, changed)
}

// SetStatus sets the unit's status.
func SetStatus(s Status) error { return goops.SetUnitStatus(goops.StatusName(s.Level), s.Message) }

// AddSecret makes a secret that belongs to the application and returns its id. Its
// contents go through files, as arguments can be read by every user of the machine.
func AddSecret(description string, content map[string]string) (id string, err error) {
	dir, err := os.MkdirTemp("", "secret-") // 0700
	if err != nil {
		return "", fmt.Errorf("add secret: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	files := map[string]string{}
	for name, value := range content {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(value), 0o600); err != nil {
			return "", fmt.Errorf("add secret: %w", err)
		}
		files[name+"#file"] = path
	}
	id, err = goops.AddSecret(&goops.AddSecretOptions{Content: files, Owner: goops.OwnerApplication, Description: description})
	return strings.TrimSpace(id), err
}

// Log writes a line to Juju's log; an unknown level is INFO.
func Log(level, line string) {
	switch level {
	case "DEBUG":
		goops.LogDebugf("%s", line)
	case "WARN":
		goops.LogWarningf("%s", line)
	case "ERROR":
		goops.LogErrorf("%s", line)
	default:
		goops.LogInfof("%s", line)
	}
}

// ActionParams reads the parameters of the action into a struct with json tags.
func ActionParams(into any) error { return goops.GetActionParams(into) }

// ActionFails ends the action with a reason.
func ActionFails(format string, args ...any) error { return goops.FailActionf(format, args...) }

// ActionResults are what the action shows.
func ActionResults(results map[string]string) error { return goops.SetActionResults(results) }

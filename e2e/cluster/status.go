package cluster

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Workload states, in Juju's words. Of one that is blocked there is the condition
// Blocked.
const (
	Active      = "active"
	Waiting     = "waiting"
	Maintenance = "maintenance"
	terminated  = "terminated"
)

// Status is one reading of the whole cluster.
type Status struct {
	Apps     map[string]AppStatus     `json:"apps"`
	Machines map[string]MachineStatus `json:"machines"`
}

// AppStatus is an application with its units by name.
type AppStatus struct {
	Workload string                `json:"workload"`
	Message  string                `json:"message"`
	Units    map[string]UnitStatus `json:"units"`
}

// UnitStatus is what Juju shows of a unit.
type UnitStatus struct {
	Name     string    `json:"name"`
	Workload string    `json:"workload"` // active, blocked, waiting, maintenance, error, unknown, terminated
	Message  string    `json:"message"`
	Since    time.Time `json:"since"` // of the workload status
	Agent    string    `json:"agent"` // allocating, executing, idle, error, failed, lost
	Leader   bool      `json:"leader"`
	Machine  string    `json:"machine"`
	Instance string    `json:"instance"` // name of its container, empty until it exists
	Address  string    `json:"address"`
}

// MachineStatus is a machine that units run on.
type MachineStatus struct {
	Agent    string `json:"agent"`
	Instance string `json:"instance"` // state of the instance, such as "running" or "provisioning error"
	Message  string `json:"message"`
}

// Units returns an application's units, ordered by their number.
func (s Status) Units(app string) []UnitStatus {
	return slices.SortedFunc(maps.Values(s.Apps[app].Units), func(a, b UnitStatus) int {
		if len(a.Name) != len(b.Name) {
			return len(a.Name) - len(b.Name)
		}
		return strings.Compare(a.Name, b.Name)
	})
}

// Unit returns the unit of that name, if it is there.
func (s Status) Unit(name string) (UnitStatus, bool) {
	app, _, _ := strings.Cut(name, "/")
	u, ok := s.Apps[app].Units[name]
	return u, ok
}

// without returns a status in which units and their machines are left out.
func (s Status) without(units []string) Status {
	if len(units) == 0 {
		return s
	}
	out := Status{Apps: map[string]AppStatus{}, Machines: maps.Clone(s.Machines)}
	for name, app := range s.Apps {
		app.Units = maps.Clone(app.Units)
		for _, unit := range units {
			if u, ok := app.Units[unit]; ok {
				delete(out.Machines, u.Machine)
				delete(app.Units, unit)
			}
		}
		out.Apps[name] = app
	}
	return out
}

// Leader returns an application's leader, if one is elected.
func (s Status) Leader(app string) (UnitStatus, bool) {
	for _, u := range s.Apps[app].Units {
		if u.Leader {
			return u, true
		}
	}
	return UnitStatus{}, false
}

// Lines renders the status as one line for each machine and unit, in a stable
// order and without times, so that two readings can be compared.
func (s Status) Lines() []string {
	var lines []string
	for _, id := range slices.Sorted(maps.Keys(s.Machines)) {
		m := s.Machines[id]
		lines = append(lines, strings.TrimSpace(fmt.Sprintf("machine %s: %s, agent %s %s", id, m.Instance, m.Agent, m.Message)))
	}
	for _, name := range slices.Sorted(maps.Keys(s.Apps)) {
		units := s.Units(name)
		if len(units) == 0 {
			lines = append(lines, fmt.Sprintf("%s: no units", name))
		}
		for _, u := range units {
			star := ""
			if u.Leader {
				star = "*"
			}
			lines = append(lines, fmt.Sprintf("%s%s: %s %q, agent %s, machine %s %s", u.Name, star, u.Workload, u.Message, u.Agent, u.Machine, u.Address))
		}
	}
	return lines
}

// String is the status as Lines has it.
func (s Status) String() string { return strings.Join(s.Lines(), "\n") }

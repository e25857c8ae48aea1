package cluster

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// ErrNever is wrapped by a condition that cannot hold any more, such as one that asks
// something of a unit that is gone: who waits for it fails at once.
var ErrNever = errors.New("cannot come true any more")

// Condition looks at one reading. It returns nil when it holds, else what is
// missing: a wait that times out says it. An error that is ErrNever tells that it
// cannot hold any more.
type Condition func(Status) error

// All holds when every one of the conditions does.
func All(conditions ...Condition) Condition {
	return func(s Status) error {
		var missing []error
		for _, c := range conditions {
			missing = append(missing, c(s))
		}
		return errors.Join(missing...)
	}
}

// UnitsAre holds when the application has exactly n units and all have the
// workload state, with text in their message.
func UnitsAre(app string, n int, workload, text string) Condition {
	return func(s Status) error {
		units := s.Units(app)
		var missing []error
		if len(units) != n {
			missing = append(missing, fmt.Errorf("%s has %d units, not %d", app, len(units), n))
		}
		for _, u := range units {
			missing = append(missing, unitIs(u, workload, text))
		}
		return errors.Join(missing...)
	}
}

// AllActive holds when the application has exactly n units and all are active.
func AllActive(app string, n int) Condition { return UnitsAre(app, n, Active, "") }

// AnyActive holds when at least one unit of the application is active.
func AnyActive(app string) Condition {
	return func(s Status) error {
		if slices.ContainsFunc(s.Units(app), func(u UnitStatus) bool { return u.Workload == Active }) {
			return nil
		}
		return fmt.Errorf("no unit of %s is active", app)
	}
}

// UnitIs holds when the unit has the workload state, with text in its message.
func UnitIs(unit, workload, text string) Condition {
	return func(s Status) error {
		u, err := living(s, unit)
		if err != nil {
			return err
		}
		return unitIs(u, workload, text)
	}
}

// Idle holds when no unit of the application runs a hook.
func Idle(app string) Condition {
	return func(s Status) error {
		var missing []error
		for _, u := range s.Units(app) {
			if u.Agent != "idle" {
				missing = append(missing, fmt.Errorf("agent of %s is %s, not idle", u.Name, u.Agent))
			}
		}
		return errors.Join(missing...)
	}
}

// Gone holds when the unit is not in the cluster any more.
func Gone(unit string) Condition {
	return func(s Status) error {
		if u, ok := s.Unit(unit); ok {
			return fmt.Errorf("%s is still there: %s %q", unit, u.Workload, u.Message)
		}
		return nil
	}
}

// Blocked holds when a unit asks its operator for something, and its message has every
// one of the texts, in whatever case.
func Blocked(unit string, texts ...string) Condition { return says(unit, "blocked", texts) }

// WaitingFor holds when a unit waits for something that comes by itself, and its message
// has every one of the texts, in whatever case.
func WaitingFor(unit string, texts ...string) Condition { return says(unit, Waiting, texts) }

func says(unit, workload string, texts []string) Condition {
	return func(s Status) error {
		u, err := living(s, unit)
		if err != nil {
			return err
		}
		silent := slices.ContainsFunc(texts, func(t string) bool {
			return !strings.Contains(strings.ToLower(u.Message), strings.ToLower(t))
		})
		if silent || u.Workload != workload {
			return fmt.Errorf("%s is %s %q, not %s with %q", unit, u.Workload, u.Message, workload, texts)
		}
		return nil
	}
}

// Failed tells what is not mended by waiting: a hook failed, a machine could not be
// made. It returns ErrFailed with the reason, and nil while all is well. A lost agent is
// none of it, see Lost.
func Failed(s Status) error {
	for id, m := range s.Machines {
		if m.Instance == "provisioning error" || m.Instance == "error" {
			return fmt.Errorf("%w: machine %s: %s: %s", ErrFailed, id, m.Instance, m.Message)
		}
	}
	for app := range s.Apps {
		for _, u := range s.Units(app) {
			if u.Workload == terminated {
				continue
			}
			if u.Workload == "error" || u.Agent == "error" || u.Agent == "failed" {
				return fmt.Errorf("%w: %s is %s (agent %s): %s", ErrFailed, u.Name, u.Workload, u.Agent, u.Message)
			}
		}
	}
	return nil
}

// Lost returns the names of the units whose agents Juju has lost sight of. A unit that
// was removed and has terminated loses its agent in the normal course and is not among
// them.
func Lost(s Status) []string {
	var lost []string
	for _, app := range slices.Sorted(maps.Keys(s.Apps)) {
		for _, u := range s.Units(app) {
			if u.Agent == "lost" && u.Workload != terminated {
				lost = append(lost, u.Name)
			}
		}
	}
	return lost
}

// absent is ErrNoUnit for one unit. Juju gives no unit's name twice, so that one that
// was there does not come back.
type absent struct{ unit string }

func (a *absent) Error() string { return fmt.Sprintf("%s: %v", a.unit, ErrNoUnit) }
func (a *absent) Unwrap() error { return ErrNoUnit }

// absentUnit returns the unit for lack of which a condition does not hold.
func absentUnit(missing error) (unit string, ok bool) {
	if a, ok := errors.AsType[*absent](missing); ok {
		return a.unit, true
	}
	return "", false
}

// living returns a unit that can still change its status.
func living(s Status, unit string) (UnitStatus, error) {
	u, ok := s.Unit(unit)
	switch {
	case !ok:
		return u, &absent{unit}
	case u.Workload == terminated:
		return u, fmt.Errorf("%w: %s has terminated", ErrNever, unit)
	}
	return u, nil
}

func unitIs(u UnitStatus, workload, text string) error {
	if u.Workload != workload || !strings.Contains(u.Message, text) {
		return fmt.Errorf("%s is %s %q, not %s %q", u.Name, u.Workload, u.Message, workload, text)
	}
	return nil
}

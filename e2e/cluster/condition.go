package cluster

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Condition looks at one reading. It returns nil when it holds, else what is
// missing: a wait that times out says it.
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
		u, ok := s.Unit(unit)
		if !ok {
			return fmt.Errorf("%s: %w", unit, ErrNoUnit)
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

// Settled holds when a unit asks its operator for something (blocked), or
// waits, and its message has every one of the texts, in whatever case.
func Settled(unit string, texts ...string) Condition {
	return func(s Status) error {
		u, ok := s.Unit(unit)
		if !ok {
			return fmt.Errorf("%s: %w", unit, ErrNoUnit)
		}
		silent := slices.ContainsFunc(texts, func(t string) bool {
			return !strings.Contains(strings.ToLower(u.Message), strings.ToLower(t))
		})
		if silent || u.Workload != Blocked && u.Workload != Waiting {
			return fmt.Errorf("%s is %s %q, not blocked or waiting with %q", unit, u.Workload, u.Message, texts)
		}
		return nil
	}
}

// Failed is the condition under which waiting makes no sense: a hook failed,
// an agent was lost, a machine could not be made. It returns ErrFailed with
// the reason, and nil while all is well. A unit that was removed and has
// terminated loses its agent in the normal course.
func Failed(s Status) error {
	for id, m := range s.Machines {
		if m.Instance == "provisioning error" || m.Instance == "error" {
			return fmt.Errorf("%w: machine %s: %s: %s", ErrFailed, id, m.Instance, m.Message)
		}
	}
	for app := range s.Apps {
		for _, u := range s.Units(app) {
			if u.Workload == "terminated" {
				continue
			}
			if u.Workload == "error" || u.Agent == "error" || u.Agent == "failed" || u.Agent == "lost" {
				return fmt.Errorf("%w: %s is %s (agent %s): %s", ErrFailed, u.Name, u.Workload, u.Agent, u.Message)
			}
		}
	}
	return nil
}

func unitIs(u UnitStatus, workload, text string) error {
	if u.Workload != workload || !strings.Contains(u.Message, text) {
		return fmt.Errorf("%s is %s %q, not %s %q", u.Name, u.Workload, u.Message, workload, text)
	}
	return nil
}

package supervisor

import (
	"context"
	"slices"
	"strings"
	"time"
)

const (
	// lostListed is how often the volume is looked at for what lost units have left.
	lostListed = 10 * time.Second
	// keptPause is how long what could not be removed is left alone.
	keptPause = time.Hour
)

// lostUnits are units that have something on the volume and that Juju does not know.
type lostUnits struct {
	listed time.Time
	due    map[string]time.Time // when what they have left may be removed
}

// lookForLost finds what units have left that were removed by force. They have to be gone
// for a while, as their machines may still write, and a spec of after that must not know
// them: what a hook has read before may be older than a unit that has just joined.
func (s *Supervisor) lookForLost(ctx context.Context, seen *Seen) {
	l := &s.volume.lost
	s.status.Lost = ""
	if s.volume.open == nil || !s.spec.Shared || !s.spec.Activate || s.spec.Leaving || len(s.spec.Members) == 0 {
		*l = lostUnits{}
		return
	}
	if now := time.Now(); now.Sub(l.listed) >= min(lostListed, s.Gone) {
		limited, cancel := context.WithTimeout(ctx, volumeLimit)
		defer cancel()
		units, err := s.volume.open.Units(limited)
		if err != nil {
			s.Log.Warn("cannot list the units of the volume", "error", err)
			return
		}
		due := map[string]time.Time{}
		for _, unit := range units {
			if !isLost(s.spec, unit) {
				continue
			}
			due[unit] = now.Add(s.Gone)
			if before, known := l.due[unit]; known {
				due[unit] = before
			}
		}
		*l = lostUnits{now, due}
	}
	var waiting []string // for a hook, which is woken by the status
	for unit, due := range l.due {
		if time.Now().Before(due) {
			continue
		}
		waiting = append(waiting, unit)
		if s.heard.After(due) {
			seen.Lost = append(seen.Lost, unit)
		}
	}
	slices.Sort(waiting)
	slices.Sort(seen.Lost)
	s.status.Lost = strings.Join(waiting, " ")
}

// isLost tells whether a unit was one of this application, and is none any more.
func isLost(spec Spec, unit string) bool {
	known := unit == spec.Unit || slices.Contains(spec.Members, unit)
	return application(unit) == application(spec.Unit) && !known
}

// forget removes what a lost unit has left on the volume. What cannot be removed takes
// room, and does no harm.
func (s *Supervisor) forget(unit string) work {
	volume, left := s.volume.open, true
	return work{
		what: unit, limit: leaveLimit,
		try: func(ctx context.Context) error {
			err := volume.Forget(ctx, unit)
			if left = err != nil; !left {
				s.say("Removed what %s, which is gone, has left on the volume", unit)
			}
			return err
		},
		excuse: "What " + unit + " has left on the volume stays there: %v",
		after: func() {
			if _, lost := s.volume.lost.due[unit]; lost && left {
				s.volume.lost.due[unit] = time.Now().Add(keptPause)
			} else {
				delete(s.volume.lost.due, unit)
			}
		},
	}
}

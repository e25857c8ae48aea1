package judge

import (
	"iter"
	"regexp"
	"slices"
	"time"

	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/observation"
)

// alike is how far two readings of one start may be apart: the kernel counts in
// hundredths of a second since the machine was started.
const alike = time.Second

func same(a, b time.Time) bool { return a.Sub(b).Abs() < alike }

// clock is how reports write the time of a line in the log.
func clock(t time.Time) string { return t.UTC().Format("15:04:05.000") }

// events yields when the scenario did something to the cluster: when it acted, and when
// a fault began and ended.
func events(r observation.Record) iter.Seq[time.Time] {
	return func(yield func(time.Time) bool) {
		for _, a := range r.Acts {
			if !yield(a.Time) {
				return
			}
		}
		for _, f := range r.Faults {
			if !yield(f.Begin) || !f.End.IsZero() && !yield(f.End) {
				return
			}
		}
	}
}

// happened counts the events after one moment and not after another.
func happened(r observation.Record, after, until time.Time) (n int) {
	for at := range events(r) {
		if at.After(after) && !at.After(until) {
			n++
		}
	}
	return n
}

// overlaps tells whether a fault was there at some time of a span, both ends included.
func overlaps(f observation.Fault, from, to time.Time) bool {
	return !f.Begin.After(to) && (f.End.IsZero() || !f.End.Before(from))
}

// faulty tells whether anything was wrong at some time of a span.
func faulty(r observation.Record, from, to time.Time) bool {
	for _, f := range r.Faults {
		if overlaps(f, from, to) {
			return true
		}
	}
	return false
}

// volumeChanged is what the name of the act says by which a scenario damages a volume.
var volumeChanged = regexp.MustCompile(`^change .* on the volume `)

// hadFault tells whether anything was wrong, or was damaged, between the last observation
// and the one at rest before it.
func hadFault(r observation.Record) bool {
	var before, last observation.Observation
	for i, o := range r.Observations {
		last = o
		if o.Resting && i < len(r.Observations)-1 {
			before = o
		}
	}
	return faulty(r, before.Time, last.Time) || slices.ContainsFunc(r.Acts, func(a observation.Act) bool {
		return volumeChanged.MatchString(a.Name) && a.Time.After(before.Time) && !a.Time.After(last.Time)
	})
}

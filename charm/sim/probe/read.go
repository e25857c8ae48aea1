package probe

import (
	"cmp"
	"io"
	"slices"
	"time"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/sim"
)

// Read reads the notes of all units as a history. Its times and numbers count from a
// moment before the first hook, which it returns; lives count from 1.
func Read(from io.Reader) (history []sim.Record, base time.Time, err error) {
	lines, err := sim.ReadHistory(from)
	if err != nil || len(lines) == 0 {
		return nil, base, err
	}
	type hook struct {
		unit  string
		begin time.Duration
	}
	last := map[hook]int{} // the later line of a hook says more
	for _, n := range lines {
		id := hook{n.Unit, n.Begin}
		if i, known := last[id]; known {
			history[i] = n
			continue
		}
		last[id] = len(history)
		history = append(history, n)
	}
	slices.SortStableFunc(history, func(a, b sim.Record) int { return cmp.Compare(a.Begin, b.Begin) })

	// No hook's number may be that of Juju's own settings.
	start := history[0].Begin.Truncate(time.Millisecond) - 10*time.Millisecond
	type life struct {
		unit  string
		start int
	}
	lives, counts := map[life]int{}, map[string]int{}
	for i := range history {
		n := &history[i]
		id := life{n.Unit, n.Life}
		if lives[id] == 0 {
			counts[n.Unit]++
			lives[id] = counts[n.Unit]
		}
		n.Life = lives[id]
		rebase(n, start)
	}
	return history, time.Unix(0, int64(start)), nil
}

func rebase(n *sim.Record, start time.Duration) {
	for _, at := range []*time.Duration{&n.Begin, &n.Read, &n.End} {
		if *at > 0 {
			*at -= start
		}
	}
	for _, number := range []*int{&n.App, &n.Self, &n.Wrote, &n.WroteApp} {
		*number = since(*number, start)
	}
	for unit, number := range n.Units {
		n.Units[unit] = since(number, start)
	}
}

// since leaves alone what is no hook's number.
func since(number int, start time.Duration) int {
	if number <= 1 {
		return number
	}
	return number - int(start/time.Millisecond)
}

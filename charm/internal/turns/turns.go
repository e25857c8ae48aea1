// Package turns decides which units may take their worker away, so that the others go on
// with builds meanwhile. A unit whose worker has to become another one is due. With a turn
// its worker lands, which may take long, and another one is started.
//
// It is pure: the leader calls Next in each hook, stores the answer where the next leader
// finds it, and the units read it. There is no clock, and no event has to be seen.
package turns

import (
	"slices"
	"strings"
)

// Unit is what the leader knows about one unit that has, or is to have, a worker. One that
// is being removed takes no part.
type Unit struct {
	Name    string
	Process string // names the worker's process, as the unit says; empty is one, too
	Due     bool   // that has to become another one
	// Running says that the web server lists it as running, and not an earlier one.
	Running bool
	// Missing says that the web server has not listed its worker for long. Such a unit has no
	// builds to lose, and needs no turn: it does what is due when it can.
	Missing bool
}

// Fails tells whether a unit has replaced its worker in a turn, and the next one does not
// come to run. It keeps its turn: what keeps it from running would keep the others', too.
func (t Turn) Fails(u Unit) bool {
	return t.Unit == u.Name && t.Process != u.Process && u.Missing && !u.Due
}

// ends tells whether a turn is over: its unit runs the next process, or has nothing to do any
// more, or has no worker that could land.
func (t Turn) ends(u Unit) bool {
	if u.Missing {
		return !t.Fails(u)
	}
	return u.Running && (!u.Due || u.Process != t.Process)
}

// Turn is a unit's, to replace one process. What it has to become may change meanwhile; the
// next process needs a turn of its own.
type Turn struct{ Unit, Process string }

// Next returns who has a turn, by name: those who had one before and are not through, and as
// many more that there are most of them. A turn is never taken back while the worker may
// land; it ends when the next process runs, when there is nothing to do any more, when the
// unit is gone, and when its worker is missing that has not been replaced yet.
func Next(before []Turn, units []Unit, most int) []Turn {
	var turns []Turn
	for _, u := range units {
		had := slices.IndexFunc(before, func(t Turn) bool { return t.Unit == u.Name })
		if had >= 0 && !before[had].ends(u) {
			turns = append(turns, before[had])
		}
	}
	byName := func(a, b Unit) int { return strings.Compare(a.Name, b.Name) }
	for _, u := range slices.SortedFunc(slices.Values(units), byName) {
		has := slices.ContainsFunc(turns, func(t Turn) bool { return t.Unit == u.Name })
		if len(turns) < most && u.Due && u.Running && !u.Missing && !has {
			turns = append(turns, Turn{u.Name, u.Process})
		}
	}
	slices.SortFunc(turns, func(a, b Turn) int { return strings.Compare(a.Unit, b.Unit) })
	return turns
}

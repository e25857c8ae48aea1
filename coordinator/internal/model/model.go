// Package model checks a protocol by trying everything: each state that any
// interleaving of its steps can reach is visited once, breadth first, so that
// the trace to the first violation is a shortest one.
//
// Its tests hold the protocol by which units share a volume, in small: three
// units, two crashes, and a step for each access to the volume.
//
// # What the units do
//
// A unit claims a generation with link(2), takes away the staging trees that
// others have left, stages the release, looks whether it still holds the newest
// generation (the fence), publishes by rename, pins the release, and activates
// it: it reads the log, looks at the fence again, and puts the next entry if
// nobody has. Then it brings bin in line with the log. Or it collects: it
// announces which release it wants to remove and where to, reads the pins, then
// current and previous in one look, and renames the release away. Who pins a
// release calls off announced collections, by putting something where the
// collector wants to rename to: a rename onto a directory that is not empty
// fails, so one of the two wins, however long the other was paused.
//
// # What is left out, and why that is sound
//
//   - Time. A contender may find a holder stale whenever it has read the newest
//     generation: the holder may be paused for as long as that takes. Renewing a
//     nonce takes such behaviours away and adds none, and so does a released
//     claim; neither is a step here.
//   - Numbers. Generations are only ever compared, so a state keeps their order.
//     That makes the states finitely many without a bound on take-overs, and
//     units go on with a next job for ever.
//   - Names of units. All run the same program: states that differ by a
//     permutation of the units are one.
//   - Local steps. A step makes one access to what is shared, and whatever the
//     unit then does on its own. Downloading is local: it ends in the step that
//     looks at the fence. What is left in the staging tree of a unit that died
//     is never looked at again, so a crash takes it away.
//   - Reports of failure after success. The stat that follows makes both
//     outcomes one; without it they are two steps.
//   - Power cuts and bytes: those are tested on file systems.
//
// # What is found
//
// TestProtocol, with two crashes unless said otherwise, in half a minute of
// processor time and 1.3 GB at most:
//
//	                                     states
//	one version, nobody collects         53,961
//	two versions, nobody collects     3,389,365
//	one version, and collecting       1,528,220
//	two versions, and collecting      2,386,689 without a crash
//	                                  9,428,077 with one, too many for every day
//
// In all of them no generation has two holders, what is published is complete,
// current, previous and pinned releases are there, the log is in the order of
// the generations, and any unit gets its version to run with all others paused
// or dead. TestBroken drops one rule at a time and prints the shortest way to
// the violation. Four results are worth knowing:
//
//   - The fence at publish protects no release, as the rename does: with or
//     without it a published release is complete and never changes (TestSpare).
//     What it gives, together with taking away what others have staged, is an
//     end: once a holder has begun to download, nothing of an older generation
//     is published any more. Neither gives that alone, because a unit can be
//     paused between its look and its rename.
//   - The fence at activate is exact, but only if the log is read before it: then
//     put-if-absent fails when a later generation has activated in between. Who
//     then reads the log again has to look at the fence again.
//   - Without the stat after link no unit does harm, but one waits a lease for
//     itself.
//   - A collector that renames a release away and then looks whether somebody
//     has pinned it, to put it back, is wrong: the release is missing meanwhile,
//     and for good if the collector dies. So it has to announce, look, and
//     rename to where it can be called off.
package model

import (
	"fmt"
	"strings"
)

// Spec is a protocol: where it starts, what can happen next, and what must hold.
// A state is a value that can be compared; equal states have equal futures.
type Spec[S comparable, Step fmt.Stringer] struct {
	Start []S
	// Next calls yield with each step that is possible, and where it leads.
	Next func(s S, yield func(step Step, next S))
	// Check returns what is wrong with a state.
	Check func(s S) error
}

// Violation is an error with the shortest way to it.
type Violation struct {
	Err   error
	Steps []string // from a state of Spec.Start
}

// Error tells the steps, one a line.
func (v *Violation) Error() string {
	return fmt.Sprintf("%v\n  %s", v.Err, strings.Join(v.Steps, "\n  "))
}

func (v *Violation) Unwrap() error { return v.Err }

// Explore visits every state and returns them in the order of their distance
// from the start. It stops at the first one that Check complains about, with a
// *Violation.
func Explore[S comparable, Step fmt.Stringer](spec Spec[S, Step]) ([]S, error) {
	var (
		states []S
		parent []int
		known  = map[S]struct{}{}
	)
	visit := func(s S, from int) {
		before := len(known)
		known[s] = struct{}{} // looking it up first would double the work
		if len(known) > before {
			states, parent = append(states, s), append(parent, from)
		}
	}
	for _, s := range spec.Start {
		visit(s, -1)
	}
	for i := 0; i < len(states); i++ {
		if err := spec.Check(states[i]); err != nil {
			return states, &Violation{Err: err, Steps: trace(spec, states, parent, i)}
		}
		spec.Next(states[i], func(_ Step, next S) { visit(next, i) })
	}
	return states, nil
}

// trace finds the names of the steps by taking them again.
func trace[S comparable, Step fmt.Stringer](spec Spec[S, Step], states []S, parent []int, last int) []string {
	if parent[last] < 0 {
		return nil
	}
	steps := trace(spec, states, parent, parent[last])
	found := false
	spec.Next(states[parent[last]], func(step Step, next S) {
		if !found && next == states[last] {
			steps, found = append(steps, step.String()), true
		}
	})
	return steps
}

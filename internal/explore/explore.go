// Package explore checks a protocol by trying everything: each state that any
// interleaving of its steps can reach is visited once, breadth first, so that
// the trace to the first violation is a shortest one.
package explore

import (
	"fmt"
	"hash/maphash"
	"math"
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

// All visits every state and returns them in the order of their distance
// from the start. It stops at the first one that Check complains about, with a
// *Violation.
//
// Each state is stored once, with some twelve bytes beside it: the size of S decides
// how much can be explored.
func All[S comparable, Step fmt.Stringer](spec Spec[S, Step]) ([]S, error) {
	e := explored[S]{seed: maphash.MakeSeed(), table: make([]uint32, 1<<10)}
	for _, s := range spec.Start {
		e.visit(s, none)
	}
	for i := 0; i < len(e.states); i++ {
		if err := spec.Check(e.states[i]); err != nil {
			return e.states, &Violation{Err: err, Steps: trace(spec, e.states, e.parents, uint32(i))}
		}
		spec.Next(e.states[i], func(_ Step, next S) { e.visit(next, uint32(i)) })
	}
	return e.states, nil
}

// none is the parent of a start.
const none = math.MaxUint32

// explored is a set of states that remembers who was first.
type explored[S comparable] struct {
	states  []S
	parents []uint32
	seed    maphash.Seed
	table   []uint32 // open addressing: index into states, plus one
}

func (e *explored[S]) visit(s S, parent uint32) {
	at := e.place(s)
	if e.table[at] != 0 {
		return
	}
	e.states, e.parents = append(e.states, s), append(e.parents, parent)
	e.table[at] = uint32(len(e.states))
	if len(e.states) <= len(e.table)/4*3 {
		return
	}
	e.table = make([]uint32, 2*len(e.table))
	for i, s := range e.states {
		e.table[e.place(s)] = uint32(i + 1)
	}
}

// place returns where a state is in the table, or would be.
func (e *explored[S]) place(s S) uint64 {
	last := uint64(len(e.table) - 1)
	at := maphash.Comparable(e.seed, s) & last
	for e.table[at] != 0 && e.states[e.table[at]-1] != s {
		at = (at + 1) & last
	}
	return at
}

// trace finds the names of the steps by taking them again.
func trace[S comparable, Step fmt.Stringer](spec Spec[S, Step], states []S, parents []uint32, last uint32) []string {
	parent := parents[last]
	if parent == none {
		return nil
	}
	steps := trace(spec, states, parents, parent)
	found := false
	spec.Next(states[parent], func(step Step, next S) {
		if !found && next == states[last] {
			steps, found = append(steps, step.String()), true
		}
	})
	return steps
}

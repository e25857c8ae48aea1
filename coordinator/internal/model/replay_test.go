package model_test

import (
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/history"
)

// replayed replays what the volume shows along a way through the model, which begins with
// a state. It looks twice after each step for which
// looks says so.
func replayed(start state, steps []step, states []state, looks func() bool) []error {
	h := shadowOf(start)
	r := history.Replay{}
	broken := r.Next(h.look())
	for i, st := range steps {
		h.follow(st, states[i])
		if looks() {
			broken = append(broken, r.Next(h.look())...)
			broken = append(broken, r.Next(h.look())...)
		}
	}
	return broken
}

// way finds steps of these names that lead from one state to where a rule is broken.
func (p protocol) way(k packed, names []string) (steps []step, states []state, found bool) {
	if len(names) == 0 {
		return nil, nil, p.check(k) != nil
	}
	p.next(k, func(st step, next packed) {
		if found || st.String() != names[0] {
			return
		}
		if steps, states, found = p.way(next, names[1:]); found {
			steps, states = append([]step{st}, steps...), append([]state{next.unpack()}, states...)
		}
	})
	return steps, states, found
}

// onward has each unit end its call, without bad luck, after the last of the states.
func (p protocol) onward(steps []step, states []state) ([]step, []state) {
	for u := range units {
		for range 100 {
			last := states[len(states)-1]
			if last.units[u].at == idle {
				break
			}
			found := false
			p.next(p.pack(&last), func(st step, next packed) {
				if !found && st.unit == u {
					steps, states, found = append(steps, st), append(states, next.unpack()), true
				}
			})
		}
	}
	return steps, states
}

// What the model allows is never found to be wrong, however rarely one looks.
func TestReplay(t *testing.T) {
	const (
		walks  = 300
		length = 150
	)
	for name, p := range experiments() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p.named = true
			random := rand.New(rand.NewPCG(1, 2))
			for range walks {
				var steps []step
				var states []state
				for k := p.pack(&p.start); len(steps) < length; {
					var choices []packed
					var names []step
					p.next(k, func(st step, next packed) {
						if st.what != "fails or dies" || random.IntN(10) == 0 {
							names, choices = append(names, st), append(choices, next)
						}
					})
					if len(choices) == 0 {
						break
					}
					i := random.IntN(len(choices))
					k = choices[i]
					steps, states = append(steps, names[i]), append(states, k.unpack())
				}
				for _, rarely := range []int{1, 3, 20} {
					broken := replayed(p.start, steps, states, func() bool { return random.IntN(rarely) == 0 })
					require.Empty(t, broken, "%v", steps)
				}
			}
		})
	}
}

package model_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/model"
)

func (p protocol) spec() model.Spec[state, step] {
	return model.Spec[state, step]{Start: []state{p.canonical(p.start)}, Next: p.next, Check: p.check}
}

// used is a volume with three releases, of which nobody needs the first.
func used() state {
	return state{releases: [4]tree{absent, whole, whole, whole}, current: 3, previous: 2, bin: 3}
}

// alone follows one unit, the others being paused or dead, until the version it
// wants is current and it may run it.
func (p protocol) alone(t *testing.T, known map[state]bool, s state, u int) {
	const enough = 100 // a unit takes some 25 steps from one end to the other
	p.named = true
	want := p.wants[0]
	s = s.seenBy(u)
	var path []state
	for range enough {
		s = p.canonical(s)
		me := s.units[u]
		if known[s] || me.at == idle && s.current == want && (me.pinned && me.pin == want || !p.collect && s.bin == want) {
			for _, s := range path {
				known[s] = true
			}
			return
		}
		path = append(path, s)
		first := true
		p.steps(s, u, func(_ step, next state) {
			if first {
				s, first = next, false
			}
		})
	}
	t.Fatalf("a unit alone does not get anywhere from %+v", path[0])
}

// seenBy keeps of the state what the unit can ever notice while the others rest:
// what they have staged, and the collections they have announced.
func (s state) seenBy(u int) state {
	s.crashes, s.activated, s.sealed = 0, 0, 0
	for i, o := range s.units {
		if i == u {
			continue
		}
		seen := unit{staged: o.staged}
		if o.collects() {
			seen.at, seen.want, seen.off = o.at, o.want, o.off
		}
		s.units[i] = seen
	}
	return s
}

// TestProtocol visits all states of three experiments, and one more with fewer
// crashes, and has each unit finish alone from each of them.
func TestProtocol(t *testing.T) {
	for name, p := range map[string]protocol{
		"one version":              {wants: []uint8{1}, crashes: 2},
		"two versions":             {wants: []uint8{1, 2}, crashes: 2},
		"collecting":               {wants: []uint8{1}, collect: true, crashes: 2, start: used()},
		"collecting, two versions": {wants: []uint8{1, 3}, collect: true, start: used()},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			start := time.Now()
			states, err := model.Explore(p.spec())
			require.NoError(t, err)
			visited := time.Since(start)
			known := map[state]bool{}
			for _, s := range states {
				for u := range s.units {
					p.alone(t, known, s, u)
				}
			}
			t.Logf("%d states in %.1fs, and progress from each in %.1fs",
				len(states), visited.Seconds(), (time.Since(start) - visited).Seconds())
		})
	}
}

// TestBroken drops one rule at a time, and prints how that ends.
func TestBroken(t *testing.T) {
	install := protocol{wants: []uint8{1}, crashes: 2}
	change := protocol{wants: []uint8{1, 2}, crashes: 2}
	collect := protocol{wants: []uint8{1}, collect: true, crashes: 2, start: used()}
	both := collect
	both.wants = []uint8{1, 3}
	for name, test := range map[string]struct {
		protocol
		drop rules
		want string
	}{
		"no fence at publish":               {install, rules{noFenceAtPublish: true}, "a holder published after one of a later generation had begun to download"},
		"others keep what they staged":      {install, rules{noTakeAway: true}, "a holder published after one of a later generation had begun to download"},
		"no fence at activate":              {change, rules{noFenceAtActivate: true}, "follows, or replaces, one of a later generation"},
		"log read again after the fence":    {change, rules{fenceBeforeLog: true}, "follows, or replaces, one of a later generation"},
		"log entries are replaced":          {change, rules{logOverwrites: true}, "follows, or replaces, one of a later generation"},
		"no stat after link":                {install, rules{noStat: true}, "does not know"},
		"claims are replaced":               {install, rules{claimOverwrites: true}, "two units hold one generation"},
		"staging trees removed in place":    {install, rules{takeAwayInPlace: true}, "a published release is incomplete"},
		"release copied to its place":       {install, rules{publishCopies: true}, "a published release is incomplete"},
		"release replaced":                  {install, rules{publishReplaces: true}, "the current or the previous release is gone"},
		"collector ignores pins":            {collect, rules{ignorePins: true}, "a pinned release is gone"},
		"collector ignores previous":        {collect, rules{ignorePrevious: true}, "the current or the previous release is gone"},
		"pins read after the log":           {both, rules{pinsLast: true}, "the current or the previous release is gone"},
		"previous read, then current":       {collect, rules{logTwice: true}, "the current or the previous release is gone"},
		"collections are never called off":  {collect, rules{noCallOff: true}, "a pinned release is gone"},
		"removed first, put back if wanted": {collect, rules{noCallOff: true, lookTwice: true}, "a pinned release is gone"},
		"release removed in place":          {collect, rules{removeInPlace: true}, "a published release is incomplete"},
		"activated without a pin":           {collect, rules{activateWithoutPinning: true}, "the current or the previous release is gone"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := test.protocol
			p.drop, p.named = test.drop, true
			states, err := model.Explore(p.spec())
			require.ErrorContains(t, err, test.want)
			t.Logf("found after %d states: %v", len(states), err)
		})
	}
}

// TestSpare shows what the fence at publish and the stat after link are not for:
// without them time and bandwidth are lost, and no release.
func TestSpare(t *testing.T) {
	for name, p := range map[string]protocol{
		"no fence at publish": {drop: rules{noFenceAtPublish: true, noTakeAway: true}, allow: costs{late: true}},
		"no stat after link":  {drop: rules{noStat: true}, allow: costs{unaware: true}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p.wants, p.crashes = []uint8{1}, 2
			states, err := model.Explore(p.spec())
			require.NoError(t, err)
			t.Logf("%d states", len(states))
		})
	}
}

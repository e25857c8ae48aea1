package model_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/internal/explore"
)

func (p protocol) spec() explore.Spec[packed, step] {
	return explore.Spec[packed, step]{Start: []packed{p.pack(&p.start)}, Next: p.next, Check: p.check}
}

// used is a volume with three releases, of which nobody needs the first.
func used() state {
	return state{releases: [4]tree{absent, whole, whole, whole}, current: 3, previous: 2, bin: 3}
}

// installed is a volume with one release, which is current.
func installed() state {
	return state{releases: [4]tree{absent, whole}, current: 1, bin: 1}
}

// alone follows one unit, the others being paused or dead, until the version it
// wants is current and it may run it.
func (p protocol) alone(t *testing.T, known map[packed]bool, s state, u int) {
	const enough = 100 // a unit takes some 25 steps from one end to the other
	p.named = true
	want := p.wants[0]
	done := func(s *state) bool {
		me := &s.units[0]
		return me.at == idle && s.current == want && s.releases[want] == whole && (me.pin == want || !p.collect && s.bin == want)
	}
	p.seenBy(&s, u)
	first := p.pack(&s)
	if known[first] || done(&s) {
		return
	}
	path := []packed{first}
	m := move{protocol: p}
	for range enough {
		m.s, m.yield = s, func(_ step, next *state) {
			s, m.yield = *next, func(step, *state) {}
		}
		m.by(0)
		k := p.pack(&s)
		if known[k] || done(&s) {
			for _, k := range path {
				known[k] = true
			}
			return
		}
		path = append(path, k)
	}
	t.Fatalf("a unit alone does not get anywhere from %+v", first.unpack())
}

// seenBy keeps of the state what the unit can ever notice while the others rest:
// what they have staged, pinned and held, and the collections they have announced.
// The unit comes first.
func (p protocol) seenBy(s *state, u int) {
	s.unaware, s.excused, s.damage = false, false, none
	for i := range s.units {
		if i == u {
			continue
		}
		o := &s.units[i]
		seen := unit{pin: o.pin}
		switch {
		case o.staged != absent && o.ready():
			seen.at, seen.want, seen.staged = storeEntry, o.want, o.staged
		case o.staged != absent:
			seen.at, seen.want, seen.staged, seen.fresh = lookAtFence, o.want, o.staged, o.fresh
		case p.holds(o):
			seen.at, seen.want = lookHeld, o.want
		case p.announced(o):
			seen.at, seen.want, seen.doomLink, seen.doomLinked, seen.doomedOld = remove, o.want, o.doomLink, o.doomLinked, o.doomedOld
		}
		*o = seen
	}
	s.units[0], s.units[u] = s.units[u], s.units[0]
	// What it remembers of them goes with them.
	my := &s.units[0]
	for _, others := range []*set{&my.todo, &my.moved, &my.doomedOld, &my.doomedUnlinked} {
		mine, zeroth := others.has(u), others.has(0)
		*others &^= one(0) | one(u)
		if mine {
			*others |= one(0)
		}
		if zeroth {
			*others |= one(u)
		}
	}
}

// experiments are protocols that break no rule.
func experiments() map[string]protocol {
	return map[string]protocol{
		"one version":                {wants: []uint8{1}},
		"two versions":               {wants: []uint8{1, 2}},
		"corruption":                 {wants: []uint8{1}, corrupt: true, start: installed()},
		"collecting":                 {wants: []uint8{1}, collect: true, collects: []uint8{1}, start: used()},
		"collecting what was before": {wants: []uint8{1, 2}, collect: true, collects: []uint8{2}, start: used()},
		"collecting, and corruption": {wants: []uint8{1}, collect: true, collects: []uint8{1}, corrupt: true, start: used()},
	}
}

// TestProtocol visits all states of the experiments, and has each unit finish alone
// from each of them.
func TestProtocol(t *testing.T) {
	for name, p := range experiments() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			start := time.Now()
			states, err := explore.All(p.spec())
			require.NoError(t, err)
			visited := time.Since(start)
			known := map[packed]bool{}
			for _, k := range states {
				s := k.unpack()
				for u := range units {
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
	install := protocol{wants: []uint8{1}}
	change := protocol{wants: []uint8{1, 2}}
	corrupt := protocol{wants: []uint8{1}, corrupt: true, start: installed()}
	collect := protocol{wants: []uint8{1}, collect: true, collects: []uint8{1}, start: used()}
	repair := collect
	repair.corrupt = true
	before := collect // what was current before
	before.wants, before.collects = []uint8{1, 2}, []uint8{2}
	const (
		twice         = "two units hold one generation"
		unclaimed     = "a release is published under a claim that nobody held"
		unpinnedEntry = "a pinned entry is gone"
		late          = "a holder published after a newer one had begun to download"
		torn          = "a published release is incomplete"
		overtaken     = "an activation replaces one that it was decided without"
		missing       = "a release's path is missing, and nobody has collected it"
		unpinned      = "a pinned release is gone"
		unheld        = "a release is gone that a call holds"
		unkept        = "the current or the previous release is gone"
	)
	for name, test := range map[string]struct {
		protocol
		but   rules
		want  string
		shows string // what a replay of what the volume shows finds, if it can
	}{
		"no stat after link":               {install, rules{noStat: true}, "a unit holds the newest generation and does not know", ""}, // what a unit knows does not show
		"claims are replaced":              {install, rules{claimOverwrites: true}, twice, twice},
		"no fence at publish":              {install, rules{noFenceAtPublish: true}, late, late},
		"nobody takes over what is staged": {install, rules{noTakeOver: true}, late, ""}, // whether the newer one has begun does not show
		"claim given up, then published":   {install, rules{givesUpEarly: true}, unclaimed, unclaimed},
		"staging trees removed in place":   {repair, rules{takeAwayInPlace: true}, torn, ""}, // the model goes on with a whole tree
		"release copied to its place":      {install, rules{publishCopies: true}, torn, torn},
		"corrupt release removed first":    {corrupt, rules{unlinkFirst: true}, missing, unkept},
		"the same, for want of room":       {corrupt, rules{unlinkEarly: true}, missing, unkept},
		"link is not fenced":               {collect, rules{linkUnfenced: true}, missing, missing},
		"what is staged is not taken away": {collect, rules{noTakeAway: true}, missing, missing},
		"collector is not fenced":          {collect, rules{noFenceAtCollect: true}, missing, missing},
		"pins name versions":               {repair, rules{pinVersions: true}, "an entry is gone that a call holds", unpinnedEntry},
		"entry moved before its link":      {collect, rules{entryFirst: true}, missing, missing},
		"place of the link is not blocked": {collect, rules{linkNotBlocked: true}, unheld, unpinned},

		"log read again when overtaken":    {change, rules{logReadAgain: true}, overtaken, ""}, // the log is as if the call had begun later
		"log entries are replaced":         {change, rules{logOverwrites: true}, overtaken, overtaken},
		"bin linked without a second look": {change, rules{binOnce: true}, "bin is not the current release", ""}, // bin is derived from the log, and not replayed

		"activated without a hold":                {collect, rules{noHold: true}, unkept, unkept},
		"calls of one unit share a hold":          {collect, rules{oneHold: true}, unpinned, unpinned},
		"collectors are never called off":         {collect, rules{noCallOff: true}, unheld, unpinnedEntry},
		"collectors called off before the hold":   {collect, rules{callOffFirst: true}, unheld, unpinned},
		"looked before collectors are called off": {collect, rules{lookFirst: true}, unheld, unpinned},

		"collector ignores pins":            {collect, rules{ignorePins: true}, unheld, unpinned},
		"collector reads pins once":         {collect, rules{pinsOnce: true}, unpinned, unpinned},
		"collector reads pins after log":    {before, rules{pinsLast: true}, unkept, unkept},
		"collector ignores previous":        {before, rules{ignorePrevious: true}, unkept, unkept},
		"previous read, then current":       {before, rules{logTwice: true}, unkept, unkept},
		"collector announces last":          {collect, rules{announceLast: true}, unheld, unpinnedEntry},
		"removed first, put back if wanted": {collect, rules{noCallOff: true, lookTwice: true}, unheld, late},
		"release removed in place":          {collect, rules{removeInPlace: true}, torn, torn},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := test.protocol
			p.but, p.named = test.but, true
			states, err := explore.All(p.spec())
			require.ErrorContains(t, err, test.want)
			t.Logf("found after %d states: %v", len(states), err)
			var violation *explore.Violation
			require.ErrorAs(t, err, &violation)
			steps, passed, found := p.way(p.pack(&p.start), violation.Steps)
			require.True(t, found)
			steps, passed = p.onward(steps, passed)
			broken := replayed(p.start, steps, passed, func() bool { return true })
			if test.shows == "" {
				require.Empty(t, broken)
				return
			}
			require.NotEmpty(t, broken)
			require.ErrorContains(t, broken[0], test.shows)
		})
	}
}

// TestSpare shows what is no matter of safety: without the fence and the stat time
// and bandwidth are lost, and no release.
func TestSpare(t *testing.T) {
	for name, p := range map[string]protocol{
		"no fence at publish":     {but: rules{noFenceAtPublish: true, noTakeOver: true}, allow: costs{late: true}},
		"no stat after link":      {but: rules{noStat: true}, allow: costs{unaware: true}},
		"log read after the hold": {but: rules{holdFirst: true}, collect: true, collects: []uint8{1}, start: used()},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p.wants = []uint8{1}
			states, err := explore.All(p.spec())
			require.NoError(t, err)
			t.Logf("%d states", len(states))
		})
	}
}

package model_test

import (
	"fmt"
	"slices"
	"strings"

	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/model"
)

const (
	units    = 3
	versions = 3
)

// place is what a unit does next. From one place to the next it makes one access to
// the volume.
type place uint8

const (
	idle place = iota

	// Ensure; and Collect, for the claim.
	linkClaim     // after the newest generation
	lookAgain     // as the holder: is the release there by now
	listStaging   // what others have left of this version
	takeOver      // the best of that
	makeStaging   // or a tree of its own
	lookAtFence   // after the download: is my generation the newest
	storeEntry    // by renaming the staged tree
	lookAtRelease // is there one, and is it sound
	linkIfAbsent  // by a link made in the staging directory
	swap          // the link, by renaming one made there

	// Activate and Pin. The first step of Activate, from idle, reads the log.
	hold           // the release, for the time of the call
	listCollectors // that have announced themselves
	callOff        // one of them
	lookHeld       // is the release there still
	putEntry       // after the one that was read
	readAgain      // what is current, for bin
	writeBin
	writePin
	dropHold

	// Collect, of one version.
	listStaged // what others have staged of it
	takeStaged // away, all of it
	announce   // where things will be moved to, and begin to read the pins
	readPins
	readPinsAgain
	readKept    // current and previous
	readLink    // where it leads, and what else is in the store
	lookAtClaim // is it still the newest
	remove      // the link, then what nobody needs

	// Places of variants.
	unlink // a corrupt release, before another is linked
	finishCopy
	readLog     // after hold
	keepCurrent // read apart from previous
	lookTwice   // whether what was removed is wanted
)

// A tree is what a release's link leads to, or what is staged for one.
type tree uint8

const (
	absent   = tree(model.Absent) // also no link
	whole    = tree(model.Whole)
	torn     = tree(model.Torn)
	dangling = tree(model.Dangling) // a link only
	emptied  = dangling             // staged only: the tree is in the store, the directory is still there
)

// set holds units or versions, by number.
type set uint8

func one[N uint8 | int](n N) set { return 1 << n }

func (s set) has(n int) bool { return s>>n&1 != 0 }

type unit struct {
	at   place
	want uint8 // version that the call is about
	// fresh: what was read or claimed last is still the last word. With a claim that
	// is its generation, in Activate the entry of the log.
	fresh  bool
	staged tree
	// collector: the call is Collect, not Ensure.
	collector bool
	claimed   bool // and has not given up
	stored    bool // its entry is in the store, and no release is linked to it yet
	// todo are units whose staging tree to take over or away, or whose collection to
	// call off. For a collector that reads the pins they are units whose pin has changed
	// since it began, and moved are those whose hold has.
	todo, moved set
	pin         uint8
	old         bool  // the pinned entry is one that was replaced
	heldOld     bool  // the same of the hold, or of what is about to be held
	saw         uint8 // current, when bin is to be brought in line
	activates   bool  // the hold is one of Activate, not of Pin

	// What a collector may still move: the link, the entry that it led to, entries that
	// were replaced but units have pinned or hold, and entries of units that have not
	// linked them yet. The rest of the store is of no interest to anybody.
	doomLink, doomLinked      bool
	doomedOld, doomedUnlinked set

	// What only checks and variants look at.
	aware bool // nothing was activated since the call began
	late  bool // a newer holder has begun to download
	bare  bool // there is no hold although there should be
}

// state of the volume and of all units.
type state struct {
	releases [versions + 1]tree // by version; [0] is unused
	current  uint8
	previous uint8
	bin      uint8
	units    [units]unit

	// What only checks look at.
	unaware bool   // the newest generation is of a unit that lives and does not know
	excused bool   // a unit died while it brought bin in line
	damage  damage // of release 1
	broken  uint8  // index into deeds
}

// A release is corrupted once at most.
type damage uint8

const (
	none damage = iota
	damaged
	repaired
)

// deeds are violations that a step commits, so that no state shows them later.
var deeds = []error{
	nil, model.ErrLate, model.ErrOvertaken, model.ErrTorn, model.ErrMissing, model.ErrUnpinned, model.ErrUnheld, model.ErrUnclaimed,
}

// commit notes the rule that a step breaks, if any.
func (m *move) commit(err error) {
	if err != nil {
		m.n.broken = uint8(slices.Index(deeds, err))
	}
}

// rules that are different in a variant. All but the last make it worse.
type rules struct {
	noStat, claimOverwrites                             bool
	noFenceAtPublish, noTakeOver, takeAwayInPlace       bool
	publishCopies, unlinkFirst, unlinkEarly             bool
	linkUnfenced, swapBlindly                           bool
	logReadAgain, logOverwrites, binOnce, givesUpEarly  bool
	noHold, noCallOff, callOffFirst, lookFirst, oneHold bool
	ignorePins, ignorePrevious, pinsOnce                bool
	announceLast, pinsLast, logTwice                    bool
	lookTwice, removeInPlace, entryFirst                bool
	pinVersions, linkNotBlocked, storeFirst             bool
	noTakeAway, noFenceAtCollect                        bool

	holdFirst bool // and the log read after it
}

// costs are violations that are accepted.
type costs struct{ late, unaware bool }

// protocol is one experiment.
type protocol struct {
	start state
	wants []uint8 // versions that units install, activate and pin
	// collect has units pin and collect as well. Without it nothing depends on pins
	// and holds, and there are none; with it nobody derives bin, on which nothing
	// depends.
	collect  bool
	collects []uint8 // versions that units collect
	corrupt  bool    // release 1 may become corrupt
	calm     bool    // nobody dies
	named    bool    // tell units apart, for readable traces
	but      rules
	allow    costs
}

// step names what a unit does, and the versions or units that it is about.
type step struct {
	unit  int
	what  string
	about [2]uint8
}

func (s step) String() string {
	args := []any{s.about[0], s.about[1]}
	return fmt.Sprintf("unit %d %s", s.unit, fmt.Sprintf(s.what, args[:strings.Count(s.what, "%d")]...))
}

func (p protocol) next(k packed, yield func(step, packed)) {
	m := move{protocol: p, yield: func(name step, n *state) { yield(name, p.pack(n)) }}
	m.s = k.unpack()
	for u := range m.s.units {
		m.by(u)
		if m.me.at != idle && !p.calm {
			m.end(u)
			m.yield(step{unit: u, what: "fails or dies"}, &m.n)
		}
	}
	if p.corrupt && m.s.damage == none && m.s.releases[1] == whole {
		n := m.s
		n.releases[1], n.damage = torn, damaged
		m.yield(step{what: "is there when release 1 becomes corrupt"}, &n)
	}
}

// move is a step of one unit in the making.
type move struct {
	protocol
	s, n      state // before and after
	u         int
	me, my    *unit // the unit in s, and in n
	collected bool  // the step is that of a collector which moves a release's link
	yield     func(step, *state)
}

// by yields all that a unit can do. The first is the one without bad luck.
func (m *move) by(u int) {
	m.u, m.me, m.my = u, &m.s.units[u], &m.n.units[u]
	m.n = m.s
	switch at := m.me.at; {
	case at == idle:
		m.begin()
	case at <= swap || at == unlink || at == finishCopy:
		m.ensure()
	case at <= dropHold || at == readLog:
		m.activateOrPin()
	default:
		m.collectVersion()
	}
}

// to ends the step; what follows it begins anew from the state before.
func (m *move) to(at place, what string, about ...uint8) {
	m.my.at = at
	if at == idle {
		m.rest(m.u)
	}
	for v, was := range m.s.releases {
		m.commit(model.Move{From: model.Link(was), To: model.Link(m.n.releases[v]), Collected: m.collected}.Check())
	}
	m.collected = false
	m.drop()
	m.settle()
	name := step{unit: m.u, what: what}
	copy(name.about[:], about)
	m.yield(name, &m.n)
	m.n = m.s
}

// rest ends a call; the pin stays.
func (m *move) rest(u int) {
	m.n.units[u] = unit{pin: m.n.units[u].pin, old: m.n.units[u].old}
}

// end ends a call at any point.
func (m *move) end(u int) {
	switch was := m.n.units[u]; was.at {
	case readAgain, writeBin:
		m.n.excused = true
	}
	m.rest(u)
	m.drop()
	m.settle()
}

// drop ends calls that can change nothing any more. In truth they go on for a while
// and then fail; the states in between would differ in nothing that matters.
func (m *move) drop() {
	for i := range m.n.units {
		var over bool
		switch u := &m.n.units[i]; u.at {
		case linkClaim:
			over = !u.fresh && !m.but.claimOverwrites
		case lookAtFence:
			over = u.staged == absent
		case storeEntry:
			over = u.staged == absent
		case linkIfAbsent, swap:
			over = u.staged == absent && !m.but.linkUnfenced
		case lookAtClaim:
			over = !u.fresh && !m.but.noFenceAtCollect
		case hold, listCollectors, callOff, lookHeld, putEntry:
			over = u.activates && !u.fresh && m.collect && !m.but.holdFirst
		}
		if over {
			m.rest(i)
		}
	}
}

// settle tells the others of a step: what is gone cannot be taken over or called
// off, and what changes while it is read may be missed.
func (m *move) settle() {
	for i := range m.n.units {
		was, is := &m.s.units[i], &m.n.units[i]
		if *was == *is {
			continue
		}
		gone := was.staged != absent && is.staged == absent || m.announced(was) && !m.announced(is)
		held, holds := m.holds(was), m.holds(is)
		linked := was.stored && !is.stored // or the call has ended, and its entry is garbage
		let := (was.old || was.heldOld) && !is.old && !is.heldOld
		for j := range m.n.units {
			o := &m.n.units[j]
			if linked {
				o.doomedUnlinked &^= one(i)
			}
			if let {
				o.doomedOld &^= one(i)
			}
			switch {
			case o.at == readPins || o.at == readPinsAgain:
				if was.pin != is.pin {
					o.todo |= one(i)
				}
				if held != holds {
					o.moved |= one(i)
				}
			case gone:
				o.todo &^= one(i)
			}
			if m.but.oneHold && held && !holds && m.holds(o) && o.want == was.want {
				o.bare = true
			}
		}
	}
}

// begin is the first step of a call.
func (m *move) begin() {
	for _, v := range m.wants {
		if m.s.releases[v] != whole {
			m.my.want, m.my.fresh = v, true
			m.to(linkClaim, "wants to install %d, and reads the newest generation", v)
			continue
		}
		if m.s.current != v || !m.collect {
			m.my.want = v
			m.activate()
		}
		if m.collect && m.me.pin != v {
			m.my.want = v
			m.hold()
		}
	}
	for _, v := range m.collects {
		if m.s.releases[v] == absent {
			continue // or there is only garbage
		}
		m.my.want, m.my.fresh, m.my.collector = v, true, true
		m.to(linkClaim, "wants to collect %d, and reads the newest generation", v)
	}
}

// holdsClaim tells whether the unit takes itself for the holder, and will look.
func (u *unit) holdsClaim() bool {
	return u.at >= lookAgain && u.at <= lookAtFence || u.at >= listStaged && u.at <= remove || u.at == keepCurrent || u.at == lookTwice
}

// ready tells whether the unit has downloaded, and has looked at the fence.
func (u *unit) ready() bool { return u.at >= storeEntry && u.at <= swap || u.at == unlink }

// holds tells whether the unit's version is pinned for the time of the call.
func (p protocol) holds(u *unit) bool {
	switch u.at {
	case listCollectors, callOff, lookHeld, readLog, putEntry, writePin, dropHold:
		return p.collect && !u.bare
	}
	return false
}

// announced tells whether a collector's directory is there.
func (p protocol) announced(u *unit) bool {
	switch u.at {
	case readPins, readPinsAgain, readKept, keepCurrent, readLink:
		return !p.but.announceLast
	case lookAtClaim, remove, lookTwice:
		return true
	}
	return false
}

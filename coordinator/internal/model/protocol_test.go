package model_test

import (
	"fmt"
	"strings"
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
	lookIfCorrupt // is what is in the place of the release
	quarantine    // what is there by now
	putBack       // because it was another one
	rename        // the staged tree to its place

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

	// Collect.
	announce // where releases will be moved to, and begin to read the pins
	readPins
	readPinsAgain
	readKept // current and previous
	remove   // what is neither

	// Places of variants.
	replace // what was published before
	finishCopy
	readLog     // after hold
	keepCurrent // read apart from previous
	lookTwice   // whether what was removed is wanted
)

// A tree is a release or what is staged for one.
type tree uint8

const (
	absent tree = iota
	whole
	torn // some files are missing
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
	// todo are units whose staging tree to take over, or whose collection to call off.
	// For a collector that reads the pins they are units whose pin has changed since
	// it began, and moved are those whose hold has.
	todo, moved set
	doomed      set // versions that a collector may still move
	pin         uint8
	saw         uint8 // current, when bin is to be brought in line
	activates   bool  // the hold is one of Activate, not of Pin
	early       bool  // quarantine is for want of room, before the fence

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
	orphan  bool   // it was moved away while it was sound, for good
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
var deeds = []string{
	errLate:      "a holder published after a newer one had begun to download",
	errOvertaken: "an activation replaces one that it was decided without",
	errTorn:      "a published release is incomplete",
}

const (
	errLate = iota + 1
	errOvertaken
	errTorn
)

// rules that are different in a variant. All but the last make it worse.
type rules struct {
	noStat, claimOverwrites                             bool
	noFenceAtPublish, noTakeOver, takeAwayInPlace       bool
	publishReplaces, publishCopies, noPutBack           bool
	logReadAgain, logOverwrites, binOnce                bool
	noHold, noCallOff, callOffFirst, lookFirst, oneHold bool
	ignorePins, ignorePrevious, pinsOnce                bool
	announceLast, pinsLast, logTwice                    bool
	lookTwice, removeInPlace                            bool
	// sharedQuarantine moves a corrupt release straight there, not by way of the own
	// staging directory. So nobody removes all directories of older holders.
	sharedQuarantine bool

	holdFirst bool // and the log read after it
}

// costs are violations that are accepted.
type costs struct{ late, unaware, window, orphan bool }

// protocol is one experiment.
type protocol struct {
	start state
	wants []uint8 // versions that units install, activate and pin
	// collect has units pin and collect as well. Without it nothing depends on pins
	// and holds, and there are none; with it nobody derives bin, on which nothing
	// depends.
	collect bool
	corrupt bool // release 1 may become corrupt
	calm    bool // nobody dies
	named   bool // tell units apart, for readable traces
	but     rules
	allow   costs
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
	s, n   state // before and after
	u      int
	me, my *unit // the unit in s, and in n
	yield  func(step, *state)
}

// by yields all that a unit can do. The first is the one without bad luck.
func (m *move) by(u int) {
	m.u, m.me, m.my = u, &m.s.units[u], &m.n.units[u]
	m.n = m.s
	switch at := m.me.at; {
	case at == idle:
		m.begin()
	case at <= rename || at == replace || at == finishCopy:
		m.ensure()
	case at <= dropHold || at == readLog:
		m.activateOrPin()
	default:
		m.collectReleases()
	}
}

// to ends the step; what follows it begins anew from the state before.
func (m *move) to(at place, what string, about ...uint8) {
	m.my.at = at
	if at == idle {
		m.rest(m.u)
	}
	m.drop()
	m.settle()
	name := step{unit: m.u, what: what}
	copy(name.about[:], about)
	m.yield(name, &m.n)
	m.n = m.s
}

// rest ends a call; the pin stays.
func (m *move) rest(u int) { m.n.units[u] = unit{pin: m.n.units[u].pin} }

// end ends a call at any point.
func (m *move) end(u int) {
	switch was := m.n.units[u]; was.at {
	case putBack:
		m.n.orphan = m.n.orphan || m.n.releases[was.want] == absent
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
			over = u.staged == absent && (!m.corrupt || !m.but.sharedQuarantine)
		case rename:
			over = u.staged == absent
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
		for j := range m.n.units {
			o := &m.n.units[j]
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
	if m.collect {
		m.my.fresh = true
		m.to(linkClaim, "wants to collect, and reads the newest generation")
	}
}

// takeAway is what a collector does with all that is staged and in quarantine, and
// a unit that is short of room: one name at a time, in any order, or not at all.
func (m *move) takeAway() {
	for i := range m.s.units {
		o, victim := &m.s.units[i], &m.n.units[i]
		switch {
		case i == m.u:
		case o.at == putBack:
			m.end(i)
			m.to(m.me.at, "removes the release that unit %d has moved to quarantine", uint8(i))
		case m.announced(o):
			m.rest(i) // all that it does from now on fails
			m.to(m.me.at, "removes the directory of unit %d", uint8(i))
		case o.staged == whole && m.but.takeAwayInPlace:
			victim.staged = torn
			m.to(m.me.at, "begins to remove what unit %d has staged", uint8(i))
		case o.staged == whole:
			victim.staged = absent
			m.to(m.me.at, "takes away what unit %d has staged", uint8(i))
		}
	}
}

// holdsClaim tells whether the unit takes itself for the holder, and will look.
func (u *unit) holdsClaim() bool { return u.at >= lookAgain && u.at <= lookAtFence || u.early }

// ready tells whether the unit has downloaded, and has looked at the fence.
func (u *unit) ready() bool {
	return (u.at >= lookIfCorrupt && u.at <= rename || u.at == replace) && !u.early
}

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
	case readPins, readPinsAgain, readKept, keepCurrent:
		return !p.but.announceLast
	case remove, lookTwice:
		return true
	}
	return false
}

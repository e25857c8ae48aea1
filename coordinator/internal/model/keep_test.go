package model_test

import "github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/model"

// activate is the first step of Activate.
func (m *move) activate() {
	v := m.my.want
	m.my.activates = true
	if m.but.holdFirst && m.me.at == idle {
		m.hold()
		return
	}
	if m.s.current == v {
		m.activated("finds %d current", v)
		return
	}
	m.my.fresh, m.my.aware = true, true
	switch {
	case !m.collect || m.but.holdFirst:
		m.to(putEntry, "wants to activate %d, and finds %d current", v, m.s.current)
	case m.but.noHold:
		m.my.bare = true
		m.to(putEntry, "wants to activate %d, and finds %d current", v, m.s.current)
	default:
		m.to(hold, "wants to activate %d, and finds %d current", v, m.s.current)
	}
}

// activated goes on when the release is current.
func (m *move) activated(what string, about ...uint8) {
	if m.collect {
		m.to(idle, what, about...)
		return
	}
	m.my.want, m.my.activates, m.my.fresh, m.my.aware = 0, false, false, false
	m.to(readAgain, what, about...)
}

// activateOrPin is the rest of a call of Activate or Pin.
func (m *move) activateOrPin() {
	v := m.me.want
	switch m.me.at {
	case hold:
		m.hold()
	case listCollectors:
		for i := range m.s.units {
			if o := &m.s.units[i]; i != m.u && m.announced(o) && o.want == v && !m.but.noCallOff {
				m.my.todo |= one(i)
			}
		}
		if m.my.todo != 0 {
			m.to(callOff, "finds collectors that may take %d", v)
		} else {
			m.calledOff("finds no collector that may take %d", v)
		}
	case callOff:
		if m.me.todo == 0 {
			m.calledOff("finds all collectors gone")
		}
		for i := range m.s.units {
			if !m.me.todo.has(i) {
				continue
			}
			m.block(i)
			if m.my.todo &^= one(i); m.my.todo != 0 {
				m.to(callOff, "blocks the place of %d in the directory of unit %d", v, uint8(i))
			} else {
				m.calledOff("blocks the place of %d in the directory of unit %d", v, uint8(i))
			}
		}
	case lookHeld:
		switch {
		case m.s.releases[v] != whole:
			m.to(idle, "finds that %d is gone, or corrupt", v)
		case m.me.heldOld:
			m.my.heldOld = false
			m.to(hold, "finds that %d was installed anew", v)
		case m.but.lookFirst:
			m.to(listCollectors, "finds %d there", v)
		default:
			m.held("finds %d there still", v)
		}
	case readLog:
		m.activate()
	case putEntry:
		m.putEntry()
	case readAgain:
		if m.s.current == m.me.saw || m.me.saw != 0 && m.but.binOnce {
			m.n.excused = m.s.excused && m.s.bin != m.s.current
			m.to(idle, "finds bin in line with the log")
			return
		}
		m.my.saw = m.s.current
		m.to(writeBin, "finds %d current", m.s.current)
	case writeBin:
		m.n.bin = m.me.saw
		m.to(readAgain, "links bin to %d", m.me.saw)
	case writePin:
		m.my.pin, m.my.old = v, m.me.heldOld
		m.to(dropHold, "pins %d", v)
	case dropHold:
		m.to(idle, "has pinned %d", v)
	}
}

func (m *move) hold() {
	v := m.my.want
	switch {
	case m.but.callOffFirst && !m.my.bare:
		m.my.bare = true
		m.to(listCollectors, "wants %d", v)
	case m.but.callOffFirst:
		m.my.bare = false
		m.to(lookHeld, "holds %d", v)
	case m.but.lookFirst:
		m.to(lookHeld, "holds %d", v)
	default:
		m.to(listCollectors, "holds %d", v)
	}
}

// calledOff goes on when no collector can take the release any more.
func (m *move) calledOff(what string, about ...uint8) {
	switch {
	case m.but.callOffFirst:
		m.to(hold, what, about...)
	case m.but.lookFirst:
		m.held(what, about...)
	default:
		m.to(lookHeld, what, about...)
	}
}

// held goes on with what the release is held for.
func (m *move) held(what string, about ...uint8) {
	switch {
	case !m.me.activates:
		m.to(writePin, what, about...)
	case m.but.holdFirst:
		m.to(readLog, what, about...)
	default:
		m.to(putEntry, what, about...)
	}
}

func (m *move) putEntry() {
	v := m.me.want
	if !m.me.fresh && !m.but.logOverwrites {
		switch {
		case m.s.current == v:
			m.activated("finds that another unit has activated %d", v)
		case m.but.logReadAgain:
			m.my.fresh = true
			m.to(putEntry, "finds that another unit has activated %d, and reads the log again", m.s.current)
		default:
			m.to(idle, "is overtaken: %d is current", m.s.current)
		}
		return
	}
	m.commit(model.Activation{Aware: m.me.aware}.Check())
	if m.s.current != v {
		m.n.previous = m.s.current
	}
	m.n.current = v
	for i := range m.n.units {
		if o := &m.n.units[i]; o.activates {
			o.fresh, o.aware = false, false
		}
	}
	m.activated("activates %d", v)
}

// block keeps a collector from moving the link of the unit's version, and the entry
// that the unit holds.
func (m *move) block(collector int) {
	o := &m.n.units[collector]
	o.doomedOld &^= one(m.u)
	if m.me.heldOld {
		return
	}
	o.doomLinked = false
	if !m.but.linkNotBlocked {
		o.doomLink = false
	}
}

// collectVersion is the rest of a call of Collect, which has the claim. What may be
// moved begins as everything. A pin that is read, an entry of the log, and a place that
// somebody blocks all mean the same for the collector: that stays.
func (m *move) collectVersion() {
	v := m.me.want
	switch m.me.at {
	case listStaged:
		if !m.but.noTakeAway {
			for i := range m.s.units {
				if o := &m.s.units[i]; i != m.u && o.want == v && (o.staged != absent || m.announced(o)) {
					m.my.todo |= one(i)
				}
			}
		}
		m.to(takeStaged, "lists what is staged of %d", v)
	case takeStaged:
		m.takeStaged()
	case announce:
		m.my.doomLink, m.my.doomLinked, m.my.doomedOld = true, true, 1<<units-1
		if m.but.storeFirst {
			m.listStore()
		}
		switch {
		case m.but.pinsLast:
			m.to(readKept, "makes a directory for what it will remove")
		case m.but.ignorePins:
			m.to(readKept, "makes a directory for what it will remove, and reads no pins")
		default:
			m.to(readPins, "makes a directory for what it will remove, and begins to read the pins")
		}
	case readPins:
		m.spare()
		if m.but.pinsOnce {
			m.pinsRead("has read the pins")
		} else {
			m.to(readPinsAgain, "has read the pins, and begins anew")
		}
	case readPinsAgain:
		m.spare()
		m.pinsRead("has read the pins again")
	case readKept:
		if m.s.previous == v && !m.but.ignorePrevious {
			m.keep()
		}
		if m.but.logTwice {
			m.to(keepCurrent, "finds %d previous", m.s.previous)
			return
		}
		if m.s.current == v {
			m.keep()
		}
		if m.but.pinsLast {
			m.to(readPins, "finds %d current and %d previous, and begins to read the pins", m.s.current, m.s.previous)
		} else {
			m.to(readLink, "finds %d current and %d previous", m.s.current, m.s.previous)
		}
	case keepCurrent:
		if m.s.current == v {
			m.keep()
		}
		m.to(readLink, "finds %d current", m.s.current)
	case readLink:
		if !m.but.storeFirst {
			m.listStore()
		}
		m.to(lookAtClaim, "follows the link of %d, and lists the store", v)
	case lookAtClaim:
		if !m.me.fresh && !m.but.noFenceAtCollect {
			m.to(idle, "finds that it lost its generation")
			return
		}
		m.to(remove, "takes itself to be the holder")
	case remove:
		m.remove()
	case lookTwice:
		m.lookTwice()
	}
}

// takeStaged takes away what others have staged. That it does so in one step is no loss:
// who finds its directory gone a little later could as well have been slower.
func (m *move) takeStaged() {
	for i := range m.s.units {
		if !m.me.todo.has(i) {
			continue
		}
		victim := &m.n.units[i]
		switch {
		case m.announced(&m.s.units[i]):
			m.rest(i) // all that it does from now on fails
		case m.but.takeAwayInPlace && victim.staged == whole:
			victim.staged = torn
		default:
			victim.staged = absent
		}
	}
	m.my.todo = 0
	m.to(announce, "takes away what was staged of %d", m.me.want)
}

// keep is what the collector does about a version that somebody needs.
func (m *move) keep() { m.my.doomLink, m.my.doomLinked = false, false }

// listStore finds the entries that no release is linked to.
func (m *move) listStore() {
	v := m.me.want
	m.my.doomedUnlinked = 0
	for i := range m.s.units {
		o := &m.s.units[i]
		if o.want == v && o.stored {
			m.my.doomedUnlinked |= one(i)
		}
		// Only what is in the store by now, and not linked, was found.
		if !(o.pin == v && o.old) && !(o.heldOld && o.want == v) {
			m.my.doomedOld &^= one(i)
		}
	}
	if m.s.releases[v] == absent {
		m.my.doomLink, m.my.doomLinked = false, false
	}
}

// spare keeps what is pinned, as far as it was the whole time while the pins were
// listed and read. What came or went may be missed: the listing, and the files, are
// not read at one moment, nor in any order.
func (m *move) spare() {
	v := m.me.want
	for i := range m.s.units {
		o := &m.s.units[i]
		seen := !m.me.todo.has(i) && o.pin == v || !m.me.moved.has(i) && m.holds(o) && o.want == v
		if !seen {
			continue
		}
		m.keep()
		if !m.but.pinVersions {
			m.my.doomedOld &^= one(i)
		}
	}
	m.my.todo, m.my.moved = 0, 0
}

func (m *move) pinsRead(what string) {
	if m.but.pinsLast {
		m.to(readLink, what)
	} else {
		m.to(readKept, what)
	}
}

// remove moves the next doomed thing, or leaves it, for a reason that is not modelled.
// A link that is left keeps what it leads to.
func (m *move) remove() {
	v := m.me.want
	switch {
	case m.me.doomedUnlinked != 0:
		for i := range m.s.units {
			if m.me.doomedUnlinked.has(i) {
				m.my.doomedUnlinked &^= one(i)
				m.n.units[i].stored = false
				m.to(lookAtClaim, "removes the entry of unit %d", uint8(i))
				return
			}
		}
	case m.me.doomedOld != 0:
		for i := range m.s.units {
			if !m.me.doomedOld.has(i) {
				continue
			}
			m.my.doomedOld &^= one(i)
			o := &m.s.units[i]
			relies := o.at == putEntry || o.at == writePin || o.at == dropHold
			m.commit(model.Removal{Pinned: o.pin == v && o.old, Held: o.want == v && o.heldOld && m.holds(o) && relies}.Check())
			m.to(lookAtClaim, "removes the entry that unit %d has", uint8(i))
			return
		}
	case m.me.doomLink && !m.but.entryFirst:
		if m.s.releases[v] != absent {
			m.my.doomLink, m.collected = false, true
			m.n.releases[v] = absent
			if m.but.removeInPlace {
				m.n.releases[v] = torn
			}
			if m.but.lookTwice {
				m.to(lookTwice, "renames %d away", v)
			} else {
				m.to(lookAtClaim, "moves the link of %d", v)
			}
		}
		m.keep()
		m.to(lookAtClaim, "leaves %d", v)
	case m.me.doomLinked:
		if m.s.releases[v] != absent {
			m.n.releases[v] = dangling
		}
		m.my.doomLinked = false
		m.to(lookAtClaim, "moves the entry of %d", v)
	default:
		m.to(idle, "has removed what nobody needs")
	}
}

func (m *move) lookTwice() {
	v := m.me.want
	wanted := v == m.s.current || v == m.s.previous
	for i := range m.s.units {
		o := &m.s.units[i]
		wanted = wanted || o.pin == v || m.holds(o) && o.want == v
	}
	if wanted && m.s.releases[v] == absent {
		m.n.releases[v] = whole
		m.my.doomLinked = false
		m.to(lookAtClaim, "finds %d wanted, and puts it back", v)
		return
	}
	m.to(lookAtClaim, "removes %d", v)
}

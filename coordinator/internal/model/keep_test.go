package model_test

import "math/bits"

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
			if o := &m.s.units[i]; i != m.u && m.announced(o) && o.doomed.has(int(v)) && !m.but.noCallOff {
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
			m.n.units[i].doomed &^= one(v)
			if m.my.todo &^= one(i); m.my.todo != 0 {
				m.to(callOff, "blocks the place of %d in the directory of unit %d", v, uint8(i))
			} else {
				m.calledOff("blocks the place of %d in the directory of unit %d", v, uint8(i))
			}
		}
	case lookHeld:
		switch {
		case m.s.releases[v] != whole:
			m.to(idle, "finds that %d is gone", v)
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
		m.my.pin = v
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
	if !m.me.aware {
		m.n.broken = errOvertaken
	}
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

// collectReleases is the rest of a call of Collect, which has the claim.
//
// doomed begins as all versions. A pin that is read, an entry of the log, and a
// place that somebody blocks all mean the same for the collector: that version
// stays. So one set is enough.
func (m *move) collectReleases() {
	switch m.me.at {
	case announce:
		m.my.doomed = one(1) | one(2) | one(3)
		switch {
		case m.but.pinsLast:
			m.to(readKept, "makes a directory for what it will remove")
		case m.but.ignorePins:
			m.to(readKept, "makes a directory for what it will remove, and reads no pins")
		default:
			m.to(readPins, "makes a directory for what it will remove, and begins to read the pins")
		}
		m.takeAway()
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
		if !m.but.ignorePrevious {
			m.my.doomed &^= one(m.s.previous)
		}
		if m.but.logTwice {
			m.to(keepCurrent, "finds %d previous", m.s.previous)
			return
		}
		m.my.doomed &^= one(m.s.current)
		if m.but.pinsLast {
			m.to(readPins, "finds %d current and %d previous, and begins to read the pins", m.s.current, m.s.previous)
		} else {
			m.to(remove, "finds %d current and %d previous", m.s.current, m.s.previous)
		}
	case keepCurrent:
		m.my.doomed &^= one(m.s.current)
		m.to(remove, "finds %d current", m.s.current)
	case remove:
		m.remove()
	case lookTwice:
		m.lookTwice()
	}
}

// spare keeps what is pinned, as far as it was the whole time while the pins were
// listed and read. What came or went may be missed: the listing, and the files, are
// not read at one moment, nor in any order.
func (m *move) spare() {
	for i := range m.s.units {
		o := &m.s.units[i]
		if !m.me.todo.has(i) {
			m.my.doomed &^= one(o.pin)
		}
		if !m.me.moved.has(i) && m.holds(o) {
			m.my.doomed &^= one(o.want)
		}
	}
	m.my.todo, m.my.moved = 0, 0
}

func (m *move) pinsRead(what string) {
	if m.but.pinsLast {
		m.to(remove, what)
	} else {
		m.to(readKept, what)
	}
}

// remove moves the first doomed release, or leaves it, for a reason that is not
// modelled.
func (m *move) remove() {
	if m.me.doomed == 0 {
		m.to(idle, "has removed what nobody needs")
		return
	}
	v := m.me.first()
	if m.s.releases[v] != absent {
		m.n.releases[v] = absent
		if m.but.removeInPlace {
			m.n.releases[v] = torn
		}
		if m.but.lookTwice {
			m.to(lookTwice, "renames %d away", v)
		} else {
			m.my.doomed &^= one(v)
			m.to(remove, "renames %d away", v)
		}
	}
	m.my.doomed &^= one(v)
	m.to(remove, "leaves %d", v)
}

func (m *move) lookTwice() {
	v := m.me.first()
	m.my.doomed &^= one(v)
	wanted := v == m.s.current || v == m.s.previous
	for i := range m.s.units {
		o := &m.s.units[i]
		wanted = wanted || o.pin == v || m.holds(o) && o.want == v
	}
	if wanted && m.s.releases[v] == absent {
		m.n.releases[v] = whole
		m.to(remove, "finds %d wanted, and puts it back", v)
		return
	}
	m.to(remove, "removes %d", v)
}

// first is the version that a collector comes to next.
func (u *unit) first() uint8 { return uint8(bits.TrailingZeros8(uint8(u.doomed))) }

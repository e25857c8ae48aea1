package model_test

import "github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/model"

// ensure is the rest of a call of Ensure; the claim is also that of Collect.
func (m *move) ensure() {
	v := m.me.want
	switch m.me.at {
	case linkClaim:
		m.claim()
	case lookAgain:
		if m.s.releases[v] == whole {
			m.to(idle, "finds %d installed", v)
		} else {
			m.to(listStaging, "finds %d missing", v)
		}
	case listStaging:
		m.listStaging()
	case takeOver:
		for i := range m.s.units {
			if m.me.todo.has(i) {
				m.n.units[i].staged = absent
				m.my.todo &^= one(i)
				break
			}
		}
		if m.my.todo != 0 {
			m.to(takeOver, "removes what is staged")
			return
		}
		m.my.staged = whole
		m.to(lookAtFence, "takes over what is staged")
	case makeStaging:
		m.my.staged = whole
		m.to(lookAtFence, "makes a staging tree for %d", v)
	case lookAtFence:
		m.lookAtFence()
	case storeEntry:
		m.my.staged, m.my.stored = emptied, true
		m.commit(model.Publication{Claimed: m.me.claimed, Torn: m.me.staged == torn}.Check())
		m.to(lookAtRelease, "puts its tree of %d into the store", v)
	case lookAtRelease:
		m.lookAtRelease()
	case unlink:
		m.n.releases[v] = absent
		m.to(linkIfAbsent, "removes %d to make place", v)
	case linkIfAbsent, swap:
		m.link()
	case finishCopy:
		m.n.releases[v] = whole
		m.to(idle, "publishes the rest of %d", v)
	}
}

func (m *move) claim() {
	if !m.me.fresh && !m.but.claimOverwrites {
		m.to(idle, "finds the next generation taken")
		return
	}
	for i := range m.n.units {
		o := &m.n.units[i]
		if i != m.u && o.want == m.me.want && (o.at == linkClaim || o.holdsClaim() && m.me.fresh) {
			o.fresh = false
		}
	}
	m.n.unaware = false
	if m.but.noStat {
		claimed := m.n
		m.n.unaware = true
		m.to(idle, "claims the next generation, and is told that it failed")
		m.n = claimed
	}
	m.my.fresh, m.my.claimed = true, true
	if m.me.collector {
		m.to(listStaged, "claims the next generation")
		return
	}
	m.to(lookAgain, "claims the next generation")
}

// listStaging chooses what to take over. The holder of the newest generation takes
// the most: a complete tree, if a unit is past its fence with one. What others take,
// who come to nothing, is left open.
func (m *move) listStaging() {
	v := m.me.want
	var parts, trees set
	for i := range m.s.units {
		o := &m.s.units[i]
		switch newer := o.fresh && o.holdsClaim(); {
		case i == m.u || o.staged == absent || o.want != v || newer || m.but.noTakeOver:
		case o.ready():
			trees |= one(i)
		default:
			parts |= one(i)
		}
	}
	if parts|trees != 0 {
		m.my.todo = parts | trees
		m.seal()
		m.to(takeOver, "finds what others have staged of %d", v)
		return
	}
	m.seal()
	m.to(makeStaging, "finds nothing staged of %d", v)
}

// seal notes that the holder of the newest generation goes on to download.
func (m *move) seal() {
	if m.collect {
		return // it is found out where nobody collects
	}
	for i := range m.n.units {
		o := &m.n.units[i]
		if m.me.fresh && i != m.u && o.want == m.me.want && !m.my.todo.has(i) && (o.ready() || o.holdsClaim() && m.but.noFenceAtPublish) {
			o.late = true
		}
	}
}

func (m *move) lookAtFence() {
	v := m.me.want
	if m.but.unlinkEarly && m.s.releases[v] == torn && m.me.staged != absent {
		m.n.releases[v] = absent
		m.to(lookAtFence, "is short of room, and removes the corrupt %d", v)
	}
	if !m.me.fresh && !m.but.noFenceAtPublish {
		m.to(idle, "has downloaded %d and finds that it lost its generation", v)
		return
	}
	m.my.fresh, m.my.claimed = false, !m.but.givesUpEarly
	m.to(storeEntry, "has downloaded %d and takes itself to be the holder", v)
}

// lookAtRelease decides how the release is linked to the entry, if at all.
func (m *move) lookAtRelease() {
	switch v := m.me.want; {
	case m.s.releases[v] == whole:
		m.to(idle, "finds %d published", v)
	case m.s.releases[v] == absent:
		m.to(linkIfAbsent, "finds %d missing", v)
	case m.but.unlinkFirst:
		m.to(unlink, "finds %d corrupt", v)
	default:
		m.to(swap, "finds %d corrupt", v)
	}
}

// link moves the link, which lies in the staging directory, to its place.
func (m *move) link() {
	v := m.me.want
	if m.me.staged == absent && !m.but.linkUnfenced {
		m.to(idle, "finds its link gone")
		return
	}
	if m.me.at == linkIfAbsent && m.s.releases[v] != absent && !m.but.swapBlindly {
		m.to(lookAtRelease, "finds that %d is there by now", v)
		return
	}
	m.commit(model.Publication{Claimed: m.me.claimed, Late: m.me.late && !m.allow.late}.Check())
	m.replaced(v)
	m.my.staged, m.my.stored = absent, false
	m.n.releases[v] = whole
	if !m.me.stored {
		m.n.releases[v] = dangling
	}
	if v == 1 && m.s.damage == damaged {
		m.n.damage = repaired
	}
	if m.but.publishCopies {
		m.n.releases[v] = torn
		m.to(finishCopy, "publishes half of %d", v)
		return
	}
	m.to(idle, "links %d", v)
}

// replaced notes who still has the entry that a release was linked to before, be its
// link replaced or moved away by a collector.
func (m *move) replaced(v uint8) {
	var having set
	for i := range m.n.units {
		o := &m.n.units[i]
		if o.pin == v && !o.old {
			o.old = true
			having |= one(i)
		}
		about := o.at == hold || o.at == listCollectors || o.at == callOff || o.at == lookHeld || o.at == putEntry || o.at == writePin || o.at == dropHold
		if about && o.want == v && !o.heldOld {
			o.heldOld = true
			having |= one(i)
		}
	}
	for i := range m.n.units {
		o := &m.n.units[i]
		if o.want == v && o.doomLinked {
			o.doomLinked = false
			o.doomedOld |= having
		}
	}
}

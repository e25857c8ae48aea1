package model_test

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
	case lookIfCorrupt:
		if m.s.releases[v] == torn {
			m.to(quarantine, "finds %d corrupt", v)
		} else {
			m.quarantined("finds no corrupt %d", v)
		}
	case quarantine:
		if !m.but.sharedQuarantine && m.me.staged == absent {
			m.to(idle, "finds its directory gone")
			return
		}
		m.n.releases[v] = absent
		switch m.s.releases[v] {
		case absent:
			m.quarantined("finds %d gone", v)
		case whole:
			m.to(putBack, "moves a sound %d to quarantine", v)
		case torn:
			m.quarantined("moves the corrupt %d to quarantine", v)
		}
	case putBack:
		switch {
		case m.but.noPutBack:
			m.n.orphan = m.s.releases[v] == absent
			m.quarantined("takes what it has moved for the corrupt one")
		case m.s.releases[v] == absent:
			m.n.releases[v] = whole
			m.quarantined("puts %d back", v)
		default:
			m.to(idle, "finds another %d in the place", v)
		}
	case replace:
		m.n.releases[v] = absent
		m.to(rename, "removes %d to make place", v)
	case rename:
		m.publish()
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
		if i != m.u && (o.at == linkClaim || o.holdsClaim() && m.me.fresh) {
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
	if m.me.want == 0 {
		m.my.fresh = false // nothing that a collector does depends on its generation
		m.to(announce, "claims the next generation")
		return
	}
	m.my.fresh = true
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
	if !m.but.sharedQuarantine && parts|trees != 0 {
		m.my.todo = parts | trees
		m.seal()
		m.to(takeOver, "finds what others have staged of %d", v)
		return
	}
	for i := range m.s.units {
		if trees.has(i) {
			m.my.todo = one(i)
			m.to(takeOver, "finds that unit %d has staged all of %d", uint8(i), v)
		}
	}
	if trees != 0 && m.me.fresh {
		return
	}
	for i := range m.s.units {
		if parts.has(i) {
			m.my.todo = one(i)
			m.seal()
			m.to(takeOver, "finds that unit %d has staged a part of %d", uint8(i), v)
		}
	}
	m.seal()
	m.to(makeStaging, "finds nothing staged of %d", v)
}

// seal notes that the holder of the newest generation goes on to download.
func (m *move) seal() {
	for i := range m.n.units {
		o := &m.n.units[i]
		if m.me.fresh && i != m.u && o.want == m.me.want && !m.my.todo.has(i) && (o.ready() || o.holdsClaim() && m.but.noFenceAtPublish) {
			o.late = true
		}
	}
}

func (m *move) lookAtFence() {
	v := m.me.want
	switch {
	case !m.me.fresh && !m.but.noFenceAtPublish:
		m.to(idle, "has downloaded %d and finds that it lost its generation", v)
	case m.corrupt:
		m.my.fresh = false
		m.to(lookIfCorrupt, "has downloaded %d and takes itself to be the holder", v)
	case m.but.publishReplaces:
		m.to(replace, "has downloaded %d and takes itself to be the holder", v)
	default:
		m.my.fresh = false
		m.to(rename, "has downloaded %d and takes itself to be the holder", v)
	}
	if m.corrupt && (m.me.fresh || m.but.sharedQuarantine) {
		m.my.early = true
		m.to(lookIfCorrupt, "is short of room")
	}
	m.takeAway()
}

// quarantined goes on when the place is free, as far as the unit can tell.
func (m *move) quarantined(what string, about ...uint8) {
	if m.me.early {
		m.my.early = false
		m.to(lookAtFence, what, about...)
		return
	}
	m.to(rename, what, about...)
}

func (m *move) publish() {
	v := m.me.want
	switch {
	case m.me.staged == absent:
		m.to(idle, "finds its staging tree gone")
		return
	case m.s.releases[v] != absent:
		m.to(idle, "finds %d published", v)
		return
	case m.me.staged == torn:
		m.n.broken = errTorn
	case m.me.late && !m.allow.late:
		m.n.broken = errLate
	}
	m.my.staged = absent
	m.n.releases[v] = whole
	if v == 1 {
		m.n.orphan = false
		if m.s.damage == damaged {
			m.n.damage = repaired
		}
	}
	if m.but.publishCopies {
		m.n.releases[v] = torn
		m.to(finishCopy, "publishes half of %d", v)
		return
	}
	m.to(idle, "publishes %d", v)
}

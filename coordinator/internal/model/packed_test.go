package model_test

// packed is a state as it is stored: a word for each unit, and one for the volume.
type packed [units + 1]uint32

// todoAt is where todo begins in a word, with moved behind it.
const todoAt = 23

func (p protocol) pack(s *state) packed {
	k := packed{units: uint32(s.current) | uint32(s.previous)<<2 | uint32(s.bin)<<4 | uint32(s.damage)<<6 | uint32(s.broken)<<8 |
		bit(s.unaware)<<10 | bit(s.excused)<<11 | bit(s.orphan)<<12}
	for v, r := range s.releases {
		k[units] |= uint32(r) << (13 + 2*v)
	}
	var words [units]uint32
	var order [units]int
	for i := range s.units {
		words[i], order[i] = s.units[i].word(), i
		// All units run the same program: it is one state, however they are called.
		for j := i; j > 0 && !p.named && words[order[j]] < words[order[j-1]]; j-- {
			order[j], order[j-1] = order[j-1], order[j]
		}
	}
	for now, before := range order {
		k[now] = words[before]
		if u := &s.units[before]; u.todo|u.moved != 0 {
			for i, o := range order {
				k[now] |= bit(u.todo.has(o))<<(todoAt+i) | bit(u.moved.has(o))<<(todoAt+units+i)
			}
		}
	}
	return k
}

// word is all of a unit but todo and moved, which name other units.
func (u *unit) word() uint32 {
	return uint32(u.at) | uint32(u.want)<<6 | uint32(u.staged)<<8 | uint32(u.doomed>>1)<<10 | uint32(u.pin)<<13 | uint32(u.saw)<<15 |
		bit(u.fresh)<<17 | bit(u.activates)<<18 | bit(u.early)<<19 | bit(u.aware)<<20 | bit(u.late)<<21 | bit(u.bare)<<22
}

func (k packed) unpack() state {
	w := k[units]
	s := state{
		current: uint8(w & 3), previous: uint8(w >> 2 & 3), bin: uint8(w >> 4 & 3), damage: damage(w >> 6 & 3), broken: uint8(w >> 8 & 3),
		unaware: w>>10&1 != 0, excused: w>>11&1 != 0, orphan: w>>12&1 != 0,
	}
	for v := range s.releases {
		s.releases[v] = tree(w >> (13 + 2*v) & 3)
	}
	for i := range s.units {
		w := k[i]
		s.units[i] = unit{
			at: place(w & 63), want: uint8(w >> 6 & 3), staged: tree(w >> 8 & 3), doomed: set(w>>10&7) << 1,
			pin: uint8(w >> 13 & 3), saw: uint8(w >> 15 & 3),
			fresh: w>>17&1 != 0, activates: w>>18&1 != 0, early: w>>19&1 != 0,
			aware: w>>20&1 != 0, late: w>>21&1 != 0, bare: w>>22&1 != 0,
			todo: set(w>>todoAt) & (1<<units - 1), moved: set(w >> (todoAt + units)),
		}
	}
	return s
}

func bit(b bool) uint32 {
	if b {
		return 1
	}
	return 0
}

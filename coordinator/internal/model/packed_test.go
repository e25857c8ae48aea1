package model_test

// packed is a state as it is stored: a word for each unit, and one for the volume.
type packed [units + 1]uint64

// Where what names other units is in a word.
const (
	todoAt = 32 + units*iota
	movedAt
	doomedOldAt
	doomedUnlinkedAt
)

func (p protocol) pack(s *state) packed {
	k := packed{units: uint64(s.current) | uint64(s.previous)<<2 | uint64(s.bin)<<4 | uint64(s.damage)<<6 | uint64(s.broken)<<8 |
		bit(s.unaware)<<12 | bit(s.excused)<<13}
	for v, r := range s.releases {
		k[units] |= uint64(r) << (16 + 2*v)
	}
	var words [units]uint64
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
		u := &s.units[before]
		for i, o := range order {
			k[now] |= bit(u.todo.has(o))<<(todoAt+i) | bit(u.moved.has(o))<<(movedAt+i) |
				bit(u.doomedOld.has(o))<<(doomedOldAt+i) | bit(u.doomedUnlinked.has(o))<<(doomedUnlinkedAt+i)
		}
	}
	return k
}

// word is all of a unit but what names other units.
func (u *unit) word() uint64 {
	return uint64(u.at) | uint64(u.want)<<6 | uint64(u.staged)<<8 | uint64(u.pin)<<10 | uint64(u.saw)<<12 |
		bit(u.fresh)<<14 | bit(u.activates)<<15 | bit(u.aware)<<16 | bit(u.late)<<17 | bit(u.bare)<<18 |
		bit(u.collector)<<19 | bit(u.stored)<<20 | bit(u.old)<<21 | bit(u.heldOld)<<22 | bit(u.doomLink)<<23 | bit(u.doomLinked)<<24 | bit(u.claimed)<<25
}

func (k packed) unpack() state {
	w := k[units]
	s := state{
		current: uint8(w & 3), previous: uint8(w >> 2 & 3), bin: uint8(w >> 4 & 3), damage: damage(w >> 6 & 3), broken: uint8(w >> 8 & 15),
		unaware: w>>12&1 != 0, excused: w>>13&1 != 0,
	}
	for v := range s.releases {
		s.releases[v] = tree(w >> (16 + 2*v) & 3)
	}
	const others = 1<<units - 1
	for i := range s.units {
		w := k[i]
		s.units[i] = unit{
			at: place(w & 63), want: uint8(w >> 6 & 3), staged: tree(w >> 8 & 3), pin: uint8(w >> 10 & 3), saw: uint8(w >> 12 & 3),
			fresh: w>>14&1 != 0, activates: w>>15&1 != 0, aware: w>>16&1 != 0, late: w>>17&1 != 0, bare: w>>18&1 != 0,
			collector: w>>19&1 != 0, stored: w>>20&1 != 0, old: w>>21&1 != 0, heldOld: w>>22&1 != 0,
			doomLink: w>>23&1 != 0, doomLinked: w>>24&1 != 0, claimed: w>>25&1 != 0,
			todo: set(w>>todoAt) & others, moved: set(w>>movedAt) & others,
			doomedOld: set(w>>doomedOldAt) & others, doomedUnlinked: set(w>>doomedUnlinkedAt) & others,
		}
	}
	return s
}

func bit(b bool) uint64 {
	if b {
		return 1
	}
	return 0
}

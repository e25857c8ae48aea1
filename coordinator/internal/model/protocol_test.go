package model_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

const units = 3

// place is what a unit does next.
type place uint8

const (
	idle        place = iota
	readClaims        // which generation is the newest
	linkClaim         // make the next one
	lookAgain         // as the holder: is the release there by now
	listStaging       // what have others left
	takeAway          // one of those trees
	makeStaging       // an own one
	lookAtFence       // after the download: is my generation the newest
	rename            // the staged tree to its place
	pin               // what will run
	callOff           // collections of it
	checkPinned       // is it there still
	readLog           // what is current
	lookAtFenceAgain
	putEntry  // at the place after the one that was read
	writeBin  // what the log said
	reReadLog // does it still say so
	announce  // as a collector: what will be removed
	readPins
	readKept // current and previous
	remove
	// Places of broken variants.
	keepCurrent // read apart from previous
	putBack     // what was removed and is wanted after all
	replace     // what was published before
	finishCopy
)

// A tree is a release or what is staged for one.
type tree uint8

const (
	absent tree = iota
	whole
	torn // some files are missing
)

type unit struct {
	at     place
	want   uint8 // version to run, or to collect
	gen    uint8 // generation it takes itself to hold, 0 for none, or of no use any more
	fresh  bool  // what it has read of the claims or the log is the last word
	staged tree
	todo   uint8 // staging trees to take away: a set of units
	pin    uint8
	pinned bool // its pin was confirmed
	off    bool // its collection was called off
	saw    uint8
}

// state of the volume and of all units. Generations are kept by their order.
type state struct {
	head     uint8   // newest generation
	releases [4]tree // by version; [0] is unused
	current  uint8
	previous uint8
	bin      uint8
	crashes  uint8
	units    [units]unit

	// What only the checks look at.
	activated uint8 // generation that made the last entry of the log
	sealed    uint8 // newest generation whose holder has begun to download
	unaware   bool  // the newest generation is of a unit that lives and does not know
	broken    uint8 // index into deeds
}

// deeds are violations that a step commits, so that no state shows them later.
var deeds = []error{
	nil,
	errLate: errors.New("a holder published after one of a later generation had begun to download"),
	errBack: errors.New("an entry of an older generation follows, or replaces, one of a later generation in the log"),
}

const (
	errLate = iota + 1
	errBack
)

// rules that a variant drops.
type rules struct {
	noFenceAtPublish, noFenceAtActivate, fenceBeforeLog   bool
	noStat, claimOverwrites, logOverwrites                bool
	noTakeAway, takeAwayInPlace                           bool
	publishReplaces, publishCopies                        bool
	ignorePins, pinsLast, logTwice, noCallOff, lookTwice  bool
	ignorePrevious, removeInPlace, activateWithoutPinning bool
}

// costs are violations that harm no release.
type costs struct{ late, unaware bool }

// protocol is one experiment.
type protocol struct {
	start state
	wants []uint8 // versions that units come to want
	// collect has units collect as well. Without it nothing depends on pins, so
	// nobody pins; with it nobody derives bin, on which nothing depends.
	collect bool
	crashes uint8
	named   bool // tell units apart, for readable traces
	drop    rules
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

func (p protocol) next(s state, yield func(step, state)) {
	for u := range s.units {
		p.steps(s, u, yield)
		if s.units[u].at != idle && s.crashes < p.crashes {
			n := s
			n.crashes++
			n.units[u].staged = absent
			n.rest(u)
			yield(step{u, "crashes", [2]uint8{}}, p.canonical(n))
		}
	}
}

// rest ends what the unit does; its pin stays.
func (s *state) rest(u int) {
	s.units[u] = unit{pin: s.units[u].pin, pinned: s.units[u].pinned}
}

// steps are what one unit can do. The first is the one without bad luck.
func (p protocol) steps(s state, u int, yield func(step, state)) {
	n, me := s, &s.units[u]
	my := &n.units[u]
	do := func(to place, what string, about ...uint8) {
		my.at = to
		if to == idle {
			n.rest(u)
		}
		name := step{u, what, [2]uint8{}}
		copy(name.about[:], about)
		yield(name, p.canonical(n))
		n = s
	}
	derive := writeBin
	if p.collect {
		derive = idle
	}
	switch me.at {
	case idle:
		for _, v := range p.wants {
			my.want = v
			if s.releases[v] == absent {
				do(readClaims, "wants %d, which is not installed", v)
			} else {
				do(pin, "wants %d, which is installed", v)
			}
		}
		if p.collect {
			do(readClaims, "wants to collect")
		}
	case readClaims:
		my.fresh = true
		do(linkClaim, "reads the newest generation")
	case linkClaim:
		if !me.fresh && !p.drop.claimOverwrites {
			do(idle, "finds the next generation taken")
			return
		}
		to := lookAgain
		if me.want == 0 {
			to = announce
		}
		if me.fresh {
			n.head++
			for i := range n.units {
				if n.units[i].at == linkClaim {
					n.units[i].fresh = false
				}
			}
		}
		n.unaware = false
		claimed := n
		my.fresh = false
		if me.want != 0 {
			my.gen = n.head // nothing that a collector does depends on its generation
		}
		do(to, "claims the next generation")
		if p.drop.noStat {
			n = claimed
			n.unaware = true
			do(idle, "claims the next generation, and is told that it failed")
		}
	case lookAgain:
		if s.releases[me.want] == absent {
			do(listStaging, "finds %d missing", me.want)
		} else {
			do(pin, "finds %d installed", me.want)
		}
	case listStaging:
		for i := range s.units {
			if i != u && s.units[i].staged != absent && !p.drop.noTakeAway {
				my.todo |= 1 << i
			}
		}
		p.seal(&n, u)
		do(my.at, "lists what others have staged")
	case takeAway:
		for i := range s.units {
			if me.todo&(1<<i) == 0 {
				continue
			}
			my.todo &^= 1 << i
			victim := &n.units[i]
			if p.drop.takeAwayInPlace && victim.staged != absent {
				victim.staged = torn
			} else {
				victim.staged = absent
			}
			p.seal(&n, u)
			do(my.at, "takes away what unit %d has staged", uint8(i))
		}
	case makeStaging:
		my.staged = whole
		do(lookAtFence, "makes a staging tree for %d", me.want)
	case lookAtFence:
		if me.gen == s.head || p.drop.noFenceAtPublish {
			to := rename
			if p.drop.publishReplaces {
				to = replace
			}
			do(to, "has downloaded %d and takes itself to be the holder", me.want)
			return
		}
		my.staged = absent
		do(idle, "has downloaded %d and finds that it lost its generation", me.want)
	case replace:
		n.releases[me.want] = absent
		do(rename, "removes %d to make place", me.want)
	case rename:
		my.staged = absent
		switch {
		case me.staged == absent:
			do(idle, "finds its staging tree gone")
		case s.releases[me.want] != absent:
			do(pin, "finds %d published", me.want)
		default:
			if me.gen < s.sealed && !p.allow.late {
				n.broken = errLate
			}
			n.releases[me.want] = me.staged
			if p.drop.publishCopies {
				n.releases[me.want] = torn
				do(finishCopy, "publishes half of %d", me.want)
				return
			}
			do(pin, "publishes %d", me.want)
		}
	case finishCopy:
		n.releases[me.want] = whole
		do(pin, "publishes the rest of %d", me.want)
	case pin:
		if !p.collect || p.drop.activateWithoutPinning {
			do(readLog, "goes on with %d", me.want)
			return
		}
		my.pin, my.pinned = me.want, false
		do(callOff, "pins %d", me.want)
	case callOff:
		for i, c := range s.units {
			if c.collects() && c.want == me.want && !c.off && !p.drop.noCallOff {
				n.units[i].off = true
				do(callOff, "calls off the collection of %d by unit %d", me.want, uint8(i))
				return
			}
		}
		do(checkPinned, "finds no collection of %d", me.want)
	case checkPinned:
		if s.releases[me.want] == absent {
			my.pin = 0
			do(idle, "finds that %d was collected", me.want)
			return
		}
		my.pinned = true
		do(readLog, "can run %d", me.want)
	case readLog:
		switch {
		case s.current == me.want:
			my.saw, my.gen = s.current, 0
			do(derive, "finds %d current", me.want)
		case me.gen == 0:
			do(readClaims, "finds %d current and needs a claim to change that", s.current)
		default:
			my.fresh = true
			do(lookAtFenceAgain, "finds %d current", s.current)
		}
	case lookAtFenceAgain:
		if me.gen == s.head || p.drop.noFenceAtActivate {
			do(putEntry, "takes itself to be the holder")
		} else {
			do(idle, "finds that it lost its generation")
		}
	case putEntry:
		if !me.fresh && !p.drop.logOverwrites {
			if p.drop.fenceBeforeLog {
				my.fresh = true
				do(putEntry, "finds another entry there, and reads the log again")
				return
			}
			do(readLog, "finds another entry there")
			return
		}
		if me.gen < s.activated {
			n.broken = errBack
		}
		if me.want != s.current {
			n.previous = s.current
		}
		n.current, n.activated = me.want, me.gen
		for i := range n.units {
			if at := n.units[i].at; at == lookAtFenceAgain || at == putEntry {
				n.units[i].fresh = false
			}
		}
		my.fresh, my.saw, my.gen = false, me.want, 0
		do(derive, "activates %d", me.want)
	case writeBin:
		n.bin = me.saw
		do(reReadLog, "links bin to %d", me.saw)
	case reReadLog:
		if s.current != me.saw {
			my.saw = s.current
			do(writeBin, "finds %d current", s.current)
			return
		}
		do(idle, "is done")

	case announce:
		for v := uint8(1); int(v) < len(s.releases); v++ {
			if s.releases[v] == absent {
				continue
			}
			my.want = v
			switch {
			case p.drop.pinsLast:
				do(readKept, "announces to collect %d", v)
			default:
				do(readPins, "announces to collect %d", v)
			}
		}
		do(idle, "leaves all releases")
	case readPins:
		if !p.drop.ignorePins && slices.ContainsFunc(s.units[:], func(o unit) bool { return o.pin == me.want }) {
			do(idle, "finds %d pinned", me.want)
		} else if p.drop.pinsLast {
			do(remove, "finds %d not pinned", me.want)
		} else {
			do(readKept, "finds %d not pinned", me.want)
		}
	case readKept:
		switch {
		case me.want == s.previous && !p.drop.ignorePrevious, me.want == s.current && !p.drop.logTwice:
			do(idle, "finds %d current or previous", me.want)
		case p.drop.logTwice:
			do(keepCurrent, "finds %d not previous", me.want)
		case p.drop.pinsLast:
			do(readPins, "finds %d neither current nor previous", me.want)
		default:
			do(remove, "finds %d neither current nor previous", me.want)
		}
	case keepCurrent:
		if me.want == s.current {
			do(idle, "finds %d current", me.want)
		} else {
			do(remove, "finds %d not current", me.want)
		}
	case remove:
		if me.off || s.releases[me.want] == absent {
			do(idle, "cannot rename %d away", me.want)
			return
		}
		n.releases[me.want] = absent
		if p.drop.removeInPlace {
			n.releases[me.want] = torn
		}
		if p.drop.lookTwice {
			do(putBack, "renames %d away", me.want)
			return
		}
		do(idle, "renames %d away", me.want)
	case putBack:
		pinned := slices.ContainsFunc(s.units[:], func(o unit) bool { return o.pin == me.want })
		if (pinned || me.want == s.current || me.want == s.previous) && s.releases[me.want] == absent {
			n.releases[me.want] = whole
			do(idle, "finds %d wanted, and puts it back", me.want)
			return
		}
		do(idle, "removes %d", me.want)
	}
}

// collects tells whether a collection is announced.
func (u unit) collects() bool {
	return u.at == readPins || u.at == readKept || u.at == keepCurrent || u.at == remove
}

// seal says that the unit goes on to download if nothing is left to take away.
func (p protocol) seal(s *state, u int) {
	if s.units[u].todo != 0 {
		s.units[u].at = takeAway
		return
	}
	s.units[u].at = makeStaging
	s.sealed = max(s.sealed, s.units[u].gen)
}

// canonical is the same for states that have the same futures.
func (p protocol) canonical(s state) state {
	// An older generation than any that is held can no longer be overtaken.
	oldest := s.head
	for _, u := range s.units {
		if u.gen != 0 {
			oldest = min(oldest, u.gen)
		}
	}
	if s.activated <= oldest {
		s.activated = 0
	}
	if s.sealed <= oldest {
		s.sealed = 0
	}
	values := [...]*uint8{&s.head, &s.activated, &s.sealed, &s.units[0].gen, &s.units[1].gen, &s.units[2].gen}
	var used [16]bool
	for _, v := range values {
		used[*v] = true
	}
	used[0] = false
	var order [16]uint8
	for v, rank := 1, uint8(0); v < len(used); v++ {
		if used[v] {
			rank++
		}
		order[v] = rank
	}
	for _, v := range values {
		*v = order[*v]
	}
	if p.named {
		return s
	}
	return s.sorted()
}

func (s state) sorted() state {
	names := [units]uint8{0, 1, 2}
	for i := range units {
		for j := i; j > 0 && s.units[j].key() < s.units[j-1].key(); j-- {
			s.units[j], s.units[j-1] = s.units[j-1], s.units[j]
			names[j], names[j-1] = names[j-1], names[j]
		}
	}
	for i := range s.units {
		if old := s.units[i].todo; old != 0 {
			s.units[i].todo = 0
			for now, before := range names {
				s.units[i].todo |= (old >> before & 1) << now
			}
		}
	}
	return s
}

func (u unit) key() uint64 {
	k := uint64(u.at)<<40 | uint64(u.want)<<32 | uint64(u.gen)<<24 | uint64(u.staged)<<20 | uint64(u.pin)<<16 | uint64(u.saw)<<8
	for i, b := range [...]bool{u.fresh, u.pinned, u.off} {
		if b {
			k |= 1 << i
		}
	}
	return k
}

func (p protocol) check(s state) error {
	for i, u := range s.units {
		for _, o := range s.units[:i] {
			if u.gen != 0 && u.gen == o.gen {
				return errors.New("two units hold one generation")
			}
		}
		if u.pinned && s.releases[u.pin] != whole {
			return errors.New("a pinned release is gone or incomplete")
		}
	}
	if slices.Contains(s.releases[:], torn) {
		return errors.New("a published release is incomplete")
	}
	for _, v := range []uint8{s.current, s.previous} {
		if v != 0 && s.releases[v] != whole {
			return errors.New("the current or the previous release is gone")
		}
	}
	if s.broken != 0 {
		return deeds[s.broken]
	}
	if s.unaware && !p.allow.unaware {
		return errors.New("a unit holds the newest generation and does not know")
	}
	resting := !slices.ContainsFunc(s.units[:], func(u unit) bool { return u.at != idle })
	if !p.collect && resting && s.crashes == 0 && s.bin != s.current {
		return errors.New("bin is not the current release, and nobody is about to repair it")
	}
	return nil
}

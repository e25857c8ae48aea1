package model_test

import (
	"errors"
	"slices"
)

// check tells what is wrong with a state.
func (p protocol) check(k packed) error {
	s := k.unpack()
	if s.broken != 0 {
		return errors.New(deeds[s.broken])
	}
	holders, resting := [versions + 1]int{}, true
	for i := range s.units {
		u := &s.units[i]
		resting = resting && u.at == idle
		if u.fresh && u.holdsClaim() {
			holders[u.want]++
		}
		relies := u.at == putEntry || u.at == writePin || u.at == dropHold
		switch {
		case !u.old && s.gone(u.pin):
			return errors.New("a pinned release is gone")
		case relies && p.holds(u) && !u.heldOld && s.gone(u.want):
			return errors.New("a release is gone that a call holds")
		}
	}
	switch {
	case slices.Max(holders[:]) > 1:
		return errors.New("two units hold one generation")
	case s.unaware && !p.allow.unaware:
		return errors.New("a unit holds the newest generation and does not know")
	case slices.Contains(s.releases[:], torn) && s.damage != damaged:
		return errors.New(deeds[errTorn])
	case s.gone(s.current) || s.gone(s.previous):
		return errors.New("the current or the previous release is gone")
	case !p.collect && resting && !s.excused && s.bin != s.current:
		return errors.New("bin is not the current release, and nobody is about to repair it")
	}
	return nil
}

// gone tells whether a release that should be there is missing.
func (s *state) gone(v uint8) bool { return v != 0 && s.releases[v] == absent }

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
	holders, resting := 0, true
	for i := range s.units {
		u := &s.units[i]
		resting = resting && u.at == idle
		if u.fresh && u.holdsClaim() {
			holders++
		}
		relies := u.at == putEntry || u.at == writePin || u.at == dropHold
		switch {
		case u.at == putBack && !p.allow.window:
			return errors.New("a sound release is missing: it was taken for the corrupt one")
		case s.gone(u.pin):
			return errors.New("a pinned release is gone")
		case relies && p.holds(u) && s.gone(u.want):
			return errors.New("a release is gone that a call holds")
		}
	}
	switch {
	case holders > 1:
		return errors.New("two units hold one generation")
	case s.unaware && !p.allow.unaware:
		return errors.New("a unit holds the newest generation and does not know")
	case slices.Contains(s.releases[:], torn) && s.damage != damaged:
		return errors.New(deeds[errTorn])
	case s.orphan && !p.allow.orphan:
		return errors.New("a sound release is missing, and nobody will put it back")
	case s.gone(s.current) || s.gone(s.previous):
		return errors.New("the current or the previous release is gone")
	case !p.collect && resting && !s.excused && s.bin != s.current:
		return errors.New("bin is not the current release, and nobody is about to repair it")
	}
	return nil
}

// gone tells whether a release is missing without a reason: that the corrupt one
// was moved, or a sound one in its place.
func (s *state) gone(v uint8) bool {
	if v == 0 || s.releases[v] != absent || v == 1 && (s.damage == damaged || s.orphan) {
		return false
	}
	return !slices.ContainsFunc(s.units[:], func(u unit) bool { return u.at == putBack && u.want == v })
}

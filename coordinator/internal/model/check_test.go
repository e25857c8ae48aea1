package model_test

import (
	"errors"
	"slices"

	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/model"
)

// check tells what is wrong with a state.
func (p protocol) check(k packed) error {
	s := k.unpack()
	if s.broken != 0 {
		return deeds[s.broken]
	}
	holders, resting := [versions + 1]int{}, true
	var pinned, held set // versions
	for i := range s.units {
		u := &s.units[i]
		resting = resting && u.at == idle
		if u.fresh && u.holdsClaim() {
			holders[u.want]++
		}
		if !u.old {
			pinned |= one(u.pin)
		}
		relies := u.at == putEntry || u.at == writePin || u.at == dropHold
		if relies && p.holds(u) && !u.heldOld {
			held |= one(u.want)
		}
	}
	if err := (model.Claim{Holders: slices.Max(holders[:])}).Check(); err != nil {
		return err
	}
	for v := 1; v <= versions; v++ {
		err := model.Release{
			Link: model.Link(s.releases[v]), Damaged: s.damage == damaged,
			Kept: v == int(s.current) || v == int(s.previous), Pinned: pinned.has(v), Held: held.has(v),
		}.Check()
		if err != nil {
			return err
		}
	}
	switch {
	case s.unaware && !p.allow.unaware:
		return errors.New("a unit holds the newest generation and does not know")
	case !p.collect && resting && !s.excused && s.bin != s.current:
		return errors.New("bin is not the current release, and nobody is about to repair it")
	}
	return nil
}

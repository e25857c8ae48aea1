package model

import "errors"

// The rules of the protocol. The exploration applies them to every state and step of the
// model; package history applies the same to what was seen of a volume.
var (
	ErrTwoHolders = errors.New("two units hold one generation")
	ErrUnclaimed  = errors.New("a release is published under a claim that nobody held")
	ErrLate       = errors.New("a holder published after a newer one had begun to download")
	ErrTorn       = errors.New("a published release is incomplete")
	ErrMissing    = errors.New("a release's path is missing, and nobody has collected it")
	ErrPinned     = errors.New("a pinned release is gone")
	ErrHeld       = errors.New("a release is gone that a call holds")
	ErrKept       = errors.New("the current or the previous release is gone")
	ErrUnpinned   = errors.New("a pinned entry is gone")
	ErrUnheld     = errors.New("an entry is gone that a call holds")
	ErrOvertaken  = errors.New("an activation replaces one that it was decided without")
)

// Link is what the path of a release is.
type Link uint8

// What a link can be.
const (
	Absent Link = iota
	Whole
	Torn     // some files are missing
	Dangling // it leads to nothing
)

// Release is what there is of a version at one moment, and who relies on it.
type Release struct {
	Link    Link
	Damaged bool // by somebody else than the units
	Kept    bool // it is current, or was before
	Pinned  bool // by a unit, and was not installed anew since
	Held    bool // by a call that has seen it after it held it
}

// Check returns which rule the release breaks.
func (r Release) Check() error {
	gone := r.Link == Absent
	switch {
	case gone && r.Pinned:
		return ErrPinned
	case gone && r.Held:
		return ErrHeld
	case gone && r.Kept:
		return ErrKept
	case r.Link == Torn && !r.Damaged:
		return ErrTorn
	case r.Link == Dangling:
		return ErrMissing
	}
	return nil
}

// Claim is one generation.
type Claim struct {
	Holders int  // units that have got it
	Again   bool // the next unit gets it, too
}

// Check returns which rule the claim breaks.
func (c Claim) Check() error {
	if c.Holders > 1 || c.Holders == 1 && c.Again {
		return ErrTwoHolders
	}
	return nil
}

// Move is what became of the path of a release.
type Move struct {
	From, To  Link
	Collected bool // by a holder of the version's claim
}

// Check returns which rule the move breaks.
func (m Move) Check() error {
	if m.From != Absent && m.To == Absent && !m.Collected {
		return ErrMissing
	}
	return nil
}

// Publication puts an entry into the store, or links a release to it.
type Publication struct {
	Claimed bool // the unit had claimed, and not given up
	Torn    bool
	Late    bool // a newer holder has taken away what was staged
}

// Check returns which rule the publication breaks.
func (p Publication) Check() error {
	switch {
	case !p.Claimed:
		return ErrUnclaimed
	case p.Late:
		return ErrLate
	case p.Torn:
		return ErrTorn
	}
	return nil
}

// Removal is that of an entry which no release is linked to.
type Removal struct {
	Pinned bool // by a unit
	Held   bool // by a call that has seen it after it held it
}

// Check returns which rule the removal breaks.
func (r Removal) Check() error {
	switch {
	case r.Pinned:
		return ErrUnpinned
	case r.Held:
		return ErrUnheld
	}
	return nil
}

// Activation is an entry of the log.
type Activation struct {
	// Aware tells that it was decided with the knowledge of the entry before, which is of
	// another version: an entry that replaces another one is not.
	Aware bool
}

// Check returns which rule the activation breaks.
func (a Activation) Check() error {
	if !a.Aware {
		return ErrOvertaken
	}
	return nil
}

package coordinator

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"

	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/durable"
)

// ForeignVolume is the error of a volume that Options.Accept can make this unit's: an
// ErrForeignVolume or an ErrOtherOwner.
type ForeignVolume struct {
	// State is the volume as it was found: its id, and how often it was handed over. It is
	// empty for a volume that has no id.
	State string
	err   error
}

func (f *ForeignVolume) Error() string { return f.err.Error() }
func (f *ForeignVolume) Unwrap() error { return f.err }

// AcceptedID returns the id of the volume that Options.Accept means.
func AcceptedID(accept string) string {
	id, _ := cutLast(accept)
	return id
}

func (i identity) state() string { return fmt.Sprintf("%s.%d", i.ID, i.Handovers) }

// same compares a volume with the one that is known.
func (v *View) same(there identity, err error) error {
	foreign := func(state string, format string, args ...any) error {
		return &ForeignVolume{state, fmt.Errorf(format, args...)}
	}
	switch {
	case errors.Is(err, fs.ErrNotExist) && v.id == "":
		return fmt.Errorf("%w: it has no %s: name the directory where the units mount it", ErrNoVolume, volumeFile)
	case errors.Is(err, fs.ErrNotExist):
		return foreign("", "%w: %s has no %s, but this unit knows volume %s: attach that one, or reset what the unit remembers", ErrForeignVolume, v.dir, volumeFile, v.id)
	case errors.Is(err, ErrForeignVolume):
		return err
	case err != nil:
		return fmt.Errorf("%w: cannot identify %s: %w", ErrNotMounted, v.dir, err)
	case v.id != "" && there.ID != v.id:
		return foreign(there.state(), "%w: %s is volume %s, but this unit knows %s: attach that one, or reset what the unit remembers", ErrForeignVolume, v.dir, there.ID, v.id)
	case v.owner != "" && there.Owner != "" && there.Owner != v.owner:
		return foreign(there.state(), "%w: %s belongs to %s, this unit to %s: attach a volume of its own", ErrOtherOwner, v.dir, there.Owner, v.owner)
	}
	return nil
}

// accept gives a volume the owner of this unit, or an id, if it is still as it was when
// that was decided; else it does nothing. Of owners that accept it at once one wins, whose
// entry owners/N is there first; volume.json is derived from it by whoever comes next.
func (c *Coordinator) accept(root *os.Root) error {
	id, handovers := cutLast(c.options.Accept)
	there, err := identify(root)
	switch {
	case errors.Is(err, fs.ErrNotExist) && handovers == "":
		return createVolumeFile(root, id, c.owner)
	case err != nil || there.state() != c.options.Accept || c.owner == "" || there.Owner == c.owner:
		return nil // what is wrong is found by who compares them
	}
	next := there
	next.Owner = c.owner
	next.Handovers++
	entry := path.Join(ownersDir, strconv.Itoa(next.Handovers))
	if err := durable.Mkdir(root, ownersDir, 0o755); err != nil {
		return err
	}
	if err := durable.Create(root, entry, encode(next)); errors.Is(err, fs.ErrExist) {
		if next, err = readJSON[identity](root, entry); err != nil || next.ID != there.ID || next.Handovers != there.Handovers+1 {
			return fmt.Errorf("%w: %s names no owner: remove it", ErrDamaged, filepath.Join(root.Name(), entry))
		}
	} else if err != nil {
		return err
	}
	return durable.Replace(root, volumeFile, encode(next))
}

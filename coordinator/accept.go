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

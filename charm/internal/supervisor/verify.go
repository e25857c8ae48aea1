package supervisor

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/product"
	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator"
)

// Check asks for every byte of the releases that a unit may run to be read.
type Check struct {
	ID     string `json:"id"`               // tells it from those before; empty is none
	Repair bool   `json:"repair,omitempty"` // what is damaged is downloaded anew
}

// Checked is the answer: what was found, in words, and whether all is sound now.
type Checked struct {
	ID    string `json:"id,omitempty"` // of the Check
	Found string `json:"found,omitempty"`
	Sound bool   `json:"sound,omitempty"`
}

// verifyVolume does a check once. It goes on beside all else, as it may take minutes.
func (s *Supervisor) verifyVolume(ctx context.Context) {
	s.status.Checked = s.memory.Checked
	asked := s.spec.Check
	if asked.ID == "" || asked.ID == s.memory.Checked.ID || s.spec.Leaving || s.volume.open == nil || len(s.volume.installed) == 0 {
		return
	}
	volume, versions := s.volume.open, slices.Sorted(maps.Keys(s.volume.installed))
	found, done, err := s.volume.check.poll(ctx, s, func(ctx context.Context) (Checked, error) {
		return check(ctx, volume, versions, asked)
	})
	if err != nil {
		s.Log.Warn("cannot read the releases on the volume", "error", err)
	}
	if !done {
		return
	}
	memory := s.memory.clone()
	memory.Checked = found
	if err := s.keep(memory); err != nil {
		s.status.Stuck = err.Error() // and it is read once more
		return
	}
	s.status.Checked = found
	s.say("Verified the releases on the volume: %s", found.Found)
}

// check returns an error for what says nothing of the releases, such as a mount that hangs.
func check(ctx context.Context, volume Volume, versions []string, asked Check) (Checked, error) {
	checked, found := Checked{ID: asked.ID, Sound: true}, []string{}
	for _, version := range versions {
		err := volume.Verify(ctx, version, nil)
		switch {
		case err == nil:
			found = append(found, "v"+version+" is sound")
		case !errors.Is(err, coordinator.ErrCorrupt) && !errors.Is(err, coordinator.ErrNotInstalled):
			return Checked{}, err
		case !asked.Repair:
			checked.Sound = false
			found = append(found, product.Explain(err).Error())
		default:
			if _, err := volume.Reinstall(ctx, version); err != nil {
				return Checked{}, err
			}
			found = append(found, "v"+version+" was damaged, and is installed anew")
		}
	}
	checked.Found = strings.Join(found, "; ")
	return checked, nil
}

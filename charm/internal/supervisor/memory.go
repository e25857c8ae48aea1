package supervisor

import (
	"maps"
	"slices"
	"time"
)

// Memory is what the supervisor has done, and has to know after it was started anew.
type Memory struct {
	VolumeID string             `json:"volume_id,omitempty"` // of the shared volume that the unit uses
	Accepted string             `json:"accepted,omitempty"`  // the Spec.Accepted under which the unit has used a volume
	Running  string             `json:"running,omitempty"`   // version that the services were started from last
	Started  map[string]Started `json:"started,omitempty"`   // by systemd unit; missing is stopped
	TSAHost  string             `json:"tsa_host,omitempty"`  // where the worker registers
	Members  []string           `json:"members,omitempty"`   // of the spec before
	Retire   []string           `json:"retire,omitempty"`    // units whose workers the web server has yet to forget
	// WorkDirs are the directories that the worker was given, once one of them was outside of
	// the volume. What is in those that it has left is to be removed. Clearing is the one of
	// them with which that was begun: until it is done, no worker gets what remains of it.
	WorkDirs []string `json:"work_dirs,omitempty"`
	Clearing string   `json:"clearing,omitempty"`
	Stays    []string `json:"stays,omitempty"` // units of Spec.Landing for which the web server stays
	// How far the unit has left.
	Retired    bool `json:"retired,omitempty"`
	Parted     bool `json:"parted,omitempty"` // see Due.Part
	LeftVolume bool `json:"left_volume,omitempty"`
	// Checked is the answer to the last Spec.Check that was done.
	Checked Checked `json:"checked,omitzero"`
}

// Started is how a service was started.
type Started struct {
	Restart  string `json:"restart"`            // its RestartDigest; empty while it is being started
	Reload   string `json:"reload"`             // its ReloadDigest
	Is       string `json:"is"`                 // Identity of the Web or Worker
	Version  string `json:"version"`            // from which
	WorkDir  string `json:"work_dir,omitempty"` // of a worker
	Restarts string `json:"restarts,omitempty"` // the Spec.Restarts of then
	// At is when it was started, and Told when it was told first to land; zero is never.
	At   time.Time `json:"at,omitzero"`
	Told time.Time `json:"told,omitzero"`
	// Tries is how often a migration was started, which has At of the first time.
	Tries int `json:"tries,omitempty"`
}

func (m Memory) clone() Memory {
	m.Started, m.Members, m.Retire = maps.Clone(m.Started), slices.Clone(m.Members), slices.Clone(m.Retire)
	m.WorkDirs = slices.Clone(m.WorkDirs)
	return m
}

// onVolume returns the memory of a unit that uses a volume. One that has taken the place of
// another has nothing of what the unit had there: not its pin, and not the files that its
// services run from.
func (m Memory) onVolume(id string) Memory {
	if m.VolumeID != "" && m.VolumeID != id {
		m.Running = ""
		for unit, started := range m.Started {
			started.Restart = ""
			m.Started[unit] = started
		}
	}
	m.VolumeID = id
	return m
}

// Note takes over what a changed spec says about the units: who is gone has to be
// retired, who is there has not. A unit that does not leave any more begins anew.
func (m Memory) Note(spec Spec) Memory {
	m = m.clone().recognize(spec)
	if !spec.Leaving {
		if m.LeftVolume {
			m.Running = "" // its pin is gone
		}
		m.Retired, m.Parted, m.LeftVolume = false, false, false
	}
	for _, unit := range m.Members {
		if !slices.Contains(spec.Members, unit) && !slices.Contains(m.Retire, unit) {
			m.Retire = append(m.Retire, unit)
		}
	}
	m.Members = slices.Clone(spec.Members)
	m.Retire = slices.DeleteFunc(m.Retire, func(unit string) bool {
		if unit == spec.Unit {
			return spec.Worker != nil
		}
		// Where the web server is elsewhere, its unit sees to the others.
		return spec.Web == nil || slices.Contains(spec.Members, unit)
	})
	return m
}

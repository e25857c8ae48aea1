package judge

import (
	"strings"

	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/observation"
)

var mountRules = []Rule{
	{Name: "needs-its-volume", Promise: "Without its mount and the marker on it, a unit is not active, starts nothing and writes nothing.", Broken: withoutVolume},
	{Name: "one-volume", Promise: "All units use the same volume, and never another one unasked.", Broken: severalVolumes},
}

// withoutVolume lets a web server go on that was started before the mount went away:
// it writes nothing there, and users keep their pages.
func withoutVolume(r observation.Record) []string {
	if !r.Shared {
		return nil
	}
	var f findings
	for _, o := range r.Observations {
		for unit, m := range machines(o) {
			if !m.Mount.Mounted && len(m.Mount.Underneath) > 0 {
				f.add(o, unit, "the directory under the missing mount was written to: %s", strings.Join(m.Mount.Underneath, " "))
			}
			lacks := ""
			switch {
			case !m.Mount.Mounted:
				lacks = "its mount"
			case !m.Mount.Marked:
				lacks = "the marker on its mount"
			}
			if !o.Resting {
				continue
			}
			if lacks == "" && m.Mount.ReadOnly && active(o, unit) {
				f.add(o, unit, "is active, and its mount is read-only")
			}
			if lacks == "" {
				continue
			}
			if active(o, unit) {
				f.add(o, unit, "is active without %s", lacks)
			}
			if _, ok := runs(m, worker); ok {
				f.add(o, unit, "runs %s without %s", worker, lacks)
			}
			s, ok := runs(m, server)
			if ok && !s.Started.IsZero() && happened(r, s.Started, o.Time) == 0 {
				f.add(o, unit, "has started %s without %s", server, lacks)
			}
		}
	}
	return f
}

// handedOver is in the name of the act by which an operator lets units use another
// volume.
const handedOver = "accept-volume"

// severalVolumes looks at units that use their volumes. What is mounted on a unit that
// refuses it does not matter.
func severalVolumes(r observation.Record) []string {
	if !r.Shared {
		return nil
	}
	var f findings
	var known observation.Observation // the last one in which a volume was used
	var id string                     // of that volume
	for o := range resting(r) {
		if accepted(r, known, o) {
			id = ""
		}
		var fileSystem, first string
		for unit, m := range machines(o) {
			_, works := runs(m, worker)
			if !m.Mount.Mounted || !active(o, unit) && !works {
				continue
			}
			switch seen := m.Mount.FileSystem; {
			case seen == "":
			case first == "":
				fileSystem, first = seen, unit
			case seen != fileSystem:
				f.add(o, unit, "uses file system %s, and %s uses %s", seen, first, fileSystem)
			}
			if m.Volume == nil || m.Volume.VolumeID == "" {
				continue
			}
			if id != "" && m.Volume.VolumeID != id {
				f.add(o, unit, "uses volume %s, and the units' volume is %s", m.Volume.VolumeID, id)
			}
			if id == "" {
				id = m.Volume.VolumeID
			}
			known = o
		}
	}
	return f
}

func accepted(r observation.Record, before, o observation.Observation) bool {
	for _, a := range r.Acts {
		if strings.Contains(a.Name, handedOver) && a.Time.After(before.Time) && !a.Time.After(o.Time) {
			return true
		}
	}
	return false
}

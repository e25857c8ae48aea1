package judge

import (
	"strings"

	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/observation"
)

var diskRules = []Rule{
	{Name: "no-copies", Promise: "No unit has a release on its own disk.", Broken: ownCopies},
	{
		Name: "disk-use", Promise: "Volume and units together take little more than the releases that are kept.", Broken: wastedDisk,
		Settles: "What is being removed still takes room.",
	},
}

func ownCopies(r observation.Record) []string {
	if !r.Shared {
		return nil
	}
	var f findings
	for _, o := range r.Observations {
		for unit, m := range machines(o) {
			if len(m.Copies) > 0 {
				f.add(o, unit, "has copies of its own: %s", strings.Join(m.Copies, ", "))
			}
		}
	}
	return f
}

// diskFactor is how much more than the installed releases the whole cluster may take,
// the workers' own state apart.
const diskFactor = 1.15

// program is what each unit may have on its own disk beside: the copy of the charm's program
// that supervises it. Of a cluster of many units, with the small releases that the suite
// builds, these would be the larger part.
const program = 12 << 20

// wastedDisk adds up the volume, once, and all units' own disks.
func wastedDisk(r observation.Record) []string {
	if !r.Shared {
		return nil
	}
	var f findings
	for o := range resting(r) {
		if o.Expected == "" {
			continue
		}
		var volume *observation.Volume
		var used uint64
		for _, m := range machines(o) {
			used += m.Used - min(m.Used, program)
		}
		for _, m := range inUse(o) {
			if volume == nil {
				volume = m.Volume
			}
		}
		if volume == nil {
			continue
		}
		var installed int64
		for _, release := range volume.Releases {
			installed += release.Bytes
		}
		// A download that was replaced stays for as long as a unit has it pinned.
		for _, name := range volume.Replaced {
			for _, pinned := range volume.Pins {
				if release, ok := released(volume.Inspection, versionOf(name)); ok && pinned == name {
					installed += release.Bytes
					break
				}
			}
		}
		total := volume.Use.Store + volume.Use.Staging + used
		if installed > 0 && float64(total) > diskFactor*float64(installed) {
			f.add(o, r.App, "store %d, staging %d and the units' own disks %d bytes more than their program are %.2f times the %d bytes of the releases, more than %.2f",
				volume.Use.Store, volume.Use.Staging, used, float64(total)/float64(installed), installed, diskFactor)
		}
	}
	return f
}

package judge

import (
	"strings"

	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/observation"
)

var releaseRules = []Rule{
	{Name: "one-current-release", Promise: "The names on the volume lead to the release that is current, and that is the one all units should run.", Broken: wrongCurrent},
	{Name: "bin-is-the-release", Promise: "What bin/concourse leads to is the file that units of the current release run.", Broken: wrongBin},
}

// inUse yields the machines at rest whose units use a volume, with the volume in place.
// A unit that is not active may have another one mounted, which it refuses.
func inUse(o observation.Observation) func(yield func(string, observation.Machine) bool) {
	return func(yield func(string, observation.Machine) bool) {
		for unit, m := range machines(o) {
			if m.Volume != nil && active(o, unit) && !yield(unit, m) {
				return
			}
		}
	}
}

func wrongCurrent(r observation.Record) []string {
	var f findings
	for o := range resting(r) {
		for unit, m := range inUse(o) {
			v := m.Volume
			if v.Current == nil {
				f.add(o, unit, "is active, and no release on the volume is current")
				continue
			}
			current := v.Current.Version
			if o.Expected != "" && current != o.Expected {
				f.add(o, unit, "the current release is %s, and must be %s", current, o.Expected)
			}
			if v.InstalledVersion != current {
				f.add(o, unit, ".installed_version says %q, and the current release is %s", v.InstalledVersion, current)
			}
			if bin := strings.TrimPrefix(v.Bin, root+"/"); bin != "releases/"+current+"/bin" {
				f.add(o, unit, "bin leads to %q, and must lead to releases/%s/bin", v.Bin, current)
			}
		}
	}
	return f
}

// wrongBin compares files. A unit may go on with a download that was replaced; its
// file is another one.
func wrongBin(r observation.Record) []string {
	var f findings
	for o := range resting(r) {
		for unit, m := range inUse(o) {
			v := m.Volume
			if v.Current == nil {
				continue
			}
			if v.BinFile.Inode == 0 {
				f.add(o, unit, "there is no bin/concourse on the volume")
				continue
			}
			release, ok := released(v.Inspection, v.Current.Version)
			for s := range running(m) {
				e, _, _ := entryOf(s.Executable)
				if ok && e.name == installedEntry(release) && s.File.Inode != 0 && s.File != v.BinFile {
					f.add(o, unit, "bin/concourse is inode %d of file system %s, and %s runs inode %d of %s as %s",
						v.BinFile.Inode, v.BinFile.FileSystem, s.Name, s.File.Inode, s.File.FileSystem, s.Executable)
				}
			}
		}
	}
	return f
}

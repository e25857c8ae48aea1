package judge

import (
	"strings"

	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/observation"
)

var keepRules = []Rule{
	{Name: "keeps-previous", Promise: "After an upgrade the release before it stays on the volume, for a rollback without a download.", Broken: lostPrevious},
	{
		Name: "collects-old", Promise: "Where all units run one release, no release stays but the current, the previous and pinned ones.", Broken: keptOld,
		Settles: "A supervisor collects once its unit has pinned another release, and removes thousands of files.",
	},
}

// lostPrevious says nothing after a rollback: what it would lead to next was collected
// when the release was installed from which it went back.
func lostPrevious(r observation.Record) []string {
	var f findings
	for o := range resting(r) {
		for unit, m := range inUse(o) {
			v := m.Volume
			if v.Current == nil || v.Current.Restores > 0 || v.Previous == nil {
				continue
			}
			previous := v.Previous.Version
			_, damaged := v.Damaged[previous]
			if _, ok := released(v.Inspection, previous); !ok && !damaged {
				f.add(o, unit, "%s, which was current before %s, is not on the volume any more", previous, v.Current.Version)
			}
		}
	}
	return f
}

func keptOld(r observation.Record) []string {
	var f findings
	for o := range resting(r) {
		if o.Expected == "" {
			continue
		}
		for unit, m := range inUse(o) {
			v := m.Volume
			if v.Current == nil {
				continue
			}
			needed := map[string]bool{v.Current.Version: true}
			if v.Previous != nil {
				needed[v.Previous.Version] = true
			}
			pinned := map[string]bool{}
			for _, name := range v.Pins {
				needed[versionOf(name)], pinned[name] = true, true
			}
			var old []string
			for _, release := range v.Releases {
				if !needed[release.Version] {
					old = append(old, release.Version)
				}
			}
			// After a rollback, the release that it left stays until the next upgrade.
			if v.Current.Restores > 0 && len(old) == 1 {
				old = nil
			}
			for _, name := range v.Replaced {
				if !pinned[name] {
					old = append(old, "store/"+name)
				}
			}
			if len(old) > 0 {
				f.add(o, unit, "nobody needs %s, and it is still on the volume", strings.Join(old, ", "))
			}
		}
	}
	return f
}

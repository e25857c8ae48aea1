package judge_test

import (
	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/observation"
)

var keptTables = []table{
	{rule: "keeps-previous",
		breaks: []row{
			{"the previous release collected", onVolume(func(v *observation.Volume) { v.Releases = v.Releases[1:] }),
				`ci/0 at the end of "upgraded": 7.14.2, which was current before 7.14.3, is not on the volume any more`},
		},
		keeps: []row{
			{"a rollback to what had no previous one", onVolume(func(v *observation.Volume) {
				v.Current.Restores, v.Releases = 1, v.Releases[1:]
			}), ""},
			{"a volume without a current release", onVolume(func(v *observation.Volume) { v.Current = nil }), ""},
			{"a previous release that is damaged", onVolume(func(v *observation.Volume) {
				v.Releases, v.Damaged = v.Releases[1:], map[string]string{from: "bin/concourse is missing"}
			}), ""},
		},
	},
	{rule: "collects-old",
		breaks: []row{
			{"a third release", onVolume(func(v *observation.Volume) { v.Releases = append(v.Releases, release("7.14.1")) }),
				`ci/0 at the end of "upgraded": nobody needs 7.14.1, and it is still on the volume`},
			{"a download that was replaced", onVolume(func(v *observation.Volume) { v.Replaced = []string{"7.14.3.1"}; v.Pins = nil }),
				"nobody needs store/7.14.3.1"},
			{"two releases after a rollback", onVolume(func(v *observation.Volume) {
				v.Current.Restores = 1
				v.Releases = append(v.Releases, release("7.14.0"), release("7.14.1"))
			}), "nobody needs 7.14.0, 7.14.1"},
		},
		keeps: []row{
			{"a third release that is pinned", onVolume(func(v *observation.Volume) {
				v.Releases, v.Pins["ci-2"] = append(v.Releases, release("7.14.1")), "7.14.1.1"
			}), ""},
			{"a download that was replaced and is pinned", onVolume(func(v *observation.Volume) { v.Replaced = []string{"7.14.3.1"} }), ""},
			{"a volume without a current release", onVolume(func(v *observation.Volume) { v.Current = nil }), ""},
			{"the release that a rollback left", onVolume(func(v *observation.Volume) {
				v.Current = &coordinator.Activation{Generation: 4, Version: to, Restores: 2}
				v.Releases = append(v.Releases, release("7.14.4"))
			}), ""},
			{"an upgrade that is fetched", func(r *observed) {
				r.Observations[upgraded].Expected = ""
				volumeOf(r, upgraded, func(v *observation.Volume) { v.Releases = append(v.Releases, release("7.14.4")) })
			}, ""},
		},
	},
}

package judge_test

import (
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/cluster"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/observation"
)

// mirrored changes what the mirror has sent of the upgrade.
func mirrored(change func(t *cluster.Transfer)) func(r *observed) {
	return func(r *observed) {
		t := r.Observations[upgraded].Downloads[to]
		change(&t)
		r.Observations[upgraded].Downloads[to] = t
	}
}

var downloadTables = []table{
	{rule: "one-download",
		breaks: []row{
			{"a second download", mirrored(func(t *cluster.Transfer) { t.Sent *= 2 }),
				`7.14.3 at the end of "upgraded": bytes were sent more than once: 125000000 of 125000000 bytes, 125000000 of them again`},
			{"a download by each unit", func(r *observed) {
				r.Observations[deployed].Downloads[from] = cluster.Transfer{Size: archive, Sent: 3 * archive, Distinct: archive, Clients: []string{address(0), address(1), address(2)}}
			}, `7.14.2 at the end of "deployed": bytes were sent more than once`},
			{"bytes sent again while it is under way", func(r *observed) {
				r.Observations[deploying].Downloads[from] = cluster.Transfer{Size: archive, Sent: 20_000_000, Distinct: 15_000_000, Clients: []string{address(0)}}
			}, `7.14.2 at the end of "deploying": bytes were sent more than once`},
			{"two units with halves", mirrored(func(t *cluster.Transfer) { t.Clients = append(t.Clients, address(1)) }), "more than 1 units downloaded"},
			{"a part", mirrored(func(t *cluster.Transfer) { t.Sent, t.Distinct = archive-1, archive-1 }), "it is installed, and did not come from the mirror"},
			{"from elsewhere", mirrored(func(t *cluster.Transfer) { *t = cluster.Transfer{} }), "it is installed, and did not come from the mirror"},
			{"more often than allowed", func(r *observed) {
				r.Allowed = map[string]int{to: 2}
				mirrored(func(t *cluster.Transfer) { t.Sent = 2*archive + 1 })(r)
			}, "the archive was sent more than 2 times"},
			{"what was there before", func(r *observed) { r.Allowed = map[string]int{from: 0} }, "it was on the volume before, and was downloaded"},
		},
		keeps: []row{
			{"a download under way", func(r *observed) {
				mirrored(func(t *cluster.Transfer) { t.Sent, t.Distinct = 1000, 1000 })(r)
				volumeOf(r, upgraded, func(v *observation.Volume) { v.Releases = v.Releases[:1] })
			}, ""},
			{"one that another unit took over", func(r *observed) {
				r.Allowed = map[string]int{to: 2}
				mirrored(func(t *cluster.Transfer) { t.Sent, t.Clients = archive+5_000_000, append(t.Clients, address(1)) })(r)
			}, ""},
			{"a volume that had it", func(r *observed) {
				r.Allowed = map[string]int{to: 0}
				mirrored(func(t *cluster.Transfer) { *t = cluster.Transfer{} })(r)
			}, ""},
			{"a mirror that was not asked about it", func(r *observed) { delete(r.Observations[upgraded].Downloads, to) }, ""},
		},
	},
	{rule: "one-line-a-download",
		breaks: []row{
			{"another unit that says so", func(r *observed) {
				logged(r, 158, "ci/2", "unit.ci/2.juju-log", "Downloading Concourse binaries v7.14.3 from http://mirror")
			}, `the log has "Downloading Concourse binaries v7.14.3" 2 times, more than 1: ci/0 at 03:02:35.000, ci/2 at 03:02:38.000`},
			{"a status with the same words", func(r *observed) { said(r, 158, "maintenance", "Downloading Concourse binaries v7.14.3... 12%") }, "2 times"},
			{"nobody says so", func(r *observed) { only(r, "ran ") }, `7.14.2 at the end of "deployed": it was downloaded, and the log never says so`},
			{"one of a volume that had it", func(r *observed) { r.Allowed = map[string]int{from: 0} }, "1 times, more than 0"},
		},
		keeps: []row{
			{"a version that begins with the same numbers", func(r *observed) {
				logged(r, 250, "ci/2", "unit.ci/2.juju-log", "Downloading Concourse binaries v7.14.30 from http://mirror")
				logged(r, 251, "ci/2", "unit.ci/2.juju-log", "Downloading Concourse binaries v7.14.3-rc.1 from http://mirror")
			}, ""},
			{"a second one that is allowed", func(r *observed) {
				r.Allowed = map[string]int{to: 2}
				logged(r, 158, "ci/2", "unit.ci/2.juju-log", "Downloading Concourse binaries v7.14.3 from http://mirror")
			}, ""},
			{"a volume that had it", func(r *observed) {
				r.Allowed = map[string]int{from: 0, to: 0}
				for i := range r.Observations {
					r.Observations[i].Downloads = map[string]cluster.Transfer{from: {}, to: {}}
				}
				only(r, "ran ")
			}, ""},
			{"a line that may still come", func(r *observed) {
				r.Observations = r.Observations[:2]
				only(r, "ran ")
				for len(r.Log) > 0 && r.Log[len(r.Log)-1].Time.After(at(85)) {
					r.Log = r.Log[:len(r.Log)-1]
				}
			}, ""},
		},
	},
}

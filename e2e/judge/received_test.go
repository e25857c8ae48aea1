package judge_test

import (
	"time"

	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/cluster"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/observation"
)

// receives has a machine receive more than in the sound record.
func receives(r *observed, i int, unit string, more uint64) {
	for ; i < len(r.Observations); i++ {
		machineOf(r, i, unit, func(m *observation.Machine) { m.Received += more })
	}
}

var receivedTables = []table{
	{rule: "bytes-once",
		breaks: []row{
			{"a new unit that downloads from elsewhere", func(r *observed) { receives(r, deployed, "ci/1", archive) },
				`ci/1 at the end of "deployed": received 174000000 bytes since its start, more than the 146386080 that can be explained`},
			{"all units do", func(r *observed) {
				receives(r, deployed, "ci/1", archive)
				receives(r, deployed, "ci/2", archive)
			}, "ci/2"},
			{"an upgrade from elsewhere", func(r *observed) { receives(r, upgraded, "ci/2", archive) },
				`ci/2 at the end of "upgraded": received 130000000 bytes since "deployed"`},
			{"the same beside a larger release", func(r *observed) {
				receives(r, upgraded, "ci/2", archive)
				r.Observations[upgraded].Downloads["7.15.0"] = cluster.Transfer{Size: 10 * archive}
			}, "more than the 96054432"},
			{"the one that downloads does so twice", func(r *observed) { receives(r, upgraded, "ci/0", archive) }, "ci/0 at the end of \"upgraded\""},
			{"a machine that was started again", func(r *observed) {
				machineOf(r, upgraded, "ci/1", func(m *observation.Machine) { m.Started, m.Received = at(180), archive+agent })
			}, "ci/1"},
		},
		keeps: []row{
			{"a download while the machines are looked at", func(r *observed) {
				o := &r.Observations[deployed]
				o.Downloads[to], o.SentBefore[to] = cluster.Transfer{Size: archive, Sent: archive, Distinct: archive, Clients: []string{address(0)}}, 0
			}, ""},
			{"builds", func(r *observed) { receives(r, upgraded, "ci/2", 60_000_000) }, ""},
			{"two readings of one start", func(r *observed) {
				machineOf(r, upgraded, "ci/0", func(m *observation.Machine) { m.Started = m.Started.Add(20e6) })
			}, ""},
			{"a machine that was started again", func(r *observed) {
				machineOf(r, upgraded, "ci/1", func(m *observation.Machine) { m.Started, m.Received = at(180), 5_000_000 })
			}, ""},
			{"a client that nobody knows", func(r *observed) {
				r.Observations[upgraded].Downloads[to] = cluster.Transfer{Size: archive, Sent: archive, Distinct: archive, Clients: []string{"192.0.2.1"}}
			}, ""},
			{"what nobody knows of a machine", func(r *observed) {
				receives(r, upgraded, "ci/1", archive)
				receives(r, upgraded, "ci/2", archive)
				machineOf(r, upgraded, "ci/1", func(m *observation.Machine) { m.Started = time.Time{} })
				machineOf(r, upgraded, "ci/2", func(m *observation.Machine) { m.Received = 0 })
			}, ""},
			{"a small archive", func(r *observed) {
				for _, o := range r.Observations {
					for version, t := range o.Downloads {
						t.Size, t.Sent, t.Distinct = t.Size/1000, t.Sent/1000, t.Distinct/1000
						o.Downloads[version] = t
						o.SentBefore[version] /= 1000
					}
					for unit, m := range o.Machines {
						m.Received = agent + (m.Received-agent)/1000
						o.Machines[unit] = m
					}
				}
			}, ""},
		},
	},
}

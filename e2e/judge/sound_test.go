package judge_test

import (
	"maps"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator"
	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/history"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/cluster"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/judge"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/observation"
)

type observed = observation.Record // shortens the rows

// unbroken are records in which all is as it must be, whatever happens.
var unbroken = []row{
	{name: "nothing observed", change: func(r *observed) { *r = observed{} }},
	{name: "all well", change: func(r *observed) {}},
	{name: "still deploying", change: func(r *observed) { r.Observations = r.Observations[:1] }},
	{name: "in the middle of an upgrade", change: func(r *observed) {
		// The web server is ahead, one worker follows, and so do the names on the volume.
		o := atRest(176, "upgrading", to)
		o.Resting, o.Expected = false, ""
		o.Machines["ci/2"] = machine(2, from)
		o.Status = status("maintenance Upgrading to v7.14.3...", "active Worker ready (v7.14.3)", "maintenance Upgrading to v7.14.3...")
		for _, m := range o.Machines {
			m.Volume.InstalledVersion = from
			m.Volume.Pins["ci-2"] = to + ".1"
		}
		o.Web.Workers = o.Web.Workers[:1]
		r.Observations = []observation.Observation{r.Observations[0], r.Observations[1], o, r.Observations[2]}
	}},
	{name: "a unit removed", change: func(r *observed) {
		delete(r.Observations[upgraded].Status.Apps["ci"].Units, "ci/2")
		delete(r.Observations[upgraded].Machines, "ci/2")
		volumeOf(r, upgraded, func(v *observation.Volume) {
			v.Workers = []string{"ci-0", "ci-1"}
			delete(v.Pins, "ci-2")
		})
		r.Observations[upgraded].Web.Workers = r.Observations[upgraded].Web.Workers[:1]
	}},
	{name: "a unit added", change: func(r *observed) {
		o := &r.Observations[upgraded]
		o.Status = status("active Web server ready (v7.14.3)", "active Worker ready (v7.14.3)", "active Worker ready (v7.14.3)", "active Worker ready (v7.14.3)")
		m := machine(3, to)
		m.Started, m.Received = at(160), agent
		o.Machines["ci/3"] = m
		volumeOf(r, upgraded, func(v *observation.Volume) {
			v.Workers = append(v.Workers, "ci-3")
			v.Pins["ci-3"] = to + ".1"
		})
		o.Web.Workers = append(o.Web.Workers, observation.Worker{Name: "ci-3", State: "running"})
	}},
	{name: "a worker without its volume", change: func(r *observed) {
		r.Faults = []observation.Fault{{Name: "ci/1: volume detached", Units: []string{"ci/1"}, Begin: at(180)}}
		says(r, upgraded, "ci/1", "blocked", "Shared storage unavailable - attach it with `lxc config device add`")
		machineOf(r, upgraded, "ci/1", func(m *observation.Machine) {
			m.Services, m.Processes, m.Mount, m.Volume = nil, nil, observation.Mount{Underneath: []string{}}, nil
		})
		r.Observations[upgraded].Expected = ""
	}},
	{name: "a web server without its volume", change: func(r *observed) {
		r.Faults = []observation.Fault{{Name: "ci/0: volume detached", Begin: at(180)}}
		says(r, upgraded, "ci/0", "blocked", "Shared storage unavailable - attach it with `lxc config device add`")
		machineOf(r, upgraded, "ci/0", func(m *observation.Machine) {
			m.Processes, m.Mount, m.Volume = nil, observation.Mount{}, nil
		})
		serviceOf(r, upgraded, "ci/0", server, func(s *observation.Service) { s.Executable = "/store/7.14.3.1/bin/concourse" })
	}},
	{name: "a unit with another volume, which it refuses", change: func(r *observed) {
		r.Faults = []observation.Fault{{Name: "ci/1: another volume attached", Begin: at(180)}}
		says(r, upgraded, "ci/1", "blocked", "Shared storage unavailable - another volume is mounted: detach it and attach the one with id V1")
		machineOf(r, upgraded, "ci/1", func(m *observation.Machine) {
			m.Services, m.Processes, m.Mount.FileSystem = nil, nil, "f2"
			m.Volume = &observation.Volume{Inspection: coordinator.Inspection{VolumeID: "V2"}}
		})
		r.Observations[upgraded].Web.Workers = r.Observations[upgraded].Web.Workers[1:]
	}},
	{name: "a machine that is off", change: func(r *observed) {
		r.Faults = []observation.Fault{{Name: "ci/2: machine stopped", Units: []string{"ci/2"}, Begin: at(180)}}
		delete(r.Observations[upgraded].Machines, "ci/2")
		unitOf(r, upgraded, "ci/2", func(u *cluster.UnitStatus) {
			u.Workload, u.Message, u.Agent = "unknown", "agent lost, see 'juju show-status-log ci/2'", "lost"
		})
		r.Observations[upgraded].Web.Workers[1].State = "stalled"
		r.Builds[1].Result = "errored"
	}},
	{name: "an upgrade that was taken back", change: func(r *observed) {
		o := atRest(200, "taken back", from)
		o.Status = status("blocked Upgrade to v7.14.3 failed: the web server did not answer in time; see journalctl, then run upgrade again",
			"active Worker ready (v7.14.2)", "active Worker ready (v7.14.2)")
		for _, m := range o.Machines {
			upgrade := volume(to)
			upgrade.Previous = &coordinator.Activation{Generation: 2, Version: to, Unit: "ci/0"}
			upgrade.Current = &coordinator.Activation{Generation: 3, Version: from, Unit: "ci/0"}
			upgrade.Pins, upgrade.Bin, upgrade.BinFile, upgrade.InstalledVersion = m.Volume.Pins, m.Volume.Bin, m.Volume.BinFile, from
			*m.Volume = *upgrade
		}
		first := o.Machines["ci/0"]
		first.Received += archive
		o.Machines["ci/0"] = first
		o.Downloads[to] = sent(archive)
		r.Observations[upgraded] = o
	}},
	{name: "a rollback", change: func(r *observed) {
		// To what was there before the upgrade: nothing is before that.
		o := atRest(280, "rolled back", from)
		for _, m := range o.Machines {
			pins, used, kept := m.Volume.Pins, volume(to).Use, past(to)
			kept.Activations = append(kept.Activations, history.Activation{Number: 3, Version: from, Unit: "ci/0"})
			kept.Pins = m.Volume.History.Pins
			m.Volume.History = kept
			m.Volume.Current = &coordinator.Activation{Generation: 3, Version: from, Unit: "ci/0", Restores: 1}
			m.Volume.Releases, m.Volume.Pins, m.Volume.Use = []coordinator.Release{release(from), release(to)}, pins, used
		}
		first := o.Machines["ci/0"]
		first.Received += archive
		o.Machines["ci/0"] = first
		o.Downloads[to] = sent(archive)
		r.Observations = append(r.Observations, o)
		r.Acts = append(r.Acts, observation.Act{Name: "rollback", Time: at(240)})
	}},
	{name: "a release repaired", change: func(r *observed) {
		r.Faults = []observation.Fault{fault("volume: release damaged", 180, 185)}
		r.Allowed = map[string]int{to: 2}
		logged(r, 186, "ci/1", "unit.ci/1.juju-log", "Downloading Concourse binaries v7.14.3 from http://mirror")
		o := &r.Observations[upgraded]
		o.Downloads[to] = cluster.Transfer{Size: archive, Sent: 2 * archive, Distinct: archive, Clients: []string{address(0), address(1)}}
		machineOf(r, upgraded, "ci/1", func(m *observation.Machine) { m.Received += archive })
		volumeOf(r, upgraded, func(v *observation.Volume) {
			v.Replaced = []string{to + ".1"}
			v.Releases[1].Dir = root + "/store/" + to + ".2"
			v.BinFile.Inode = 5000
			v.Use.Store += installed
		})
	}},
	{name: "a volume of the first layout", change: func(r *observed) {
		r.Observations = r.Observations[:2]
		for unit := range r.Observations[deployed].Machines {
			machineOf(r, deployed, unit, func(m *observation.Machine) {
				m.Services[1].Executable = root + "/releases/" + from + "/bin/concourse"
			})
		}
		volumeOf(r, deployed, func(v *observation.Volume) {
			v.Layout, v.Releases[0].Dir = 1, root+"/releases/"+from
			for unit := range v.Pins {
				v.Pins[unit] = from + ".0"
			}
		})
	}},
	{name: "a unit that is all", change: func(r *observed) {
		o := r.Observations[deployed]
		o.Status = status("active Ready (v7.14.2)")
		m := o.Machines["ci/0"]
		beside := machine(1, from).Services[1]
		beside.Directory = root + "/worker/ci-0"
		beside.Started = at(41)
		m.Services = append(m.Services, beside)
		m.Volume.Workers, m.Volume.Pins = []string{"ci-0"}, map[string]string{"ci-0": from + ".1"}
		o.Machines = map[string]observation.Machine{"ci/0": m}
		o.Web.Workers = []observation.Worker{{Name: "ci-0", State: "running"}}
		r.Observations, r.Builds = []observation.Observation{o}, nil
	}},
	{name: "no shared volume", change: func(r *observed) {
		r.Shared = false
		for _, o := range r.Observations {
			for unit, m := range o.Machines {
				m.Mount, m.Volume, m.Copies, m.Used = observation.Mount{Underneath: []string{"store"}}, nil, []string{root + "/store/7.14.2.1/bin/concourse"}, 2*installed
				o.Machines[unit] = m
			}
		}
		r.Allowed = map[string]int{from: 3, to: 3}
	}},
	{name: "a leader that changes with its web server", change: func(r *observed) {
		r.Faults = []observation.Fault{fault("ci/0: machine stopped", 180, 190, "ci/0")}
		o := &r.Observations[upgraded]
		o.Status = status("active Worker ready (v7.14.3)", "active Web server ready (v7.14.3)", "active Worker ready (v7.14.3)")
		for unit, name := range map[string]string{"ci/0": worker, "ci/1": server} {
			machineOf(r, upgraded, unit, func(m *observation.Machine) {
				m.Services[1].Name, m.Services[1].Directory, m.Services[1].Started = name, "", at(192)
			})
		}
		o.Web.Workers[0].Name = "ci-0"
	}},
}

func TestSoundRecords(t *testing.T) {
	for _, row := range unbroken {
		t.Run(row.name, func(t *testing.T) {
			r := sound()
			row.change(r)
			require.Empty(t, texts(judge.Judge(*r, judge.Always()...)))
		})
	}
}

// What was not observed breaks no rule.
func TestLessObserved(t *testing.T) {
	less := map[string]func(r *observed, o *observation.Observation){
		"status":         func(r *observed, o *observation.Observation) { o.Status = cluster.Status{} },
		"machines":       func(r *observed, o *observation.Observation) { o.Machines = nil },
		"downloads":      func(r *observed, o *observation.Observation) { o.Downloads = nil },
		"web server":     func(r *observed, o *observation.Observation) { o.Web = nil },
		"workers":        func(r *observed, o *observation.Observation) { o.Web.Workers = nil },
		"log":            func(r *observed, o *observation.Observation) { r.Log = nil },
		"end of the log": func(r *observed, o *observation.Observation) { r.Log = r.Log[:len(r.Log)/2] },
		"content of files": func(r *observed, o *observation.Observation) {
			volumeOf(r, upgraded, func(v *observation.Volume) { v.Unsound = nil })
		},
		"services": func(r *observed, o *observation.Observation) {
			o.Status = status("waiting Waiting for machine", "maintenance Preparing unit", "maintenance Preparing unit")
			for unit := range o.Machines {
				o.Machines[unit] = observation.Machine{}
			}
			o.Web, o.Expected = nil, ""
		},
	}
	for _, unit := range []string{"ci/0", "ci/1", "ci/2"} {
		less[unit] = func(_ *observed, o *observation.Observation) { delete(o.Machines, unit) }
	}
	for what, forget := range less {
		for i := deployed; i <= upgraded; i++ {
			r := sound()
			forget(r, &r.Observations[i])
			require.Empty(t, texts(judge.Judge(*r, judge.Always()...)), "%s in observation %d", what, i)
		}
	}
}

func TestJudgeKeepsTheOrderOfRules(t *testing.T) {
	rule := func(name string, lines ...string) judge.Rule {
		return judge.Rule{Name: name, Broken: func(observed) []string { return lines }}
	}
	require.Equal(t, []judge.Violation{{Rule: "b", Text: "1"}, {Rule: "b", Text: "2"}, {Rule: "a", Text: "3"}},
		judge.Judge(observed{}, rule("b", "1", "2"), rule("none"), rule("a", "3")))
	require.Equal(t, "a: 3", judge.Violation{Rule: "a", Text: "3"}.String())
}

// A record that is judged stays as it is.
func TestJudgeChangesNothing(t *testing.T) {
	r := sound()
	before := maps.Clone(r.Observations[upgraded].Machines)
	judge.Judge(*r, judge.Always()...)
	require.Equal(t, before, r.Observations[upgraded].Machines)
	require.Equal(t, sound(), r)
}

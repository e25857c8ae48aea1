package judge_test

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator"
	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/history"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/cluster"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/observation"
)

const (
	server = "concourse-server.service"
	worker = "concourse-worker.service"
	root   = "/var/lib/concourse"

	from, to = "7.14.2", "7.14.3"

	archive   = 125_000_000 // bytes of a release's archive
	installed = 261_000_000 // and of its files
	agent     = 48_000_000  // what a new machine receives
)

// The observations of a sound record.
const (
	deploying = iota
	deployed
	upgraded
)

// at is a time in a record, in seconds from its beginning.
func at(seconds float64) time.Time {
	return time.Date(2026, 1, 2, 3, 0, 0, 0, time.UTC).Add(time.Duration(seconds * float64(time.Second)))
}

// sound is the record of a scenario in which nothing went wrong: three units are
// deployed, of which ci/0 leads and runs the web server, and are upgraded.
func sound() *observation.Record {
	r := &observation.Record{
		Scenario: "auto", App: "ci", Shared: true,
		Acts:    []observation.Act{{Name: "deploy", Time: at(0)}, {Name: "upgrade to " + to, Time: at(150)}},
		Secrets: map[string]string{"the admin's password": "correct-horse-battery"},
		Observations: []observation.Observation{
			{
				Time: at(30), Phase: "deploying",
				Status: status("maintenance Downloading Concourse CI 7.14.2... 12%", "maintenance Waiting for binaries v7.14.2...", "blocked Shared storage unavailable - attach it with `lxc config device add juju-1-2 concourse-data disk pool=POOL source=VOLUME path=/var/lib/concourse`"),
				Machines: map[string]observation.Machine{
					"ci/0": {Mount: mounted, Received: agent + 20_000_000, Started: at(5), Volume: &observation.Volume{Inspection: coordinator.Inspection{
						VolumeID: "V1", Layout: 2, Use: coordinator.Space{Staging: 30_000_000},
						Progress: &coordinator.Progress{Version: from, Unit: "ci/0"},
					}, Workers: []string{"ci-0"}, Staged: []string{from + ".1.ci-0"}, History: &history.Volume{
						ID: "V1", Claims: map[string][]history.Claim{from: {{Generation: 1, Unit: "ci/0", Nonce: from}}}, Staged: []string{from + ".1.ci-0"},
					}}},
					"ci/2": {Received: agent, Started: at(5), Mount: observation.Mount{Underneath: []string{}}},
				},
				Downloads: map[string]cluster.Transfer{from: sent(15_000_000), to: {}},
			},
			atRest(60, "deployed", from),
			atRest(200, "upgraded", to),
		},
		Builds: []observation.Build{
			{Name: "1", Started: at(80), Ended: at(85), Worker: "ci-1", Result: "succeeded"},
			{Name: "2", Started: at(210), Ended: at(216), Worker: "ci-2", Result: "succeeded"},
		},
	}
	for n := range 3 {
		unit := fmt.Sprintf("ci/%d", n)
		ran(r, 20, unit, "install")
		ran(r, 25, unit, "config-changed")
		woken(r, 44, unit)
		ran(r, 62, unit, "peers-relation-changed")
		woken(r, 70, unit)
		ran(r, 100, unit, "update-status")
		woken(r, 170, unit)
		ran(r, 300, unit, "update-status")
	}
	for i, o := range r.Observations {
		r.Observations[i].SentBefore = map[string]int64{}
		for version, t := range o.Downloads {
			r.Observations[i].SentBefore[version] = t.Sent
		}
	}
	for version, began := range map[string]float64{from: 28, to: 155} {
		logged(r, began, "ci/0", "unit.ci/0.juju-log", "Downloading Concourse binaries v"+version+" from http://mirror")
		logged(r, began+8, "ci/1", "unit.ci/1.juju-log", "Reusing Concourse binaries v"+version+" installed by ci/0")
		said(r, began+14, "maintenance", "Starting Concourse v"+version+"...")
		said(r, began+18, "active", "Web server ready (v"+version+")")
		said(r, began+22, "active", "Worker ready (v"+version+")")
	}
	return r
}

func atRest(seconds float64, phase, version string) observation.Observation {
	o := observation.Observation{
		Time: at(seconds), Phase: phase, Resting: true, Expected: version,
		Status:    status("active Web server ready (v"+version+")", "active Worker ready (v"+version+")", "active Worker ready (v"+version+")"),
		Machines:  map[string]observation.Machine{},
		Downloads: map[string]cluster.Transfer{from: sent(archive), to: {}},
		Web: &observation.Web{URL: "http://10.0.0.10:8080", Version: version, Workers: []observation.Worker{
			{Name: "ci-1", State: "running"}, {Name: "ci-2", State: "running"},
		}},
	}
	if version == to {
		o.Downloads[to] = sent(archive)
	}
	for n := range 3 {
		o.Machines[fmt.Sprintf("ci/%d", n)] = machine(n, version)
	}
	return o
}

// status is that of units ci/0, ci/1..., each given as "WORKLOAD MESSAGE".
func status(states ...string) cluster.Status {
	ci := cluster.AppStatus{Units: map[string]cluster.UnitStatus{}}
	for n, state := range states {
		workload, message, _ := strings.Cut(state, " ")
		name := fmt.Sprintf("ci/%d", n)
		ci.Units[name] = cluster.UnitStatus{
			Name: name, Workload: workload, Message: message, Agent: "idle", Leader: n == 0, Address: address(n),
		}
	}
	database := map[string]cluster.UnitStatus{"postgresql/0": {Name: "postgresql/0", Workload: "active", Agent: "idle"}}
	return cluster.Status{Apps: map[string]cluster.AppStatus{"ci": ci, "postgresql": {Units: database}}}
}

func address(n int) string { return fmt.Sprintf("10.0.0.%d", 10+n) }

// sent is what the mirror has sent to ci/0.
func sent(bytes int64) cluster.Transfer {
	return cluster.Transfer{Size: archive, Sent: bytes, Distinct: bytes, Requests: 4, Clients: []string{address(0)}}
}

var mounted = observation.Mount{Mounted: true, Marked: true, FileSystem: "f1"}

// program is what runs of a version, and its file.
func program(version string) (string, observation.File) {
	inode := map[string]uint64{from: 387, to: 3519}[version]
	return root + "/store/" + version + ".1/bin/concourse", observation.File{FileSystem: "f1", Inode: inode}
}

func machine(n int, version string) observation.Machine {
	path, file := program(version)
	s := observation.Service{Name: worker, State: "active", PID: 300 + n, Directory: fmt.Sprintf("%s/worker/ci-%d", root, n)}
	if n == 0 {
		s = observation.Service{Name: server, State: "active", PID: 300}
	}
	s.Executable, s.File, s.Invocation, s.Started = path, file, version, at(map[string]float64{from: 46.5, to: 173.5}[version]+float64(n))
	received := uint64(agent + 1_000_000)
	if n == 0 {
		received += archive
		s.Started = s.Started.Add(-4 * time.Second)
	}
	if version == to {
		s.PID += 1000
		received += 5_000_000
		if n == 0 {
			received += archive
		}
	}
	return observation.Machine{
		Charm: "local:concourse-ci-machine-0", Secrets: map[string]string{"worker_key: private key 1": fmt.Sprintf("b3BlbnNzaC1rZXk%d", n)},
		Services:  []observation.Service{{Name: "concourse-ci-supervisor.service", State: "active", PID: 200 + n}, s},
		Processes: []observation.Process{{PID: s.PID, Executable: path}},
		Mount:     mounted, Volume: volume(version), Received: received, Started: at(5), Used: 8_000_000,
	}
}

func release(version string) coordinator.Release {
	return coordinator.Release{Version: version, Dir: root + "/store/" + version + ".1", InstalledBy: "ci/0", Bytes: installed}
}

// past is what the volume keeps of the steps that led to a version.
func past(version string) *history.Volume {
	h := &history.Volume{ID: "V1", Claims: map[string][]history.Claim{}, Releases: map[string]string{}, Pins: map[string]string{}}
	for i, v := range []string{from, to} {
		h.Activations = append(h.Activations, history.Activation{Number: i + 1, Version: v, Unit: "ci/0"})
		h.Claims[v] = []history.Claim{{Generation: 1, Unit: "ci/0", Nonce: v, Ended: true}}
		h.Releases[v], h.Entries = v+".1", append(h.Entries, v+".1")
		if v == version {
			break
		}
	}
	for n := range 3 {
		h.Pins[fmt.Sprintf("ci-%d", n)] = version + ".1"
	}
	return h
}

func volume(version string) *observation.Volume {
	_, file := program(version)
	v := &observation.Volume{
		Inspection: coordinator.Inspection{
			VolumeID: "V1", Layout: 2, Use: coordinator.Space{Store: installed, Worker: 900_000_000},
			Current:  &coordinator.Activation{Generation: 1, Version: from, Unit: "ci/0"},
			Releases: []coordinator.Release{release(from)}, Replaced: []string{},
			Pins: map[string]string{"ci-0": version + ".1", "ci-1": version + ".1", "ci-2": version + ".1"},
		},
		InstalledVersion: version, Bin: "releases/" + version + "/bin", BinFile: file,
		Workers: []string{"ci-0", "ci-1", "ci-2"}, Staged: []string{}, Unsound: map[string]string{}, History: past(version),
	}
	if version == to {
		v.Use.Store *= 2
		v.Previous, v.Current = v.Current, &coordinator.Activation{Generation: 2, Version: to, Unit: "ci/0"}
		v.Releases = append(v.Releases, release(to))
	}
	return v
}

// machineOf changes a machine in one observation, serviceOf one of its services, volumeOf
// the volume as all units see it, and unitOf the status of a unit.
func machineOf(r *observation.Record, i int, unit string, change func(*observation.Machine)) {
	m := r.Observations[i].Machines[unit]
	change(&m)
	r.Observations[i].Machines[unit] = m
}

func serviceOf(r *observation.Record, i int, unit, name string, change func(*observation.Service)) {
	machineOf(r, i, unit, func(m *observation.Machine) {
		n := slices.IndexFunc(m.Services, func(s observation.Service) bool { return s.Name == name })
		if n < 0 {
			n = len(m.Services)
			m.Services = append(m.Services, observation.Service{Name: name})
		}
		change(&m.Services[n])
	})
}

func volumeOf(r *observation.Record, i int, change func(*observation.Volume)) {
	for _, m := range r.Observations[i].Machines {
		if m.Volume != nil {
			change(m.Volume)
		}
	}
}

func unitOf(r *observation.Record, i int, unit string, change func(*cluster.UnitStatus)) {
	units := r.Observations[i].Status.Apps["ci"].Units
	u := units[unit]
	change(&u)
	units[unit] = u
}

// says changes what a unit's status is.
func says(r *observation.Record, i int, unit, workload, message string) {
	unitOf(r, i, unit, func(u *cluster.UnitStatus) { u.Workload, u.Message = workload, message })
}

// logged puts a line into the log, ran one about a hook, woken those about a command, and
// said one about a status.
func logged(r *observation.Record, seconds float64, unit, module, message string) {
	r.Log = append(r.Log, cluster.LogLine{Time: at(seconds), Unit: unit, Level: "INFO", Module: module, Message: message})
	slices.SortStableFunc(r.Log, func(a, b cluster.LogLine) int { return a.Time.Compare(b.Time) })
}

// complained is what a hook has written to its standard error.
func complained(r *observation.Record, seconds float64, unit, message string) {
	logged(r, seconds, unit, "unit."+unit+".config-changed", message)
	for i := range r.Log {
		if r.Log[i].Message == message {
			r.Log[i].Level = "WARNING"
		}
	}
}

const operations = "juju.worker.uniter.operation"

func ran(r *observation.Record, seconds float64, unit, hook string) {
	logged(r, seconds, unit, operations, fmt.Sprintf("ran %q hook (via hook dispatching script: dispatch)", hook))
}

func woken(r *observation.Record, seconds float64, unit string) {
	logged(r, seconds, unit, operations, "running operation run commands for "+unit)
	said(r, seconds, "executing", "running commands")
}

func said(r *observation.Record, seconds float64, state, message string) {
	logged(r, seconds, "controller-0", "juju.services.status.status-history",
		fmt.Sprintf("status-history (status: %q, status-message: %q)", state, message))
}

// fault is one that has been healed.
func fault(name string, begin, end float64, units ...string) observation.Fault {
	return observation.Fault{Name: name, Units: units, Begin: at(begin), End: at(end)}
}

package sim

import (
	"errors"
	"path"
	"strings"
	"time"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/concourse"
)

// machine is one unit's: what is on its disk outlives its processes.
type machine struct {
	*world
	address string
	unit    *unit
	on      bool
	cut     bool // from the network
	gone    bool
	boots   int
	mount   mount
	files   map[string]string // what services read
	hosts   map[string]string // addresses of names, with a space between
	units   map[string]*systemdUnit

	healed time.Duration // when it was cut from the network last

	web       *webServer // processes; nil while there is none
	worker    *worker
	migration *migration
}

// systemdUnit is one of the services as systemd has it.
type systemdUnit struct {
	process string // section [Service]; empty where it is not defined
	wanted  bool   // started, and not stopped since: it is started again when it fails
	starts  int    // counts, so that a late restart knows that it is too late
	state   concourse.State
}

func newMachine(w *world, address, unit string) *machine {
	m := &machine{world: w, address: address, files: map[string]string{}, hosts: map[string]string{}}
	m.units = map[string]*systemdUnit{concourse.ServerUnit: {}, concourse.WorkerUnit: {}, concourse.MigrationUnit: {}}
	m.mount = mount{machine: m, volume: newVolume(w)} // its own disk
	w.machines[address] = m
	return m
}

func (m *machine) start() {
	if m.on || m.gone {
		return
	}
	m.on = true
	m.boots++
	m.say(m.unit.name, "the machine starts")
	life, rebooted := m.boots, m.boots > 1
	m.soon(time.Second, 10*time.Second, func() {
		if m.on && m.boots == life {
			m.unit.agent.start(rebooted)
			m.unit.super.start()
		}
	})
}

// stop is a power cut.
func (m *machine) stop() {
	if !m.on {
		return
	}
	m.on = false
	m.say(m.unit.name, "the machine is off")
	m.unit.agent.stop()
	m.unit.super.stop()
	for _, s := range m.units {
		s.wanted = false
		s.starts++
	}
	m.kill(concourse.ServerUnit, "its machine is off")
	m.kill(concourse.WorkerUnit, "its machine is off")
	m.kill(concourse.MigrationUnit, "its machine is off")
	m.units[concourse.MigrationUnit].state.Exit = ""
}

func (m *machine) destroy() {
	m.stop() // of a unit that is gone
	m.gone = true
	delete(m.machines, m.address)
}

// kill ends a process, with all that it does.
func (m *machine) kill(unit, why string) {
	if unit == concourse.ServerUnit && m.web != nil {
		m.web.end(why)
	}
	if unit == concourse.WorkerUnit && m.worker != nil {
		m.worker.end(why)
	}
	if unit == concourse.MigrationUnit && m.migration != nil {
		m.migration.end(why)
		m.units[unit].state.Exit = "killed by SIGKILL"
	}
}

// define writes a service's files.
func (m *machine) define(s concourse.Service) {
	m.units[s.Unit].process = s.Process
	m.writeFiles(s)
}

func (m *machine) writeFiles(s concourse.Service) {
	for _, f := range s.Files {
		m.files[f.Path] = f.Content
	}
}

// restart is systemctl restart: it ends when the new process was begun. Systemd goes on
// with it when its caller is gone.
func (m *machine) restart(unit string, done func(error)) {
	s := m.units[unit]
	s.wanted = false // what ends now does not start again of itself
	s.starts++
	s.state.Restarts = 0
	mine := s.starts
	m.end(unit, "it is restarted", func() {
		if s.starts == mine && m.on {
			s.wanted = true
			m.exec(unit)
		}
		done(nil)
	})
}

// remove is systemctl stop, and the end of the unit's file.
func (m *machine) remove(unit string, done func(error)) {
	s := m.units[unit]
	s.wanted = false
	s.starts++
	m.end(unit, "it is stopped", func() {
		s.process = ""
		done(nil)
	})
}

// end has a process end as systemd does. A web server is killed once it has let go of its
// builds, and serves no one until then.
func (m *machine) end(unit, why string, then func()) {
	boots, web, worker, migration := m.boots, m.web, m.worker, m.migration
	finish := func() {
		if m.boots != boots || !m.on {
			return
		}
		if unit == concourse.ServerUnit && web != nil {
			web.end(why)
		}
		if unit == concourse.WorkerUnit && worker != nil {
			worker.end(why)
		}
		if unit == concourse.MigrationUnit && migration != nil {
			migration.end(why)
		}
		then()
	}
	switch {
	case unit == concourse.ServerUnit && m.web != nil && len(m.ci.builds) > 0:
		m.web.draining = true
		m.soon(200*time.Millisecond, time.Second, finish)
	case unit == concourse.WorkerUnit && m.worker != nil:
		worker.stopping = true
		worker.loseBuilds(why)
		m.soon(100*time.Millisecond, 5*time.Second, finish)
	default:
		m.soon(50*time.Millisecond, time.Second, finish)
	}
}

// exec begins the process that a unit's file describes, from the release that it names.
func (m *machine) exec(unit string) {
	s := m.units[unit]
	if unit == concourse.ServerUnit && m.web != nil || unit == concourse.WorkerUnit && m.worker != nil || unit == concourse.MigrationUnit && m.migration != nil {
		panic("two processes of " + unit)
	}
	fields := environment(m.files, s.process)
	_, command, _ := strings.Cut(s.process, "ExecStart=")
	command, _, _ = strings.Cut(command, "\n")
	program, _, _ := strings.Cut(command, " ")
	version := path.Base(path.Dir(path.Dir(program)))
	if err := m.mount.executes(version); err != nil {
		m.say(m.unit.name, "%s cannot be executed: %v", program, err)
		m.failed(unit)
		return
	}
	m.say(m.unit.name, "%s %s begins", unit, version)
	m.judge.begins++
	s.state.PID++
	if unit == concourse.MigrationUnit {
		s.state.Exit = ""
		m.migration = newMigration(m, version, command, fields)
		m.soon(100*time.Millisecond, 2*time.Second, m.migration.goOn)
		return
	}
	if unit == concourse.ServerUnit {
		m.web = newWebServer(m, version, fields)
		m.web.begin()
		return
	}
	m.worker = newWorker(m, version, fields)
	m.worker.begin()
}

// failed has systemd start the unit again, as Restart=on-failure and RestartSec=5 say.
func (m *machine) failed(unit string) {
	s := m.units[unit]
	if !s.wanted {
		return
	}
	starts := s.starts
	s.state.Exit = "exit status 1"
	m.after(5*time.Second, func() {
		if s.starts == starts && s.wanted && m.on {
			s.state.Restarts++
			m.exec(unit)
		}
	})
}

// exited is the end of a process that wanted to end: systemd leaves it so.
func (m *machine) exited(unit string) { m.units[unit].wanted = false }

// state is what systemd says: a unit between two attempts counts as running.
func (m *machine) state(unit string) concourse.State {
	s := m.units[unit].state
	s.Running = m.units[unit].wanted
	return s
}

// environment are the variables that a process gets.
func environment(files map[string]string, process string) map[string]string {
	env := map[string]string{}
	_, file, _ := strings.Cut(process, "EnvironmentFile=")
	file, _, _ = strings.Cut(file, "\n")
	for line := range strings.Lines(files[file]) {
		name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
		env[name] = strings.Trim(value, `"`)
	}
	return env
}

// resolve finds the machines of an address or a name, as /etc/hosts has it.
func (m *machine) resolve(host string) []*machine {
	if addresses, known := m.hosts[host]; known {
		host = addresses
	}
	var all []*machine
	for address := range strings.FieldsSeq(host) {
		all = append(all, m.machines[address])
	}
	return all
}

// dial finds the first machine of a name on which a web server listens.
func (m *machine) dial(host string) *webServer {
	for _, to := range m.resolve(host) {
		if m.reaches(m, to) && to.web.listens() {
			return to.web
		}
	}
	return nil
}

// mount is a volume where a machine has it.
type mount struct {
	machine *machine
	volume  *volume
	missing bool // it is not attached
	hung    bool
}

var (
	errNotMounted = errors.New("not mounted")
	errHung       = errors.New("the mount does not answer")
	errNoRelease  = errors.New("no such release")
)

func (m *mount) check() error {
	switch {
	case m.missing:
		return errNotMounted
	case m.hung:
		return errHung
	}
	return nil
}

func (m *mount) executes(version string) error {
	if err := m.check(); err != nil {
		return err
	}
	if !m.volume.installed[version] {
		return errNoRelease
	}
	return nil
}

package sim

import (
	"errors"
	"maps"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/concourse"
	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/supervisor"
)

// work is something to do; job is where one kind of it is done. Both are those of work.go
// of the supervisor.
type work struct {
	what  string
	limit time.Duration
	try   func(*flight)
	done  func(supervisor.Memory) supervisor.Memory
	after func()
}

type job struct {
	attempt attempt
	work    work
	failure string
}

const (
	changeLimit  = 20 * time.Second
	volumeWork   = 30 * time.Minute
	serviceLimit = 2 * time.Minute
	retireLimit  = 20 * time.Second
	leaveLimit   = 5 * time.Minute
	parting      = 10 * time.Second
)

func (d *driver) job(kind string) *job {
	if d.jobs[kind] == nil {
		d.jobs[kind] = &job{}
	}
	return d.jobs[kind]
}

// do begins what is due, in an order that the seed chooses where the supervisor leaves it
// open.
func (d *driver) do(due supervisor.Due) {
	d.run("volume", d.changeVolume(due))
	d.run("hosts", d.nameTSA(due))
	kinds := []string{"web", "worker"}
	if d.unit.chance(50) {
		slices.Reverse(kinds)
	}
	tasks := map[string]supervisor.Task{"web": due.Web, "worker": due.Worker, "migration": due.Migrate}
	for _, kind := range append(kinds, "migration") {
		task := tasks[kind]
		if task.Verb == supervisor.Start && d.job(kind).attempt.flight == nil {
			task.At = d.unit.time()
			d.unit.files.memory = d.unit.files.memory.Begun(task)
		}
		d.run(kind, d.changeService(task))
	}
	d.run("retire", d.retireOther(due))
	d.run("prune", d.prune(due))
	d.run("leave", d.leaveCluster(due))
}

func (d *driver) run(kind string, w work) {
	j := d.job(kind)
	if j.attempt.flight == nil {
		if w.what != j.work.what {
			j.attempt.giveUp()
			j.failure = ""
		}
		if j.work = w; w.what == "" {
			return
		}
	}
	ended, err := j.attempt.poll(d, func(f *flight) {
		d.unit.after(w.limit, func() { f.end(errors.New("it took too long")) })
		w.try(f)
	})
	if err != nil {
		j.failure = err.Error()
	}
	if ended {
		finished := j.work
		d.unit.files.memory = finished.done(d.unit.files.memory)
		j.failure, j.work = "", work{}
		if finished.after != nil {
			finished.after()
		}
		return
	}
	if d.status.Stuck == "" && j.attempt.failed > 1 {
		d.status.Stuck = j.failure
	}
}

func (d *driver) busy() bool {
	for _, kind := range []string{"volume", "web", "worker", "migration"} {
		if d.job(kind).attempt.flight != nil {
			return true
		}
	}
	v := &d.volume
	return v.install.busy() || v.tidying.busy()
}

// onVolume is a call that ends after a while, with what the mount is by then. On one that
// hangs it waits, until it is given up.
func (d *driver) onVolume(f *flight, do func(*mount) error) {
	var try func()
	try = func() {
		m := d.unit.mount()
		switch err := m.check(); {
		case f.dead() || f.over:
		case f.cancelled:
			f.end(errCancelled)
		case errors.Is(err, errHung):
			d.unit.after(time.Second, try)
		case err != nil:
			f.end(err)
		default:
			f.end(do(m))
		}
	}
	d.unit.soon(50*time.Millisecond, 2*time.Second, try) // a release is read whole before it is pinned
}

func (d *driver) changeVolume(due supervisor.Due) work {
	if due.Activate == "" && due.Pin == "" {
		return work{}
	}
	return work{
		what: "activate " + due.Activate + " pin " + due.Pin, limit: volumeWork,
		try: func(f *flight) {
			before := d.unit.mount().volume.current()
			d.onVolume(f, func(m *mount) error {
				if version := due.Activate; version != "" {
					if !m.volume.installed[version] {
						return errNoRelease
					}
					m.volume.activate(d.unit.name, version, before)
				}
				if version := due.Pin; version != "" {
					if !m.volume.installed[version] {
						return errNoRelease
					}
					m.volume.pins[d.unit.name] = version
				}
				return nil
			})
		},
		done: func(m supervisor.Memory) supervisor.Memory {
			if due.Pin != "" {
				m.Running = due.Pin
			}
			return m
		},
	}
}

func (d *driver) nameTSA(due supervisor.Due) work {
	if due.TSA == "" {
		return work{}
	}
	return work{
		what: due.TSA, limit: changeLimit,
		try: func(f *flight) {
			d.unit.soon(time.Millisecond, 20*time.Millisecond, func() {
				if !f.dead() {
					d.unit.machine.hosts[concourse.TSAName] = due.TSA
				}
				f.end(nil)
			})
		},
		done: func(m supervisor.Memory) supervisor.Memory { return m },
	}
}

func (d *driver) changeService(t supervisor.Task) work {
	if t.Verb == "" {
		return work{}
	}
	machine := d.unit.machine
	t.At = d.unit.time()
	return work{
		what: string(t.Verb) + " " + t.Service.RestartDigest() + t.Service.ReloadDigest(), limit: serviceLimit,
		try: func(f *flight) {
			d.unit.soon(20*time.Millisecond, 400*time.Millisecond, func() {
				switch {
				case f.dead():
				case t.Verb == supervisor.Start:
					d.unit.files.journal++
					machine.define(t.Service)
					machine.restart(t.Service.Unit, f.end)
				case t.Verb == supervisor.Reload:
					machine.writeFiles(t.Service)
					machine.reload(t.Service.Unit, f.end)
				case t.Verb == supervisor.Land:
					d.land(f)
				default:
					machine.remove(t.Service.Unit, f.end)
				}
			})
		},
		done: func(m supervisor.Memory) supervisor.Memory { return d.unit.protocol.Did(m, t, d.spec) },
		after: func() {
			switch t.Verb {
			case supervisor.Land:
				d.workers.told = d.unit.now
				d.workers.listed.SetState(d.unit.worker(), concourse.Landing)
			case supervisor.Start, supervisor.Stop:
				if t.Service.Unit == concourse.MigrationUnit {
					d.migration.known = false
				} else {
					d.startedAnew(t.Service.Unit)
				}
			}
		},
	}
}

// land tells the worker to, where a web server answers.
func (d *driver) land(f *flight) {
	found := d.spec.Web != nil && d.unit.machine.web.serves()
	for _, address := range d.spec.Watch {
		host, _, _ := net.SplitHostPort(address)
		found = found || d.spec.Web == nil && d.unit.machine.dial(host).serves()
	}
	if !found {
		f.end(errSilent)
		return
	}
	d.unit.soon(5*time.Millisecond, 100*time.Millisecond, func() {
		if d.unit.files.journal++; !f.dead() && d.unit.machine.worker != nil {
			if d.spec.Worker != nil && !d.spec.Paused && !d.spec.Leaving {
				d.unit.judge.lands(d.unit)
			}
			d.unit.machine.worker.land()
		}
		f.end(nil)
	})
}

// retireOther has the web server of this unit forget a worker; that it could not is no
// failure.
func (d *driver) retireOther(due supervisor.Due) work {
	if due.Retire == "" {
		return work{}
	}
	return work{
		what: due.Retire, limit: retireLimit,
		try: func(f *flight) {
			d.unit.soon(100*time.Millisecond, time.Second, func() {
				d.unit.machine.web.retire(due.Retire, d.unit)
				f.end(nil)
			})
		},
		done: func(m supervisor.Memory) supervisor.Memory {
			m.Retire = slices.DeleteFunc(slices.Clone(m.Retire), func(unit string) bool { return unit == due.Retire })
			return m
		},
	}
}

func (d *driver) prune(due supervisor.Due) work {
	if due.Prune == "" {
		return work{}
	}
	return work{
		what: due.Prune, limit: retireLimit,
		try: func(f *flight) {
			d.unit.soon(100*time.Millisecond, time.Second, func() {
				if !d.unit.machine.web.serves() {
					f.end(errors.New("the web server does not answer"))
					return
				}
				if r := d.unit.ci.workers[due.Prune]; r != nil && (r.state == concourse.Stalled || r.state == concourse.Landed) {
					delete(d.unit.ci.workers, due.Prune)
				}
				f.end(nil)
			})
		},
		done:  func(m supervisor.Memory) supervisor.Memory { return m },
		after: func() { d.workers.listed.SetState(due.Prune, "") },
	}
}

// leaveCluster takes one of the steps in which a unit leaves. None of them can fail.
func (d *driver) leaveCluster(due supervisor.Due) work {
	step := func(what string, limit time.Duration, try func(*flight), done func(*supervisor.Memory)) work {
		return work{what: what, limit: limit, try: try, done: func(m supervisor.Memory) supervisor.Memory {
			m.Started = maps.Clone(m.Started)
			done(&m)
			return m
		}}
	}
	u := d.unit
	switch {
	case due.RetireSelf:
		return step("retire", retireLimit, func(f *flight) {
			u.soon(100*time.Millisecond, time.Second, func() {
				host, _, _ := strings.Cut(u.files.memory.TSAHost, ":")
				u.machine.dial(host).retire(u.name, u)
				f.end(nil)
			})
		}, func(m *supervisor.Memory) { m.Retired = true })
	case due.Part:
		return step("part", parting+time.Minute, func(f *flight) {
			u.after(parting, func() { f.end(nil) })
		}, func(m *supervisor.Memory) { m.Parted = true })
	case due.LeaveVolume:
		return step("leave the volume", leaveLimit, func(f *flight) {
			u.soon(100*time.Millisecond, 2*time.Second, func() {
				if m := u.mount(); m.check() == nil && !f.dead() {
					delete(m.volume.pins, u.name)
				}
				f.end(nil)
			})
		}, func(m *supervisor.Memory) { m.LeftVolume = true })
	}
	return work{}
}

// retire is `concourse retire-worker` through the TSA of a web server, with the key of a
// unit that may register. Any such key may ask for any worker.
func (s *webServer) retire(unit string, by *unit) {
	r := s.worksFor(concourse.WorkerName(unit), by)
	if r == nil {
		return
	}
	s.say("concourse", "%s is retiring, says %s", r.name, by.name)
	if r.state = "retiring"; r.worker == nil || r.worker.over || len(r.worker.builds) == 0 {
		delete(s.ci.workers, r.name)
	}
}

func (s *webServer) worksFor(name string, by *unit) *registration {
	if !s.serves() || !slices.Contains(s.keys, by.key()) {
		return nil
	}
	return s.ci.workers[name]
}

// reload has the web server read the keys that may register.
func (m *machine) reload(unit string, done func(error)) {
	m.soon(20*time.Millisecond, 300*time.Millisecond, func() {
		if m.web == nil {
			done(errors.New("it does not run"))
			return
		}
		m.web.reload()
		done(nil)
	})
}

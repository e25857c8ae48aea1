package sim

import (
	"reflect"
	"time"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/concourse"
	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/supervisor"
)

// driver plays supervisor.Supervisor: it has no decision of its own, but looks, asks the
// step, does what is due with the time that it takes, and wakes the charm, as the files of
// that package say, and with their limits.
type driver struct {
	unit      *unit
	installed bool // systemd starts it at boot
	charm     int  // revision that it was installed from
	up        bool
	paused    bool
	lives     int
	looking   bool // a look is under way that the mount holds up
	looks     bool // one is to come soon

	spec    supervisor.Spec
	status  supervisor.Status
	written *supervisor.Status
	read    int // which writing of the spec was read
	first   int // which was there at the start
	stale   bool

	volume    volumeView
	health    healthView
	workers   workersView
	schema    schemaView
	migration migrationView
	watched   map[string]*watched
	jobs      map[string]*job
	wake      waking
	asked     *question // the last one of the step, with its answer
}

// question is what the step was asked: equal questions have equal answers.
type question struct {
	spec   supervisor.Spec
	seen   supervisor.Seen
	memory supervisor.Memory
	due    supervisor.Due
}

const (
	interval = time.Second
	backoff  = 10 * time.Second
)

func (d *driver) pause(failed int) time.Duration {
	return min(interval<<min(failed-1, 16), backoff)
}

// install is that of a hook: it replaces a supervisor of another revision of the charm.
func (d *driver) install() {
	if d.installed && d.charm == d.unit.agent.remote.charm && d.up {
		return
	}
	d.stop()
	d.installed, d.charm = true, d.unit.agent.remote.charm
	d.start()
}

// remove stops it, and the services that it could not stop in time.
func (d *driver) remove(done func()) {
	d.stop()
	d.installed = false
	m := d.unit.machine
	delete(m.hosts, concourse.TSAName)
	m.remove(concourse.WorkerUnit, func(error) {
		m.remove(concourse.ServerUnit, func(error) { m.remove(concourse.MigrationUnit, func(error) { done() }) })
	})
}

func (d *driver) start() {
	if d.up || !d.installed {
		return
	}
	d.up = true
	d.lives++
	u := d.unit
	*d = driver{unit: u, installed: true, charm: d.charm, up: true, lives: d.lives, jobs: map[string]*job{}, watched: map[string]*watched{}}
	d.first, d.stale, d.read = u.files.written, true, -1
	d.every(u.between(100*time.Millisecond, interval))
}

func (d *driver) stop() {
	d.up = false
	d.lives++
}

// crash is the end of its process; systemd starts it again.
func (d *driver) crash() {
	d.stop()
	life := d.lives
	d.unit.after(2*time.Second, func() {
		if d.lives == life && d.unit.machine.on {
			d.start()
		}
	})
}

func (d *driver) every(wait time.Duration) {
	life := d.lives
	d.unit.after(wait, func() {
		if d.lives == life {
			d.every(interval)
			d.round()
		}
	})
}

// lookSoon does not wait for the next second.
func (d *driver) lookSoon() {
	if d.looks {
		return
	}
	d.looks = true
	life := d.lives
	d.unit.after(time.Millisecond, func() {
		if d.lives == life {
			d.looks = false
			d.round()
		}
	})
}

// round is one look. Where the mount hangs, it takes as long as a look may.
func (d *driver) round() {
	u := d.unit
	if d.looking || d.paused {
		return
	}
	d.status.Stuck = ""
	if !u.files.prepared {
		u.files.prepared = true
	}
	d.status.WorkerKey = u.key()
	d.readSpec()
	if d.spec.Unit == "" {
		d.report()
		return
	}
	if !u.mount().hung {
		d.look(u.mount().check())
		return
	}
	d.looking = true
	life := d.lives
	u.after(volumeLimit, func() {
		if d.lives == life {
			d.looking = false
			d.look(errHung)
		}
	})
}

// readSpec takes over a changed spec.
func (d *driver) readSpec() {
	f := &d.unit.files
	d.stale = d.stale && f.written == d.first
	if d.read == f.written {
		return
	}
	d.read = f.written
	if old := d.spec; !reflect.DeepEqual(old, f.spec) {
		f.memory = d.unit.protocol.Note(f.memory, f.spec)
		d.spec = f.spec
		d.acceptVolume(old)
	}
}

// look does the rest of a round, once it is known what the volume is.
func (d *driver) look(err error) {
	looked := d.lookAtVolume(err)
	d.lookForNewest()
	seen := d.lookAtReleases()
	d.collect()
	d.lookAtWatched()
	if d.spec.TSA != "" && d.unit.machine.hosts[concourse.TSAName] == d.spec.TSA {
		seen.TSA = d.spec.TSA
	}
	d.lookAtSchema(&seen)
	d.lookAtServices(&seen)
	d.lookAtMigration(&seen)
	if looked {
		seen.Busy, seen.WebChanges, seen.Stale = d.busy(), d.job("web").attempt.flight != nil, d.stale
		due := d.ask(seen)
		d.unit.files.memory.Stays = due.Stays
		d.status.Note(d.spec, seen, d.unit.files.memory, due)
		d.do(due)
	} else {
		d.do(supervisor.Due{})
	}
	d.report()
}

// ask asks the step. It is pure, so the same is not asked twice.
func (d *driver) ask(seen supervisor.Seen) supervisor.Due {
	memory := d.unit.files.memory
	if q := d.asked; q != nil && reflect.DeepEqual(q.seen, seen) && reflect.DeepEqual(q.memory, memory) && reflect.DeepEqual(q.spec, d.spec) {
		return q.due
	}
	due := d.unit.protocol.Next(paths, d.spec, seen, memory)
	d.asked = &question{d.spec, seen, memory, due}
	return due
}

// report writes the status, and wakes the charm when there is news.
func (d *driver) report() {
	if d.written == nil || *d.written != d.status {
		status := d.status
		d.written, d.unit.files.status = &status, status
	}
	d.wake.consider(d)
}

// waking brings news to the charm, one hook at a time.
type waking struct {
	attempt attempt
	pending supervisor.Status
	told    *supervisor.Status
	at      time.Duration
	moved   bool
}

const (
	wakeLimit    = 10 * time.Minute
	progressWait = 5 * time.Second
)

func (k *waking) consider(d *driver) {
	u := d.unit
	if k.attempt.flight == nil {
		if !k.due(d) {
			return
		}
		k.pending, k.moved = d.status, false
	}
	k.moved = k.moved || !quiet(k.pending, d.status)
	done, err := k.attempt.poll(d, func(f *flight) {
		if !u.agent.up {
			u.after(100*time.Millisecond, func() { f.end(errNoAgent) })
			return
		}
		u.agent.commands = append(u.agent.commands, command{f.end})
		u.after(wakeLimit, func() { f.end(errNoAgent) })
		u.after(0, u.agent.once(u.agent.step))
	})
	if err != nil {
		k.told, k.at = nil, u.now
	}
	if done {
		told := k.pending
		if k.told, k.at = &told, u.now; k.moved {
			k.told = nil
		}
	}
}

// quiet tells whether there is no news but progress.
func quiet(a, b supervisor.Status) bool {
	b.Percent = a.Percent
	b.Migration.Done, b.Migration.Minutes = a.Migration.Done, a.Migration.Minutes
	return a == b
}

func (k *waking) due(d *driver) bool {
	if k.told == nil || d.unit.files.journal > 0 {
		return true
	}
	again := d.spec.Again || d.status != *k.told
	return !quiet(*k.told, d.status) || again && d.unit.now-k.at >= progressWait
}

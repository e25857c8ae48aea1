package sim

import (
	"errors"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/concourse"
	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/supervisor"
)

// watched is a web server of any unit, as it is seen from here: watch.go of the supervisor.
type watched struct {
	ask                    attempt
	well                   bool // how the question under way will be answered
	asked, answered, alive time.Duration
}

const (
	watchEvery = 5 * time.Second
	absence    = 20 * time.Second
	takeUp     = 30 * time.Second
)

var errSilent = errors.New("nothing answers")

func (d *driver) lookAtWatched() {
	for _, address := range sortedKeys(d.watched) {
		if w := d.watched[address]; !slices.Contains(d.spec.Watch, address) {
			if w.ask.giveUp(); !w.ask.busy() {
				delete(d.watched, address)
			}
		}
	}
	var answering, silent []string
	for _, address := range d.spec.Watch {
		w := d.watched[address]
		if w == nil {
			w = &watched{alive: d.unit.now}
			d.watched[address] = w
		}
		d.watch(address, w)
		if w.answered > 0 && d.unit.now-w.answered < absence {
			answering = append(answering, address)
		}
		if d.spec.Silence > 0 && d.unit.now-w.alive > d.spec.Silence {
			silent = append(silent, address)
		}
	}
	d.status.Answering, d.status.Silent = strings.Join(answering, " "), strings.Join(silent, " ")
}

func (d *driver) watch(address string, w *watched) {
	if w.asked > 0 && d.unit.now-w.asked < watchEvery {
		return
	}
	done, err := w.ask.poll(d, func(f *flight) {
		host, _, _ := net.SplitHostPort(address)
		d.unit.soon(5*time.Millisecond, 300*time.Millisecond, func() {
			to := d.unit.machine.dial(host)
			if to == nil {
				d.unit.after(2*time.Second, func() { f.end(errSilent) })
				return
			}
			w.well = to.serves()
			f.end(nil)
		})
	})
	if err != nil || !done {
		return
	}
	w.asked, w.alive = d.unit.now, d.unit.now
	if w.well {
		w.answered = w.asked
	}
}

// workersView is what the web server of this unit says of the workers: workers.go of the
// supervisor.
type workersView struct {
	list         attempt
	listed       map[string]string // the list under way
	listedHere   map[string]bool
	asked        time.Duration
	states       map[string]string
	here         map[string]bool // have registered with this web server
	absent       string
	since, lands time.Duration
	took         time.Duration
}

const (
	listEvery = 10 * time.Second
	listOften = 2 * time.Second
	awaited   = 2 * time.Minute
)

func (d *driver) lookAtWorkers(seen *supervisor.Seen) {
	v := &d.workers
	if d.spec.Web == nil {
		v.states, d.status.Workers, v.lands, v.took = nil, "", 0, 0
		return
	}
	if seen.WebServes && (v.asked == 0 || d.unit.now-v.asked >= d.listInterval()) {
		d.listWorkers()
	}
	if d.unit.now-v.asked > absence {
		v.states, d.status.Workers = nil, ""
	}
	if !d.spec.Land {
		v.lands, v.took = 0, 0
	} else if v.lands == 0 {
		v.lands = d.unit.now
	}
	if d.spec.Land && v.took == 0 && v.here[d.unit.worker()] && seen.WebServes {
		v.took = d.unit.now
	}
	if v.lands > 0 {
		seen.LandedFor = d.unit.now - v.lands
	}
	seen.Workers, seen.Here = v.states, v.took > 0 && d.unit.now-v.took >= takeUp
}

func (d *driver) listWorkers() {
	v, here := &d.workers, d.spec.Web.Address
	done, _ := v.list.poll(d, func(f *flight) {
		d.unit.soon(10*time.Millisecond, 500*time.Millisecond, func() {
			if !d.unit.machine.web.serves() {
				f.end(errSilent)
				return
			}
			v.listed, v.listedHere = map[string]string{}, map[string]bool{}
			for name, r := range d.unit.ci.workers {
				v.listed[name], v.listedHere[name] = r.state, r.at == here
			}
			f.end(nil)
		})
	})
	if !done {
		return
	}
	v.asked, v.states, v.here = d.unit.now, v.listed, v.listedHere
	var running, absent []string
	for _, unit := range d.spec.Members {
		name := concourse.WorkerName(unit)
		if v.states[name] == concourse.Running && (v.here[name] || d.spec.Worker != nil) {
			running = append(running, name)
		} else if unit != d.spec.Unit || d.spec.Worker != nil {
			absent = append(absent, name)
		}
	}
	slices.Sort(running)
	d.status.Workers = strings.Join(running, " ")
	if missing := strings.Join(absent, " "); missing != v.absent {
		v.absent, v.since = missing, d.unit.now
	}
}

func (d *driver) listInterval() time.Duration {
	if v := &d.workers; v.absent != "" && d.unit.now-v.since < awaited || d.spec.Land {
		return listOften
	}
	return listEvery
}

// setState changes what the list says of a worker, until it is read again. The step has
// seen the list as it was.
func (v *workersView) setState(name, state string) {
	states := map[string]string{}
	for other, s := range v.states {
		states[other] = s
	}
	if delete(states, name); state != "" {
		states[name] = state
	}
	if v.states != nil {
		v.states = states
	}
}

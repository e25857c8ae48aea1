package sim

import (
	"errors"
	"net"
	"slices"
	"strconv"
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
		at, _, _ := strings.Cut(address, "#")
		host, _, _ := net.SplitHostPort(at)
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

// workersView is what the supervisor knows of the workers: workers.go of that package.
type workersView struct {
	list   attempt
	answer supervisor.Listing // of the list under way
	listed supervisor.Listed
	lands  time.Duration
	told   time.Duration // when the worker was told last; zero for never
	known  time.Duration // until when it was not supervisor.Unlisted
	web    time.Duration // until when a web server has answered
}

const listEvery = 10 * time.Second

// time is that of the virtual clock, as the supervisor has it.
func (c *clock) time() time.Time { return time.Unix(0, int64(c.now)).UTC() }

func (d *driver) lookAtWorkers(seen *supervisor.Seen) {
	v, now := &d.workers, d.unit.time()
	if v.listed.Forget(d.health.web.state.PID) {
		v.list.giveUp()
	}
	if d.spec.Web != nil && seen.WebServes && v.listed.Due(now, d.spec, listEvery) {
		d.listWorkers()
	}
	v.listed.Tell(now, d.spec, absence, takeUp, seen, &d.status)
	if !d.spec.Land {
		v.lands = 0
	} else if v.lands == 0 {
		v.lands = d.unit.now
	}
	if d.spec.Turn != supervisor.Unlisted || v.known == 0 {
		v.known = d.unit.now
	}
	seen.UnlistedFor = d.unit.now - v.known
	if seen.ToldAgo = d.unit.now - v.told; v.told == 0 {
		seen.ToldAgo = time.Hour
	}
	if seen.WebServes || d.spec.Web == nil && d.status.Answering != "" || v.web == 0 {
		v.web = d.unit.now
	}
	seen.Webless = d.unit.now - v.web
	seen.LandedFor = d.spec.LandedFor(now, time.Unix(0, int64(v.lands)).UTC(), d.unit.files.memory)
}

func (d *driver) listWorkers() {
	v := &d.workers
	done, _ := v.list.poll(d, func(f *flight) {
		d.unit.soon(10*time.Millisecond, 500*time.Millisecond, func() {
			if !d.unit.machine.web.serves() {
				f.end(errSilent)
				return
			}
			v.answer = supervisor.Listing{Idle: d.spec.Lands() && len(d.unit.ci.builds) == 0}
			for _, name := range sortedKeys(d.unit.ci.workers) {
				r := d.unit.ci.workers[name]
				listed := concourse.ListedWorker{Name: name, State: r.state, Version: r.version, Began: r.began}
				if r.at != "" {
					listed.Address = net.JoinHostPort(r.at, strconv.Itoa(r.port))
				}
				v.answer.Workers = append(v.answer.Workers, listed)
			}
			f.end(nil)
		})
	})
	if done {
		v.listed.Read(d.unit.time(), d.spec, v.answer)
	}
}

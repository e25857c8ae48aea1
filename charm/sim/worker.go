package sim

import (
	"slices"
	"strings"
	"time"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/concourse"
)

// worker is a process of concourse worker.
type worker struct {
	*machine
	name, version string
	tsa           string // where it registers, host:port
	hostKey, key  string
	began         int64
	failing       bool // it exits soon
	up            bool // its parts answer
	landing       bool
	stopping      bool
	over          bool
	to            *webServer // with which it is registered now
	builds        []*build
}

func newWorker(m *machine, version string, env map[string]string) *worker {
	return &worker{
		machine: m, name: env["CONCOURSE_NAME"], version: version, tsa: env["CONCOURSE_TSA_HOST"],
		// On a stock Ubuntu the machine's own resolver has the port.
		failing: env["CONCOURSE_CONTAINERD_DNS_PROXY_ENABLE"] == "true",
		began:   m.time().Unix(), hostKey: strings.TrimSpace(m.files[env["CONCOURSE_TSA_PUBLIC_KEY"]]), key: m.unit.key(),
	}
}

func (w *worker) begin() {
	w.soon(time.Second, 4*time.Second, func() {
		switch {
		case w.over:
		case w.failing:
			w.end("it cannot listen at port 53")
			w.failed(concourse.WorkerUnit)
		default:
			w.up = true
			w.beat()
		}
	})
}

// beat registers, and looks every 5 s whether that still holds; where it does not, it
// dials anew. A worker that lands and finds no TSA then ends, with its builds.
func (w *worker) beat() {
	if w.over {
		return
	}
	switch host, _, _ := strings.Cut(w.tsa, ":"); {
	case w.connected():
		w.ci.workers[w.name].heard = w.now
	case w.stopping:
	default:
		w.to = nil
		if to := w.dial(host); to != nil && to.registers(w) {
			w.register(to)
		} else if w.landing {
			w.end("it lands and finds no TSA")
			w.exited(concourse.WorkerUnit)
			return
		}
	}
	w.after(5*time.Second, w.beat)
}

func (w *worker) connected() bool {
	r := w.ci.workers[w.name]
	return w.to != nil && w.to.serves() && w.reaches(w.machine, w.to.machine) && r != nil && r.worker == w
}

// register makes a worker running: that it was told to land is forgotten.
func (w *worker) register(to *webServer) {
	w.to = to
	r := w.ci.workers[w.name]
	if r == nil {
		r = &registration{name: w.name}
		w.ci.workers[w.name] = r
	}
	r.state, r.version, r.at, r.heard, r.worker = concourse.Running, w.version, to.address, w.now, w
	w.landing, r.began = false, w.began
	w.ci.ports++
	r.port = w.ci.ports
	delete(w.judge.away, w.unit)
	w.say(w.unit.name, "the worker is registered with %s", to.unit.name)
}

// land is SIGUSR1: it takes no new builds, and ends when a web server says that the last
// has ended. It tells that to a TSA at once, and ends with its builds if there is none.
func (w *worker) land() {
	host, _, _ := strings.Cut(w.tsa, ":")
	r, to := w.ci.workers[w.name], w.dial(host)
	if r == nil || to == nil || !to.serves() {
		w.end("it is told to land and finds no TSA")
		w.exited(concourse.WorkerUnit)
		return
	}
	w.landing = true
	if r.state != concourse.Landed {
		r.state = concourse.Landing
	}
}

func (w *worker) landed() {
	if w.over {
		return
	}
	w.end("it has landed")
	w.exited(concourse.WorkerUnit)
}

func (w *worker) end(why string) {
	if w.over {
		return
	}
	w.stopping = true
	w.loseBuilds(why)
	w.over, w.up, w.to = true, false, nil
	w.machine.worker = nil
	w.say(w.unit.name, "the worker ends: %s", why)
}

func (w *worker) loseBuilds(why string) {
	for _, b := range slices.Clone(w.builds) {
		w.judge.loses(w, b, why)
		w.ci.finish(b)
	}
}

package sim

import (
	"cmp"
	"strings"
	"time"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/concourse"
	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/supervisor"
)

// healthView is what the supervisor knows of the services: health.go of that package.
type healthView struct {
	rounds      int
	try         string
	web, worker health
}

type health struct {
	started supervisor.Started
	asked   time.Duration
	known   bool // systemd was asked
	state   concourse.State
	missed  int
	answers bool
	turned  time.Duration

	ended int
	exit  string
}

const (
	steady      = 5
	patience    = 3
	askSystemd  = time.Minute
	askLanding  = 5 * time.Second
	endless     = 3
	stable      = time.Minute
	answerLimit = 3 * time.Minute
)

func (d *driver) lookAtServices(seen *supervisor.Seen) {
	h, m := &d.health, d.unit.machine
	h.rounds++
	d.lookAtService(concourse.ServerUnit, d.spec.Web != nil, func() (string, bool) {
		judged := d.schema.failure != "" || d.schema.answered > 0
		if !m.web.serves() || !h.web.answers && !judged {
			return "", false
		}
		return m.web.version, true
	})
	d.lookAtService(concourse.WorkerUnit, d.spec.Worker != nil, func() (string, bool) {
		if m.worker == nil || !m.worker.up || m.worker.stopping {
			return "", false
		}
		return m.worker.version, true
	})
	if h.try != d.spec.Try && !h.web.answers {
		h.web.turned = d.unit.now
	}
	h.try, d.status.Overdue = d.spec.Try, ""
	if version := h.web.started.Version; version != "" && !h.web.answers && d.unit.now-h.web.turned > answerLimit {
		d.status.Overdue = strings.TrimSpace(version + " " + d.spec.Try)
	}
	seen.Running = map[string]bool{concourse.ServerUnit: h.web.state.Running, concourse.WorkerUnit: h.worker.state.Running}
	seen.WebServes = d.status.Web.Version != ""
	d.lookAtWorkers(seen)
}

func (d *driver) service(unit string) (*health, *supervisor.Answer) {
	if unit == concourse.ServerUnit {
		return &d.health.web, &d.status.Web
	}
	return &d.health.worker, &d.status.Worker
}

func (d *driver) lookAtService(unit string, wanted bool, ask func() (version string, ok bool)) {
	h, answer := d.service(unit)
	started, runs := d.unit.files.memory.Started[unit]
	told := !started.Told.IsZero()
	started = supervisor.Started{Is: started.Is, Version: started.Version}
	if runs = runs && wanted; !runs {
		started = supervisor.Started{}
	}
	if h.started != started {
		*h, *answer = health{started: started, turned: d.unit.now}, supervisor.Answer{Is: started.Is}
	}
	pause := askSystemd
	if (d.spec.Land || told) && unit == concourse.WorkerUnit {
		pause = askLanding
	}
	if well := !runs || h.answers && h.missed == 0; !well || !h.known || d.unit.now-h.asked >= pause {
		h.note(d.unit.now, d.unit.machine.state(unit))
	}
	if !runs {
		return
	}
	if answer.Version != started.Version || h.missed > 0 || d.health.rounds%steady == 0 {
		check(h, answer, ask)
	}
	if answers := answer.Version == started.Version; answers != h.answers {
		h.answers, h.turned = answers, d.unit.now
	}
	switch {
	case h.answers:
		if answer.Exits = ""; d.unit.now-h.turned >= stable {
			h.ended = 0
		}
	case h.ended >= endless:
		answer.Exits = "(" + cmp.Or(h.exit, "for an unknown reason") + ")"
	}
}

func check(h *health, answer *supervisor.Answer, ask func() (string, bool)) {
	version, ok := ask()
	if ok {
		answer.Version, answer.Executes, h.missed = version, "", 0
		return
	}
	if h.missed++; h.missed >= patience {
		answer.Version, answer.Executes = "", ""
	}
}

func (h *health) note(now time.Duration, state concourse.State) {
	first := !h.known
	if !first {
		h.ended += max(0, state.Restarts-h.state.Restarts)
	}
	if !state.Running && (first || h.state.Running) {
		h.ended++
	}
	h.exit = cmp.Or(state.Exit, h.exit)
	h.asked, h.known, h.state = now, true, state
}

// startedAnew forgets what was known of a service's health.
func (d *driver) startedAnew(unit string) {
	h, answer := d.service(unit)
	h.known, h.state, h.missed = false, concourse.State{}, 0
	answer.Version, answer.Executes = "", ""
}

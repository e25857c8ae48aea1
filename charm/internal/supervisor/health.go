package supervisor

import (
	"cmp"
	"context"
	"errors"
	"strings"
	"time"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/concourse"
	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/options"
)

// serviceView is what the supervisor knows of the services from look to look.
type serviceView struct {
	rounds      int    // spaces the checks
	try         string // of the spec before
	web, worker health
}

// health is what is known of a service since it was started as it is described now.
type health struct {
	started Started // what, and from which version
	asked   time.Time
	state   concourse.State // when systemd was asked
	missed  int             // checks in a row
	answers bool
	turned  time.Time // when it began, or ceased, to answer

	ended  int    // how often, since it has answered for a while
	exit   string // how it ended last
	words  string // its last words
	quoted time.Time
}

// steady spaces the health checks of services that answered last time: a
// change still shows within seconds, and no access log fills up.
const steady = 5

// patience is how many checks in a row a service must miss to count as down: one
// that is busy for a moment is not.
const patience = 3

// askSystemd is how often systemd is asked about services that answer: they run.
const askSystemd = time.Minute

// askLanding is how often about a worker that is to end by itself.
const askLanding = 5 * time.Second

// endless is how often a service ends, without having answered for a while, that does so
// again and again.
const endless = 3

// askLimit bounds a question to a service, or about it.
const askLimit = 2 * time.Second

func (s *Supervisor) lookAtServices(ctx context.Context, seen *Seen) error {
	v := &s.services
	v.rounds++
	web := func(ctx context.Context) (string, error) {
		if !v.web.answers && !s.schema.judged(v.web.started.Version) {
			return "", errors.New("what it says counts only with its schema")
		}
		return concourse.WebVersion(ctx, s.Client, s.spec.Web.Port)
	}
	worker := func(ctx context.Context) (string, error) { // it does not say its version
		return v.worker.started.Version, concourse.WorkerHealthy(ctx, s.Client, s.WorkerPort)
	}
	if err := s.lookAtService(ctx, concourse.ServerUnit, s.spec.Web != nil, web); err != nil {
		return err
	}
	if err := s.lookAtService(ctx, concourse.WorkerUnit, s.spec.Worker != nil, worker); err != nil {
		return err
	}
	if v.try != s.spec.Try && !v.web.answers {
		v.web.turned = time.Now()
	}
	v.try, s.status.Overdue = s.spec.Try, ""
	if version := v.web.started.Version; version != "" && !v.web.answers && time.Since(v.web.turned) > s.Deadline {
		s.status.Overdue = strings.TrimSpace(version + " " + s.spec.Try)
	}
	seen.Running = map[string]bool{concourse.ServerUnit: v.web.state.Running, concourse.WorkerUnit: v.worker.state.Running}
	seen.WebServes, seen.Works = s.status.Web.Version != "", s.status.Worker.Version != ""
	s.lookAtWorkers(ctx, seen)
	return nil
}

// service returns where the health of a service is kept, and what is said of it.
func (s *Supervisor) service(unit string) (*health, *Answer) {
	if unit == concourse.ServerUnit {
		return &s.services.web, &s.status.Web
	}
	return &s.services.worker, &s.status.Worker
}

// lookAtService asks a service, and systemd about it.
func (s *Supervisor) lookAtService(ctx context.Context, unit string, wanted bool, ask func(context.Context) (string, error)) error {
	h, answer := s.service(unit)
	started, runs := s.memory.Started[unit]
	told := !started.Told.IsZero()
	started = Started{Is: started.Is, Version: started.Version}
	if runs = runs && wanted; !runs {
		started = Started{}
	}
	if h.started != started {
		*h, *answer = health{started: started, turned: time.Now()}, Answer{Is: started.Is}
	}
	// A question to systemd costs a process.
	pause := askSystemd
	if (s.spec.Land || told) && unit == concourse.WorkerUnit {
		pause = askLanding
	}
	if well := !runs || h.answers && h.missed == 0; !well || time.Since(h.asked) >= pause {
		state, err := s.System.State(ctx, unit)
		if err != nil {
			return err
		}
		h.note(state)
	}
	if !runs {
		return nil
	}
	if answer.Version != started.Version || h.missed > 0 || s.services.rounds%steady == 0 {
		s.check(ctx, h, answer, ask)
	}
	if answers := answer.Version == started.Version; answers != h.answers {
		h.answers, h.turned = answers, time.Now()
	}
	s.judgeEnds(ctx, unit, h, answer)
	return nil
}

// check asks a service once, in a time of its own. What a process says counts only if it
// executes the release of that version: another one may have its port, or its place.
func (s *Supervisor) check(ctx context.Context, h *health, answer *Answer, ask func(context.Context) (string, error)) {
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	executes := ""
	version, err := ask(ctx)
	if err == nil {
		executes, err = s.System.Executable(h.state.PID)
	}
	executed := concourse.VersionOf(executes)
	if err == nil && executed == version {
		answer.Version, answer.Executes, h.missed = version, "", 0
		return
	}
	// Which error it is does not matter.
	if h.missed++; h.missed < patience {
		return
	}
	if answer.Version = ""; executed == h.started.Version {
		executes = ""
	}
	answer.Executes = executes
}

// note counts how often a service has ended: systemd starts one that has failed by
// itself, and the supervisor any other.
func (h *health) note(state concourse.State) {
	first := h.asked.IsZero()
	if !first {
		h.ended += max(0, state.Restarts-h.state.Restarts)
	}
	if !state.Running && (first || h.state.Running) {
		h.ended++
	}
	h.exit = cmp.Or(state.Exit, h.exit)
	h.asked, h.state = time.Now(), state
}

// judgeEnds says of a service that ends again and again how it does so. One that has
// answered for a while may end once more.
func (s *Supervisor) judgeEnds(ctx context.Context, unit string, h *health, answer *Answer) {
	switch {
	case h.answers:
		if answer.Exits, h.quoted = "", (time.Time{}); time.Since(h.turned) >= s.Stable {
			h.ended = 0
		}
		return
	case h.ended < endless:
		return
	}
	if time.Since(h.quoted) >= askSystemd {
		ctx, cancel := context.WithTimeout(ctx, askLimit)
		defer cancel()
		words, err := s.System.LastWords(ctx, unit)
		if err != nil {
			s.Log.Warn("cannot read the last words", "unit", unit, "error", err)
		}
		var secrets []string
		if s.spec.Web != nil {
			secrets = s.spec.Web.Secrets()
		}
		if s.spec.Worker != nil {
			secrets = append(secrets, options.Secrets(s.spec.Worker.Options)...)
		}
		h.words, h.quoted = concourse.Quote(words, secrets...), time.Now()
	}
	answer.Exits = "(" + cmp.Or(h.exit, "for an unknown reason") + ")"
	if h.words != "" {
		answer.Exits += ": " + h.words
	}
}

// startedAnew forgets what was known of a service's health: its answers were those of
// another process. How often it has ended stays.
func (s *Supervisor) startedAnew(unit string) {
	h, answer := s.service(unit)
	h.asked, h.state, h.missed = time.Time{}, concourse.State{}, 0
	answer.Version, answer.Executes = "", ""
}

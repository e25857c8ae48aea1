package supervisor

import (
	"context"
	"time"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/concourse"
)

// serviceView is what the supervisor knows of the services from look to look.
type serviceView struct {
	running                 map[string]bool // by systemd unit
	asked                   time.Time       // when systemd was asked last
	webMissed, workerMissed int             // checks in a row
	web, worker             Started         // of which the answers are
	silent                  time.Time       // since when the web server owes an answer
	rounds                  int             // spaces the checks
}

// steady spaces the health checks of services that answered last time: a
// change still shows within seconds, and no access log fills up.
const steady = 5

// patience is how many checks in a row a service must miss to count as down: one
// that is busy for a moment is not.
const patience = 3

// askSystemd is how often systemd is asked about services that answer: they run.
const askSystemd = time.Minute

func (s *Supervisor) lookAtServices(ctx context.Context, seen *Seen) error {
	v := &s.services
	v.rounds++
	s.lookAtWeb(ctx)
	s.lookAtWorker(ctx)
	// A question costs a process.
	well := (s.spec.Web == nil || s.status.Web.Version != "") && (s.spec.Worker == nil || s.status.Worker.Version != "")
	if v.running == nil || !well || time.Since(v.asked) >= askSystemd {
		running := map[string]bool{}
		for _, unit := range []string{concourse.ServerUnit, concourse.WorkerUnit} {
			var err error
			if running[unit], err = s.System.Running(ctx, unit); err != nil {
				return err
			}
		}
		v.running, v.asked = running, time.Now()
	}
	seen.Running, seen.WebServes = v.running, s.status.Web.Version != ""
	s.lookAtWorkers(ctx, seen)
	return nil
}

func (s *Supervisor) lookAtWeb(ctx context.Context) {
	v := &s.services
	started, runs := s.memory.Started[concourse.ServerUnit]
	web := &s.status.Web
	if s.spec.Web == nil || !runs {
		*web, s.status.Overdue, v.silent = Answer{}, "", time.Time{}
		return
	}
	started.Restart, started.Reload = "", ""
	if v.web != started {
		*web, v.web, v.webMissed, v.silent, s.status.Overdue = Answer{Is: started.Is}, started, 0, time.Time{}, ""
	}
	version := started.Version
	if web.Version != version || v.webMissed > 0 || v.rounds%steady == 0 {
		check(ctx, &web.Version, &v.webMissed, func(ctx context.Context) (string, error) {
			return concourse.WebVersion(ctx, s.Client, s.spec.Web.Port)
		})
	}
	switch {
	case web.Version == version:
		v.silent, s.status.Overdue = time.Time{}, ""
	case v.silent.IsZero():
		v.silent = time.Now()
	case time.Since(v.silent) > s.Deadline:
		s.status.Overdue = version
	}
}

func (s *Supervisor) lookAtWorker(ctx context.Context) {
	v := &s.services
	started, runs := s.memory.Started[concourse.WorkerUnit]
	worker := &s.status.Worker
	if s.spec.Worker == nil || !runs {
		*worker = Answer{}
		return
	}
	started.Restart, started.Reload = "", ""
	if v.worker != started {
		*worker, v.worker, v.workerMissed = Answer{Is: started.Is}, started, 0
	}
	version := started.Version
	if worker.Version != version || v.workerMissed > 0 || v.rounds%steady == 0 {
		check(ctx, &worker.Version, &v.workerMissed, func(ctx context.Context) (string, error) {
			return version, concourse.WorkerHealthy(ctx, s.Client, s.WorkerPort)
		})
	}
}

// startedAnew forgets what was known of a service's health: its answers were those of
// another process.
func (s *Supervisor) startedAnew(unit string) {
	s.services.running = nil
	if unit == concourse.ServerUnit {
		s.services.web = Started{}
	} else {
		s.services.worker = Started{}
	}
}

// check asks a service once, in a time of its own.
func check(ctx context.Context, answer *string, missed *int, ask func(context.Context) (string, error)) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	got, err := ask(ctx)
	if err == nil {
		*answer, *missed = got, 0
		return
	}
	// Which error it is does not matter.
	if *missed++; *missed >= patience {
		*answer = ""
	}
}

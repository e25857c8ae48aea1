package supervisor

import (
	"context"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/concourse"
)

// workersView is what the web server of this unit says of the workers, from look to look.
type workersView struct {
	api    *concourse.API // of the web server that was described last
	apiOf  concourse.Web
	list   attempt[[]concourse.ListedWorker]
	asked  time.Time         // when it has answered last
	states map[string]string // by name
	here   map[string]bool   // names of those that have registered with this web server
	absent string            // units of the application whose workers do not run
	since  time.Time         // when the absent ones became these
	lands  time.Time         // since when this unit's worker is to land
	took   time.Time         // since when it is registered here, for that
}

// While somebody is awaited the workers are listed oftener; one that is off for long is
// not awaited.
const (
	listOften = 2 * time.Second
	awaited   = 2 * time.Minute
)

// lookAtWorkers lists the workers every now and then, where the web server is.
func (s *Supervisor) lookAtWorkers(ctx context.Context, seen *Seen) {
	v := &s.workers
	if s.spec.Web == nil {
		v.states, s.status.Workers, v.lands, v.took = nil, "", time.Time{}, time.Time{}
		return
	}
	if web := *s.spec.Web; v.api == nil || v.apiOf != web {
		v.api, v.apiOf = concourse.NewAPI(s.Client, web), web
		v.list.giveUp()
	}
	if seen.WebServes && time.Since(v.asked) >= s.listInterval() {
		s.listWorkers(ctx)
	}
	if time.Since(v.asked) > s.Absence {
		v.states, s.status.Workers = nil, ""
	}
	if !s.spec.Land {
		v.lands, v.took = time.Time{}, time.Time{}
	} else if v.lands.IsZero() {
		v.lands = time.Now()
	}
	if s.spec.Land && v.took.IsZero() && v.here[concourse.WorkerName(s.spec.Unit)] && seen.WebServes {
		v.took = time.Now()
	}
	if !v.lands.IsZero() {
		seen.LandedFor = time.Since(v.lands)
	}
	seen.Workers, seen.Here = v.states, !v.took.IsZero() && time.Since(v.took) >= s.TakeUp
}

func (s *Supervisor) listWorkers(ctx context.Context) {
	v := &s.workers
	workers, done, err := v.list.poll(ctx, s, v.api.Workers)
	if err != nil {
		s.Log.Warn("cannot list workers", "error", err)
	}
	if !done {
		return
	}
	v.asked, v.states, v.here = time.Now(), map[string]string{}, map[string]bool{}
	var running, absent []string
	for _, w := range workers {
		host, _, _ := net.SplitHostPort(w.Address) // none for one that has landed
		v.states[w.Name], v.here[w.Name] = w.State, host == s.spec.Web.Address
	}
	for _, unit := range s.spec.Members {
		name := concourse.WorkerName(unit)
		// One that has registered with the web server before this one runs in name only.
		// Where each unit has both, there are several web servers.
		if v.states[name] == concourse.Running && (v.here[name] || s.spec.Worker != nil) {
			running = append(running, name)
		} else if unit != s.spec.Unit || s.spec.Worker != nil {
			absent = append(absent, name)
		}
	}
	slices.Sort(running)
	s.status.Workers = strings.Join(running, " ")
	if missing := strings.Join(absent, " "); missing != v.absent {
		v.absent, v.since = missing, time.Now()
	}
}

func (s *Supervisor) listInterval() time.Duration {
	if v := &s.workers; v.absent != "" && time.Since(v.since) < awaited || s.spec.Land {
		return min(listOften, s.Workers)
	}
	return s.Workers
}

package scenarios

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/cluster"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/judge"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/observation"
)

// buildsPerWorker bounds the attempts to get a build onto every worker.
// Concourse chooses among equal workers by chance: with three of them, one is
// missed by 36 builds once in a million runs.
const buildsPerWorker = 12

// login logs in at the web server that an observation has found, with the password that
// the charm made and the release's own fly. From then on observations have the workers,
// and builds run beside whatever the scenario does, one after another, until it calls
// quiet. A scenario does so before what loses builds, or leaves no worker.
func (r *run) login(o observation.Observation, release Release) {
	r.Helper()
	r.quiet()
	require.NotNil(r, o.Web, "no web server runs")
	admin, err := r.c.RunAction(r.ctx, r.leader(o.Status), "get-admin-password", nil)
	require.NoError(r, err)
	if r.fly == nil {
		r.fly = &fly{home: r.TempDir()}
		r.in.Record.Workers(r.fly.workers)
	}
	require.NoError(r, r.fly.login(r.ctx, release.Fly, o.Web.URL, admin["username"], admin["password"]))
	r.quiet = r.in.Record.Beside(r.buildsBeside)
}

// deployed deploys units on a volume, logs in at their web server and returns their status.
func (r *run) deployed(units int) cluster.Status {
	r.Helper()
	r.deploy(units, nil)
	held := r.active(units, r.in.From.Version)
	r.login(r.atRest(fmt.Sprintf("%d units", units), r.in.From.Version), r.in.From)
	return held.Status
}

// The pace of the builds that run beside a scenario.
const (
	besideLasting = 3 * time.Second
	besidePause   = 2 * time.Second
)

// buildsBeside runs builds one after another until it is stopped. Only those count that
// have begun: there may be no web server, or no worker that could take one.
func (r *run) buildsBeside(stop <-chan struct{}) {
	for {
		select {
		case <-stop:
			return
		case <-time.After(besidePause):
		}
		if b := r.fly.build(r.ctx, besideLasting, func(string) {}); b.Result != notBegun {
			b.Beside = true
			r.in.Record.Build(b)
		}
	}
}

// buildsAtOnce is how many builds run side by side for each worker that is to have one.
const buildsAtOnce = 2

// buildOn runs real builds, some side by side, until each of the workers has run one, and no
// other.
func (r *run) buildOn(phase string, workers []string) {
	r.Helper()
	require.NoError(r, r.in.Report.Time(phase, 0, func() error {
		var builds []observation.Build
		reached := map[string]bool{}
		unreached := func(worker string) bool { return !reached[worker] }
		for slices.ContainsFunc(workers, unreached) {
			if len(builds) >= buildsPerWorker*len(workers) {
				return fmt.Errorf("%d builds never reached every worker of %v", len(builds), workers)
			}
			round := make([]observation.Build, buildsAtOnce*len(workers))
			var all sync.WaitGroup
			for i := range round {
				all.Go(func() { round[i] = r.build(0) })
			}
			all.Wait()
			for _, b := range round {
				if b.Result == "succeeded" {
					reached[b.Worker] = true
				}
				r.Logf("build %s %s on %s in %s", b.Name, b.Result, b.Worker, b.Ended.Sub(b.Started).Round(100*time.Millisecond))
			}
			builds = append(builds, round...)
			r.in.Record.Judge(judge.Always()...)
		}
		r.demand("builds-on-units", judge.BuiltOn(builds, workers...))
		return nil
	}))
}

// registered waits until the web server has all of the workers running.
func (r *run) registered(phase string, workers []string) {
	r.Helper()
	require.NoError(r, r.in.Report.Time(phase, time.Minute, func() error {
		return cluster.Poll(r.ctx, phase, time.Second, patience, func(ctx context.Context) (bool, error) {
			running, err := r.runningWorkers(ctx)
			if err != nil {
				return false, err
			}
			for _, name := range workers {
				if !slices.Contains(running, name) {
					return false, fmt.Errorf("%s is not one of those that run: %v", name, running)
				}
			}
			return true, nil
		})
	}))
}

// runningWorkers are those that the web server lists as running.
func (r *run) runningWorkers(ctx context.Context) ([]string, error) {
	known, err := r.fly.workers(ctx)
	var running []string
	for _, w := range known {
		if w.State == "running" {
			running = append(running, w.Name)
		}
	}
	return running, err
}

// build runs one build and records it. One that Concourse's own known flaw has ended is
// run once more.
func (r *run) build(lasting time.Duration) observation.Build {
	b := r.fly.build(r.ctx, lasting, func(string) {})
	r.in.Record.Build(b)
	if b.Flaw != "" {
		r.Logf("build %s: %s: once more", b.Name, b.Flaw)
		b = r.fly.build(r.ctx, lasting, func(string) {})
		r.in.Record.Build(b)
	}
	return b
}

// underWayOn starts builds of that length until each of the workers runs so many. The
// function that it returns waits for the last of them; they are recorded then, for what
// became of them says nothing before.
func (r *run) underWayOn(workers []string, each int, lasting time.Duration) (ended func()) {
	r.Helper()
	var all sync.WaitGroup
	builds := make(chan observation.Build, each*buildsPerWorker*len(workers))
	runs := map[string]int{}
	reached := func() bool {
		return !slices.ContainsFunc(workers, func(worker string) bool { return runs[worker] < each })
	}
	for n := 0; !reached(); n++ {
		require.Less(r, n, cap(builds), "%d builds never reached every worker of %v", n, workers)
		begun := make(chan string, 1)
		all.Go(func() {
			b := r.fly.build(r.ctx, lasting, func(worker string) { begun <- worker })
			builds <- b
			select {
			case begun <- "": // It ended without having begun.
			default:
			}
		})
		runs[<-begun]++
		delete(runs, "")
	}
	r.Logf("builds of %s run: %v", lasting, runs)
	return func() {
		r.Helper()
		all.Wait()
		close(builds)
		for b := range builds {
			r.Logf("build %s %s on %s in %s", b.Name, b.Result, b.Worker, b.Ended.Sub(b.Started).Round(100*time.Millisecond))
			r.in.Record.Build(b)
			if r.watched++; b.Result == "succeeded" {
				r.succeeded++
			}
		}
		r.in.Record.Judge(judge.Always()...)
		r.in.Report.Note("builds that ran when something happened, and succeeded", "%d of %d", r.succeeded, r.watched)
	}
}

// unitsBut returns the names of all units but some, by their number.
func unitsBut(s cluster.Status, others ...string) []string {
	var names []string
	for _, u := range s.Units(app) {
		if !slices.Contains(others, u.Name) {
			names = append(names, u.Name)
		}
	}
	return names
}

// workerNames are what units' workers and directories are called, sorted.
func workerNames(units []string) []string {
	var names []string
	for _, unit := range units {
		names = append(names, strings.ReplaceAll(unit, "/", "-"))
	}
	slices.Sort(names)
	return names
}

// unitsOf names the workers of a cluster in mode all: every unit has one.
func unitsOf(s cluster.Status) []string { return workerNames(unitsBut(s)) }

// workersOf names the workers of a cluster in mode auto: of all units but the web server's.
func workersOf(s cluster.Status) []string { return workerNames(unitsBut(s, serverIn(s))) }

// serverIn returns the unit of a cluster in mode auto that says it has the web server;
// empty if none does. It need not lead.
func serverIn(s cluster.Status) string {
	for _, u := range s.Units(app) {
		if u.Workload == cluster.Active && strings.HasPrefix(u.Message, "Web server ready") {
			return u.Name
		}
	}
	return ""
}

// server returns the unit of a cluster in mode auto that has the web server.
func (r *run) server(s cluster.Status) string {
	r.Helper()
	unit := serverIn(s)
	require.NotEmpty(r, unit, "no web server is ready:\n%s", s)
	return unit
}

// leader returns the unit that leads.
func (r *run) leader(s cluster.Status) string {
	r.Helper()
	u, ok := s.Leader(app)
	require.True(r, ok, "no leader:\n%s", s)
	return u.Name
}

// configure sets one option.
func (r *run) configure(option, value string) {
	r.Helper()
	require.NoError(r, r.c.Configure(r.ctx, app, map[string]string{option: value}))
}

// upgrade asks the leader for another version, by the action.
func (r *run) upgrade(leader, version string) error {
	_, err := r.c.RunAction(r.ctx, leader, "upgrade", map[string]any{"version": version})
	return err
}

// changeRelease asks for another release, waits until all units run it, and logs in at its web
// server. No builds run beside it: Concourse runs a step again that ends while its web server
// is started anew, and a resource that is fetched again into the same place may fail.
func (r *run) changeRelease(phase string, target time.Duration, to Release, ask func() error) observation.Observation {
	r.Helper()
	r.quiet()
	units := len(r.in.Record.Record().Last().Status.Units(app))
	r.phase(phase, target, func() cluster.Held {
		require.NoError(r, ask())
		return r.active(units, to.Version)
	})
	o := r.atRest(phase, to.Version)
	r.login(o, to)
	return o
}

// aMoment is what a scenario lets pass in which nothing must happen.
func (r *run) aMoment(d time.Duration) {
	select {
	case <-r.ctx.Done():
	case <-time.After(d):
	}
}

package supervisor

import (
	"cmp"
	"slices"
	"time"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/concourse"
)

// tellAgain is how long a worker whose web server is elsewhere is not told again to land:
// what the list says of it arrives by way of two hooks.
const tellAgain = 30 * time.Second

// unlisted is how long a worker that no web server lists goes on: one that was cut off, and
// registers again, gets builds before its unit hears that it is listed.
const unlisted = 30 * time.Second

// stays tells whether the worker that runs goes on as it is, whatever is described: it waits
// for its turn, or lands. Who was told to land stays told.
func stays(spec Spec, seen Seen, m Memory) bool {
	worker, started := m.Started[concourse.WorkerUnit]
	if !started || worker.Restart == "" || !seen.Running[concourse.WorkerUnit] || spec.Worker == nil {
		return false
	}
	if spec.AtOnce && worker.Restarts != spec.Restarts {
		return false
	}
	if spec.Paused || !worker.Told.IsZero() {
		return !drained(spec, seen, m)
	}
	return spec.Turn == Wait || spec.Turn == Unlisted && seen.UnlistedFor < unlisted || spec.Turn == TakeTurn && spec.DrainTimeout > 0
}

// drained tells whether a worker that was told to land has no builds, or they have had their
// time, or nobody follows them: a worker of a release of years before cannot register with the
// web server of today.
func drained(spec Spec, seen Seen, m Memory) bool {
	name := concourse.WorkerName(spec.Unit)
	landed := seen.Workers[name] == concourse.Landed && seen.Began[name] >= m.Started[concourse.WorkerUnit].At.Unix() // and not the one before
	nobody := spec.Turn == Unlisted && seen.UnlistedFor >= unlisted
	return seen.LandedFor >= spec.DrainTimeout || spec.Landed || landed || nobody
}

// keepsRunning is the version that the unit runs while its worker stays, if that is still as
// it was: it is pinned, and what is to follow is not.
func keepsRunning(spec Spec, seen Seen, m Memory, wanted string) string {
	spec.Run = m.Started[concourse.WorkerUnit].Version
	if version := chooseRun(spec, seen, m); version == spec.Run {
		return version
	}
	return wanted
}

// inTurn has a worker that is to be replaced wait for its turn, and land in it. Due says what
// it is to become, until that was started.
func inTurn(spec Spec, seen Seen, m Memory, wanted string, t Task) (now Task, due string) {
	if spec.Paused {
		return t, "" // whatever it is to become, it does so when it is resumed
	}
	worker, started := m.Started[concourse.WorkerUnit]
	told := !worker.Told.IsZero()
	if spec.Worker != nil && (told || started && t.Verb == Start && (spec.Turn == TakeTurn || stays(spec, seen, m))) {
		due = cmp.Or(wanted, spec.Run)
	}
	switch {
	case t.Verb != Start || !stays(spec, seen, m):
		return t, due
	case told || spec.Turn == TakeTurn:
		return land(spec, seen, m), due
	}
	return Task{}, due
}

// webless is how long a unit that leaves waits for a web server: as long as it takes to
// appoint another one.
const webless = time.Minute

// landForGood has a worker end with its builds, that is not to be started again: of a unit that
// is paused, or leaves.
func landForGood(spec Spec, seen Seen, m Memory) Task {
	if !seen.Running[concourse.WorkerUnit] || drained(spec, seen, m) {
		return stop(concourse.WorkerUnit, seen, m)
	}
	return land(spec, seen, m)
}

// land tells a worker to end with its builds, where its web server is sure to stay. That
// lists it as running when it has forgotten that it was told to, as it does whenever the
// worker registers anew.
func land(spec Spec, seen Seen, m Memory) Task {
	may := seen.WebServes && seen.TakenUp[concourse.WorkerName(spec.Unit)]
	switch {
	case spec.Web == nil:
		// A unit that leaves hears of nothing any more.
		may = (spec.MayLand || spec.Leaving) && seen.ToldAgo >= tellAgain
	case spec.Worker != nil && !spec.Leaving:
		may = may && slices.Contains(m.Stays, spec.Unit)
	}
	if spec.Web != nil && seen.Workers[concourse.WorkerName(spec.Unit)] != concourse.Running || !may {
		return Task{}
	}
	return Task{Verb: Land, Service: concourse.Service{Unit: concourse.WorkerUnit}}
}

// stay holds up a change of a web server that serves: a worker that lands and finds none
// ends with its builds. It returns the units with a turn that can rely on that. No other is
// told so while there is something to change.
func stay(spec Spec, seen Seen, m Memory, ready bool, change Task) (now Task, stays []string) {
	changes := change.Verb == Start || change.Verb == Stop
	for _, unit := range spec.Landing {
		if slices.Contains(m.Stays, unit) || ready && !changes && seen.WebServes && seen.TakenUp[concourse.WorkerName(unit)] {
			stays = append(stays, unit)
		}
	}
	if changes && seen.WebServes && (seen.Lands || len(stays) > 0) {
		return Task{}, stays
	}
	return change, stays
}

// LandedFor is how long the builds of a worker that ends have had. Lands is since when it has
// Spec.Land.
func (s Spec) LandedFor(now, lands time.Time, m Memory) time.Duration {
	since := m.Started[concourse.WorkerUnit].Told
	switch {
	case s.Leaving || s.Paused:
		since = s.Asked
	case s.Land:
		since = lands
	}
	if since.IsZero() {
		return 0
	}
	return now.Sub(since)
}

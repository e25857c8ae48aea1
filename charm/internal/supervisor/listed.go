package supervisor

import (
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/concourse"
)

// Listing is one list, and whether no build ran after it. Who lands then has no builds, and
// gets none any more: Concourse finds that out within half a minute.
type Listing struct {
	Workers []concourse.ListedWorker
	Idle    bool
}

// Lands tells whether a worker is to land, or about to.
func (s Spec) Lands() bool { return s.Land || s.Leaving || len(s.Landing) > 0 }

// Listed is what the web server of a unit says of the workers, from list to list.
type Listed struct {
	read    time.Time // last; zero for never
	process int       // of the web server
	states  map[string]string
	here    map[string]bool // names of those that have registered with this web server
	began   map[string]int64
	address map[string]string    // at which the web server finds those; another for each registration
	takenUp map[string]time.Time // since when they are registered so
	anew    map[string]bool      // those that have surely registered with this process of it
	landing map[string]time.Time // since when they land
	unseen  map[string]time.Time // units of the application, since when their workers are not there
	absent  string               // those whose workers do not run
	since   time.Time            // when these became so
}

// While somebody is awaited the workers are listed oftener; one that is off for long is
// not awaited, and is missing.
const (
	listOften = 2 * time.Second
	awaited   = 2 * time.Minute
)

// Interval is how often the workers have to be listed, if that is usually so often.
func (l *Listed) Interval(now time.Time, spec Spec, usually time.Duration) time.Duration {
	if l.absent != "" && now.Sub(l.since) < awaited || spec.Lands() {
		return min(listOften, usually)
	}
	return usually
}

// Due tells whether it is time for a list.
func (l *Listed) Due(now time.Time, spec Spec, usually time.Duration) bool {
	return l.read.IsZero() || now.Sub(l.read) >= l.Interval(now, spec, usually)
}

// Forget tells whether another process of the web server is there than before. It has yet to
// take up the builds of all workers, and a list that was asked for before says nothing.
func (l *Listed) Forget(process int) bool {
	if l.process == process {
		return false
	}
	l.process, l.takenUp, l.unseen = process, nil, nil // and anew with takenUp
	return true
}

// Read takes a list over.
func (l *Listed) Read(now time.Time, spec Spec, listing Listing) {
	takenUp, landing, unseen, address, anew := l.takenUp, l.landing, l.unseen, l.address, l.anew
	if takenUp == nil { // the first list: what it has may be of the process before, at the same address
		anew = nil
	}
	*l = Listed{
		process: l.process, address: map[string]string{},
		read: now, states: map[string]string{}, here: map[string]bool{}, began: map[string]int64{}, absent: l.absent, since: l.since,
		takenUp: map[string]time.Time{}, anew: map[string]bool{}, landing: map[string]time.Time{}, unseen: map[string]time.Time{},
	}
	note := func(times, before map[string]time.Time, name string) {
		if times[name] = before[name]; times[name].IsZero() {
			times[name] = now
		}
	}
	for _, w := range listing.Workers {
		host, _, _ := net.SplitHostPort(w.Address) // none for one that has landed
		l.states[w.Name], l.here[w.Name], l.began[w.Name] = w.State, host == spec.Web.Address, w.Began
		if l.here[w.Name] {
			moved := w.Address != address[w.Name]
			l.address[w.Name], l.anew[w.Name] = w.Address, anew[w.Name] || moved && takenUp != nil
			if moved {
				delete(takenUp, w.Name)
			}
			if note(l.takenUp, takenUp, w.Name); listing.Idle && l.anew[w.Name] {
				l.takenUp[w.Name] = time.Unix(0, 0) // there is nothing to take up
			}
		}
		if w.State == concourse.Landing && listing.Idle {
			l.states[w.Name] = concourse.Landed
		} else if w.State == concourse.Landing {
			note(l.landing, landing, w.Name)
		}
	}
	var absent []string
	for _, name := range workerNames(spec) {
		if !l.runs(spec, name) {
			absent = append(absent, name)
		}
		if state := l.states[name]; state != concourse.Running && state != concourse.Landing {
			note(l.unseen, unseen, name)
		}
	}
	if now := strings.Join(absent, " "); now != l.absent {
		l.absent, l.since = now, l.read
	}
}

// workerNames are those of the units that are to have one.
func workerNames(spec Spec) (names []string) {
	for _, unit := range spec.Members {
		if unit != spec.Unit || spec.Worker != nil {
			names = append(names, concourse.WorkerName(unit))
		}
	}
	slices.Sort(names)
	return names
}

// runs tells whether a worker runs for this web server. One that has registered with the web
// server before this one runs in name only. Where each unit has both, there are several.
func (l *Listed) runs(spec Spec, name string) bool {
	return l.states[name] == concourse.Running && (l.here[name] || spec.Worker != nil)
}

// Tell says what is known. A list that is older than absence says nothing.
func (l *Listed) Tell(now time.Time, spec Spec, absence, takeUp time.Duration, seen *Seen, status *Status) {
	if now.Sub(l.read) > absence || spec.Web == nil {
		*l = Listed{process: l.process, read: l.read, absent: l.absent, since: l.since}
	}
	if !seen.WebServes { // the next one has yet to take the builds up
		l.takenUp, l.unseen = nil, nil
	}
	seen.Workers, seen.Began, seen.TakenUp = l.states, l.began, map[string]bool{}
	for name, since := range l.takenUp {
		seen.TakenUp[name] = now.Sub(since) >= takeUp
	}
	var running, began, missing, landed []string
	for _, name := range workerNames(spec) {
		if l.runs(spec, name) {
			running = append(running, name)
			began = append(began, name+"="+strconv.FormatInt(l.began[name], 10))
		}
		if l.states[name] == concourse.Landed {
			landed = append(landed, name+"="+strconv.FormatInt(l.began[name], 10))
		}
		if since := l.unseen[name]; !since.IsZero() && now.Sub(since) >= awaited {
			missing = append(missing, name)
		}
		// One that has not ended by then has nobody who would have it end.
		if since := l.landing[name]; !since.IsZero() && now.Sub(since) < spec.DrainTimeout+awaited {
			seen.Lands = true
		}
	}
	status.Workers, status.Began, status.Missing = strings.Join(running, " "), strings.Join(began, " "), strings.Join(missing, " ")
	status.Landed = strings.Join(landed, " ")
}

// SetState changes what the list says of a worker, until it is read again; an empty state
// removes it.
func (l *Listed) SetState(name, state string) {
	if l.states == nil {
		return
	}
	l.states = maps.Clone(l.states) // the step has seen them as they were
	if l.states[name] = state; state == "" {
		delete(l.states, name)
	}
}

package sim

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/relations"
)

// The rules. An error that breaks one says when, and who.
var (
	ErrDownloads = errors.New("a release is downloaded more than once")
	ErrLost      = errors.New("a build is lost that no fault explains")
	ErrTurns     = errors.New("more workers are away than may be")
	ErrNoWeb     = errors.New("no web server answers, though one can")
	ErrNotReady  = errors.New("a unit is said to be ready that is not")
	ErrSchema    = errors.New("an old web server meets a newer schema")
	ErrBeside    = errors.New("the schema is changed while a web server runs")
	ErrUnproven  = errors.New("a worker executes a release with which no web server has answered")
	ErrCollected = errors.New("a process executes a release that was collected")
	ErrActivated = errors.New("a release was activated that nobody has asked for")
	ErrFlapping  = errors.New("units make releases current in turn")
	ErrUnsettled = errors.New("the cluster does not come to rest")
	ErrRestless  = errors.New("a cluster at rest does not stay so")
	ErrPaused    = errors.New("a worker runs that an operator has paused")
	ErrHook      = errors.New("a hook failed that no fault explains")
)

// judge holds the rules against what happens.
type judge struct {
	*world
	err error // the first violation

	excuses []*excuse
	fetched map[*volume]map[string]int
	proven  map[string]bool          // versions with which a web server has answered
	wanted  map[string]time.Duration // versions that were asked for, and until when
	untrue  map[*unit]time.Duration  // since when a unit is not as it says
	out     map[*unit]bool           // that were said to be paused, and were not resumed since
	away    map[*unit]bool           // whose workers were told to land in a turn, and have not registered since
	mode    time.Duration            // when the mode was changed; zero for never
	strict  bool                     // no weakness is known
	webless time.Duration            // since when no web server answers, and one could
	settled bool                     // the cluster was at rest once
	begins  int                      // processes that have begun
}

// excuse is a change or a fault, and what it explains.
type excuse struct {
	why      string
	fault    bool    // it may keep the cluster from working
	loses    []*unit // units whose builds it may lose
	losesAll bool
	until    time.Duration // zero, it is not over
}

// slack is how long after its end a fault still explains a loss: what it has begun goes on
// for a moment.
const slack = 45 * time.Second

func (j *judge) violate(rule error, format string, args ...any) {
	if j.err == nil {
		j.err = fmt.Errorf("%w: %s, at %.3f s", rule, fmt.Sprintf(format, args...), j.now.Seconds())
		j.say("judge", "%v", j.err)
	}
}

func (j *judge) excuse(e excuse) *excuse {
	j.excuses = append(j.excuses, &e)
	return &e
}

func (j *judge) over(e *excuse) { e.until = max(j.now, 1) }

func (e *excuse) holds(now, after time.Duration) bool { return e.until == 0 || now <= e.until+after }

// explained tells whether anything explains a loss on a unit.
func (j *judge) explained(u *unit) bool {
	return slices.ContainsFunc(j.excuses, func(e *excuse) bool {
		return e.holds(j.now, slack) && (e.losesAll || slices.Contains(e.loses, u))
	})
}

// troubled tells whether a fault is there, or was a moment ago.
func (j *judge) troubled(moment time.Duration) bool {
	return slices.ContainsFunc(j.excuses, func(e *excuse) bool { return e.fault && e.holds(j.now, moment) })
}

func (j *judge) downloads(v *volume, version string) {
	if j.fetched[v] == nil {
		j.fetched[v] = map[string]int{}
	}
	if j.fetched[v][version]++; j.fetched[v][version] > 1 {
		j.violate(ErrDownloads, "%s", version)
	}
}

// lands holds that no more workers are away by turns than may be. One that was removed
// meanwhile is not awaited: whoever removed its unit has taken it out for good.
func (j *judge) lands(u *unit) {
	j.away[u] = true
	maps.DeleteFunc(j.away, func(u *unit, _ bool) bool { return u.life != alive })
	if len(j.away) > j.juju.config.MaxUnavailable && !j.troubled(2*slack) {
		j.violate(ErrTurns, "%d with %s", len(j.away), u.name)
	}
}

func (j *judge) loses(w *worker, b *build, why string) {
	j.say(w.unit.name, "build %d is lost: %s", b.number, why)
	if w.landing && j.troubled(slack) {
		return // it could not know that no web server will be there
	}
	leaves := w.unit.life == dying && !j.troubled(2*slack) // else its web server may have been gone
	if (w.unit.life == alive || leaves) && !j.explained(w.unit) && !j.excused(modeChanges) {
		j.violate(ErrLost, "build %d on %s, as %s", b.number, w.unit.name, why)
	}
}

func (j *judge) meets(s *webServer, schema int) {
	if schema > releases[s.version].schema {
		j.violate(ErrSchema, "%s with %s", s.unit.name, s.version)
	}
}

// changes holds that no web server runs while the schema is changed. One that was cut from the
// network until a moment ago could not be told.
func (j *judge) changes(by *migration) {
	for _, address := range sortedKeys(j.machines) {
		m := j.machines[address]
		if m.web != nil && !m.cut && (m.healed == 0 || j.now-m.healed > slack) {
			j.violate(ErrBeside, "that of %s, as %s goes on", m.unit.name, by.unit.name)
		}
	}
}

func (j *judge) serves(s *webServer) {
	j.proven[s.version] = true
}

// settings notes until when versions are asked for: settings are about to change.
func (j *judge) settings() {
	for _, name := range []string{relations.TargetVersion, relations.ActiveVersion} {
		if v := j.juju.peers.app.settings[name]; v != "" {
			j.wanted[v] = j.now
		}
	}
}

func (j *judge) activates(v *volume, unit, version string) {
	if len(v.activations) > mostActivations {
		j.violate(ErrFlapping, "%d times", len(v.activations))
	}
	app := j.juju.peers.app.settings
	if version == app[relations.TargetVersion] || version == app[relations.ActiveVersion] {
		return
	}
	// A leader acts on what it has decided before its hook has ended; and one that was not
	// told yet of a new target may still come to the old one.
	if at, wanted := j.wanted[version]; wanted && j.now-at > time.Minute {
		j.violate(ErrActivated, "%s by %s", version, unit)
	}
}

// mostActivations is how often a release is made current in an order: three times for a
// deployment, an upgrade and its being taken back, and twice where two units overtake each
// other.
const mostActivations = 8

// fails is called of hooks alone: a command that fails is tried again by the supervisor.
func (j *judge) fails(u *unit, hook string) {
	if !j.troubled(slack) {
		j.violate(ErrHook, "%s of %s", hook, u.name)
	}
}

// tick holds the rules that are about time.
func (j *judge) tick() {
	for _, u := range j.members() {
		j.checkUnit(u)
	}
	j.checkWeb()
	j.after(time.Second, j.tick)
}

// Times within which things have to be noticed.
const (
	noticed = 40 * time.Second // that a unit is not as it says
	gap     = 6 * time.Minute  // without a web server, once nothing hinders one
)

func (j *judge) checkUnit(u *unit) {
	m := u.machine
	switch {
	case !u.files.spec.Paused:
		delete(j.out, u)
	case strings.HasPrefix(u.status.Message, "Paused"):
		j.out[u] = true
	}
	if j.out[u] && m.worker != nil {
		j.violate(ErrPaused, "%s", u.name)
	}
	if w := m.worker; w != nil && j.juju.config.Mode == "auto" && !j.proven[w.version] {
		j.violate(ErrUnproven, "%s executes %s", u.name, w.version)
	}
	for _, version := range m.executes() {
		if !u.mount().missing && !u.mount().volume.installed[version] {
			j.violate(ErrCollected, "%s executes %s", u.name, version)
		}
	}
	if !u.agent.connected() || !m.on || j.isAsSaid(u) {
		delete(j.untrue, u)
		return
	}
	if _, since := j.untrue[u]; !since {
		j.untrue[u] = j.now
	}
	if j.now-j.untrue[u] > noticed {
		j.violate(ErrNotReady, "%s says %q", u.name, u.status.Message)
	}
}

func (m *machine) executes() (versions []string) {
	if m.web != nil {
		versions = append(versions, m.web.version)
	}
	if m.worker != nil {
		versions = append(versions, m.worker.version)
	}
	if m.migration != nil {
		versions = append(versions, m.migration.version)
	}
	return versions
}

// isAsSaid tells whether a unit that is active does what it says.
func (j *judge) isAsSaid(u *unit) bool {
	version, web, worker := named(u.status)
	m := u.machine
	switch {
	case version == "":
		return true
	case web && (!m.web.serves() || m.web.version != version):
		return false
	case worker && (m.worker == nil || !m.worker.up || m.worker.version != version):
		return false
	case worker && !m.worker.connected():
		return false
	}
	return true
}

// checkWeb wants a web server that answers, when nothing has hindered one for a while.
func (j *judge) checkWeb() {
	// While the schema is changed none can.
	if !j.settled || len(j.ci.servers()) > 0 || j.troubled(0) || j.ci.migrates != nil {
		j.webless = j.now
		return
	}
	if j.now-j.webless > gap {
		j.violate(ErrNoWeb, "for %v", gap)
	}
}

package plan

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/concourse"
	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/options"
	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/relations"
	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/supervisor"
	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/turns"
)

// planTurns tells this unit whether its worker has a turn, and its web server for whom it has
// to stay. What counts is what the leader has told Juju: one that leads no more tells nobody.
func (m *maker) planTurns() {
	given := parseTurns(m.peers.App[relations.Turns])
	for _, t := range given {
		own := t.Unit == m.Juju.Unit
		if m.web && m.due(t.Unit) && (own || m.Config.Mode == "auto") {
			m.spec.Landing = append(m.spec.Landing, t.Unit)
		}
		if own && t.Process == m.Status.Process && m.worker {
			m.spec.Turn = supervisor.TakeTurn
		}
	}
	for _, unit := range m.members() {
		// One whose worker is not listed has nobody who could land it.
		own := unit == m.Juju.Unit
		if m.web && m.said(unit)[relations.WorkerPause] == relations.Pausing && !m.missing(unit) && (own || m.Config.Mode == "auto") {
			m.spec.Landing = append(m.spec.Landing, unit)
		}
	}
	slices.Sort(m.spec.Landing)
	m.spec.Landing = slices.Compact(m.spec.Landing)
	name, settings := concourse.WorkerName(m.Juju.Unit), m.listedBy(m.Juju.Unit)
	m.spec.MayLand = slices.Contains(strings.Fields(settings[relations.MayLand]), name)
	landed, told := began(settings[relations.LandedWorkers], name)
	m.spec.Landed = told && landed >= process(m.Status.Process) // and not the process before
	switch {
	case m.peers.App[relations.Turns] == "" || len(settings) > 0 && settings[relations.MayLand] == "":
		m.spec.Turn = supervisor.NoTurn // a neighbouring revision of the charm leads, or serves
	case m.missing(m.Juju.Unit) && m.worker:
		m.spec.Turn = supervisor.Unlisted
	case m.spec.Turn == supervisor.NoTurn && m.worker:
		m.spec.Turn = supervisor.Wait
	}
}

// giveTurns has the leader decide who has a turn. Nobody new gets one before the web server
// has answered with the version that all are to run.
func (m *maker) giveTurns() {
	if !m.Juju.Leader {
		return
	}
	most := m.Config.MaxUnavailable
	if m.active != m.target {
		most = 0
	}
	var units []turns.Unit
	for _, unit := range m.workers() {
		if !slices.Contains(m.Juju.Members.Dying, unit) {
			units = append(units, m.inTurns(unit))
		}
	}
	m.turns = turns.Next(parseTurns(m.peers.App[relations.Turns]), units, most)
	var list []string
	for _, t := range m.turns {
		list = append(list, t.Unit+"="+t.Process)
	}
	m.changes.App[relations.Turns] = cmp.Or(strings.Join(list, " "), relations.None)
}

func (m *maker) inTurns(unit string) turns.Unit {
	return turns.Unit{
		Name: unit, Process: m.said(unit)[relations.WorkerProcess], Due: m.due(unit),
		Running: m.runs(unit), Missing: m.missing(unit),
	}
}

// tellTurns says what the leader and the other units need to know of this unit.
func (m *maker) tellTurns() {
	s, self := m.Status, m.changes.Self
	self[relations.WorkerDue], self[relations.WorkerProcess] = s.Due, s.Process
	self[relations.WorkerPause] = m.pause()
	self[relations.WorkersBegan], self[relations.MissingWorkers] = s.Began, s.Missing
	self[relations.LandedWorkers] = s.Landed
	self[relations.MayLand] = cmp.Or(s.MayLand, relations.None)
	if m.worker && m.serves() {
		self[relations.WorkerSettings] = m.workerSettings()
	}
}

func parseTurns(list string) (all []turns.Turn) {
	for entry := range strings.FieldsSeq(list) {
		if unit, process, ok := strings.Cut(entry, "="); ok {
			all = append(all, turns.Turn{Unit: unit, Process: process})
		}
	}
	return all
}

// workerSettings changes with the options that workers read.
func (m *maker) workerSettings() string {
	digest := sha256.Sum256([]byte(m.Config.LogLevel + "\n" + m.Config.Environment(options.Worker)))
	return hex.EncodeToString(digest[:6])
}

// workers are the units that are to have one, paused ones apart: nothing waits for these.
func (m *maker) workers() []string {
	units := slices.Sorted(slices.Values(append(slices.Collect(maps.Keys(m.peers.Units)), m.Juju.Unit)))
	return slices.DeleteFunc(units, func(unit string) bool {
		return m.Config.Mode == "web" || m.Config.Mode == "auto" && unit == m.serving || m.said(unit)[relations.WorkerPause] != ""
	})
}

// said are a unit's settings. Those of this unit are about to be as its status is.
func (m *maker) said(unit string) map[string]string {
	if unit != m.Juju.Unit {
		return m.peers.Units[unit]
	}
	s := m.Status
	return map[string]string{
		relations.WorkerDue: s.Due, relations.WorkerProcess: s.Process, relations.RunningWorkers: s.Workers, relations.WorkerPause: m.pause(),
		relations.WorkersBegan: s.Began, relations.MissingWorkers: s.Missing, relations.LandedWorkers: s.Landed, relations.MayLand: cmp.Or(s.MayLand, relations.None),
		relations.ConcourseVersion: m.peers.Self[relations.ConcourseVersion],
	}
}

// due tells whether a unit's worker has to be replaced.
func (m *maker) due(unit string) bool { return m.said(unit)[relations.WorkerDue] != "" }

// listedBy are the settings of the unit whose web server lists a unit's worker.
func (m *maker) listedBy(unit string) map[string]string {
	if m.Config.Mode == "auto" {
		unit = m.serving
	}
	return m.said(unit)
}

// missing tells whether a unit's worker was not listed for long. Where each unit has a web
// server, it may be that of the unit which is off: the others list its worker, too.
func (m *maker) missing(unit string) bool {
	by := m.listedBy(unit)
	if m.Config.Mode != "auto" {
		by = m.said(m.Juju.Unit)
	}
	return slices.Contains(strings.Fields(by[relations.MissingWorkers]), concourse.WorkerName(unit))
}

// runs tells whether the process of a worker that a unit speaks of is listed as running, and
// not the one before.
func (m *maker) runs(unit string) bool {
	by, name := m.listedBy(unit), concourse.WorkerName(unit)
	if !slices.Contains(strings.Fields(by[relations.RunningWorkers]), name) {
		return false
	}
	seconds, told := began(by[relations.WorkersBegan], name)
	return !told || seconds >= process(m.said(unit)[relations.WorkerProcess])
}

// began is when the process of a worker began that a web server speaks of.
func began(list, worker string) (seconds int64, told bool) {
	for entry := range strings.FieldsSeq(list) {
		if text, ok := strings.CutPrefix(entry, worker+"="); ok {
			return process(text), true
		}
	}
	return 0, false
}

// process is when a worker's process was started; 0 for one of the former charm.
func process(text string) int64 {
	seconds, _ := strconv.ParseInt(text, 10, 64)
	return seconds
}

// checkTurns has the leader say how far the workers are, until all are through, and who is
// missing.
func (m *maker) checkTurns() {
	if !m.Juju.Leader || m.active == "" || m.active != m.target {
		return
	}
	all, through := len(m.workers()), 0
	var missing, failing []string
	for _, unit := range m.workers() {
		switch {
		case !m.behind(unit):
			through++
		case m.missing(unit):
			missing = append(missing, unit)
		}
		if slices.ContainsFunc(m.turns, func(t turns.Turn) bool { return t.Fails(m.inTurns(unit)) }) {
			failing = append(failing, unit)
		}
	}
	switch {
	case through+len(missing) == all:
	case len(failing) >= m.Config.MaxUnavailable:
		m.say(rollingStopped, m.target, through, all, strings.Join(failing, ", "))
	case len(missing) > 0:
		m.say(rollingWithout, m.target, through, all, strings.Join(missing, ", "))
	default:
		m.say(rolling, m.target, through, all)
	}
}

// behind tells whether a unit's worker is not yet what it has to become: also if the unit has
// not heard yet that it is due. A unit that has never run one keeps nobody waiting, and one
// of the former charm does not speak of its options.
func (m *maker) behind(unit string) bool {
	said := m.said(unit)
	version, settings := said[relations.ConcourseVersion], m.peers.Units[unit][relations.WorkerSettings]
	given := slices.ContainsFunc(m.turns, func(t turns.Turn) bool { return t.Unit == unit })
	return given || m.due(unit) || version != "" && version != m.target || settings != "" && settings != m.workerSettings()
}

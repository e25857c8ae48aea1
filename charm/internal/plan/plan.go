// Package plan decides what a unit should be, and what Juju must know. It is pure: what
// Juju says, and the supervisor's status, in; a spec, settings and a status text out.
// Every hook asks it the same question, so that no event is ever lost for having been
// missed.
package plan

import (
	"maps"
	"slices"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/concourse"
	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/juju"
	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/relations"
	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/supervisor"
)

// Input is all that a plan rests on.
type Input struct {
	Juju     juju.Snapshot
	Config   Config
	Hostname string
	Volume   string            // where it is mounted
	Status   supervisor.Status // of this unit
	Before   supervisor.Spec   // that of the last hook
}

// Plan is the answer.
type Plan struct {
	Spec    *supervisor.Spec // nil leaves it as it is
	Changes juju.Changes
}

// Needs are what a unit with these options has to read. A worker has no use for the web
// server's secrets, nor for what other workers say.
func Needs(c Config, leader bool) juju.Needs {
	if leader || c.Mode != "auto" {
		return Everything()
	}
	return juju.Needs{Peers: relations.PeersEndpoint}
}

// Everything is what an action may need.
func Everything() juju.Needs {
	return juju.Needs{Peers: relations.PeersEndpoint, Database: relations.DatabaseEndpoint, Units: true}
}

// Make plans. Each part adds to the plan; the first complaint becomes the status.
func Make(in Input) Plan {
	m := maker{Input: in, changes: juju.Changes{App: map[string]string{}, Self: map[string]string{}}}
	m.role()
	switch {
	case m.changes.Status.Level != "": // what runs keeps running
		return Plan{Changes: m.changes}
	case in.Juju.Peers == nil || in.Status.WorkerKey == "":
		m.say(preparing)
		return Plan{Changes: m.changes}
	}
	m.readRelations()
	m.chooseTarget()
	m.checkVolume()
	m.checkDatabase()
	m.spec = supervisor.Spec{
		Unit: in.Juju.Unit, Root: in.Volume, Shared: in.Config.shared(),
		Source: in.Config.source(), Digest: in.Config.ReleaseDigest,
		Fetch: m.target, Newest: m.newest, Run: m.active, Proven: m.active,
		Activate: in.Juju.Leader || !in.Config.shared(),
		Members:  append(slices.Sorted(maps.Keys(m.peers.Units)), in.Juju.Unit),
		Again:    in.Juju.Early || in.Juju.Unreadable,
	}
	if m.spec.Shared {
		m.spec.Owner = in.Juju.Model
	}
	// The leader goes first; the others follow a web server that has answered.
	if in.Juju.Leader {
		m.spec.Run = m.target
	}
	m.planWeb()
	m.planWorker()
	m.tellPeers()
	m.spec.Collect = m.settled()
	m.explain()
	if m.unknown && in.Status.Former {
		return Plan{Changes: m.changes} // or the one that runs would be stopped
	}
	return Plan{Spec: &m.spec, Changes: m.changes}
}

type maker struct {
	Input
	peers    relations.Peers
	keys     *concourse.Keys     // nil where this unit cannot read them
	database *concourse.Database // nil until it is complete

	web, worker bool   // roles
	target      string // version where all units are to get
	active      string // version that the web server has proven
	newest      bool   // the target is still to be found
	unknown     bool   // how the web server is to be, and was described

	spec    supervisor.Spec
	changes juju.Changes
}

// say sets the status unless an earlier part had something to say: parts
// speak in the order in which an operator has to act.
func (m *maker) say(t text, args ...any) {
	if m.changes.Status.Level == "" {
		m.changes.Status = t.status(args...)
	}
}

func (m *maker) readRelations() {
	j := m.Juju
	m.peers = relations.Peers{App: j.Peers.App, Self: j.Peers.Self, Units: j.Peers.Units}
	if keys, err := concourse.ParseKeys(j.Secrets[j.Peers.App[relations.KeysSecret]]); err == nil {
		m.keys = &keys
	}
	if j.Database != nil {
		m.database = relations.ParseDatabase(j.Database.RemoteApp, j.Secrets)
		m.changes.Database = relations.DatabaseRequest()
	}
}

// related tells whether there is a database, though it may not be readable.
func (m *maker) related() bool { return m.Juju.Database != nil || m.Juju.Unreadable }

// tellPeers says what others need to know of this unit, and of the application.
func (m *maker) tellPeers() {
	self, app := m.changes.Self, m.changes.App
	self[relations.WorkerPublicKey] = m.Status.WorkerKey
	self[relations.WebIP] = m.Juju.Address
	run := m.Status.Run
	if m.serves() {
		self[relations.ConcourseVersion] = run
	}
	if !m.Juju.Leader {
		return
	}
	if m.serves() {
		m.changes.Version = run
		if run == m.target {
			app[relations.ActiveVersion] = run
			m.active = run
		}
	}
	if m.keys == nil {
		return
	}
	app[relations.TSAPublicKey] = m.hostPublicKey()
	app[relations.TSAHost] = m.ownTSA()
	app[relations.WebUnit] = m.Juju.Unit
}

// settled tells whether releases can be collected: this unit's volume holds no
// version that a unit has yet to leave. Only one unit collects a shared volume.
func (m *maker) settled() bool {
	if !m.serves() || m.Status.Run != m.target || m.active != m.target {
		return false
	}
	if !m.Config.shared() {
		return true
	}
	for _, settings := range m.peers.Units {
		if settings[relations.ConcourseVersion] != m.target {
			return false
		}
	}
	return m.Juju.Leader
}

// serves tells whether every service of this unit answers, as it is described now, with
// the version that the unit should run.
func (m *maker) serves() bool {
	run := m.Status.Run
	if run == "" || m.web && m.spec.Web == nil || m.worker && m.spec.Worker == nil {
		return false
	}
	if m.web && m.Status.Web != (supervisor.Answer{Version: run, Is: m.spec.Web.Identity()}) {
		return false
	}
	return !m.worker || m.Status.Worker == (supervisor.Answer{Version: run, Is: m.spec.Worker.Identity()})
}

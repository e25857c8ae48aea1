// Package plan decides what a unit should be, and what Juju must know. It is pure: what
// Juju says, and the supervisor's status, in; a spec, settings and a status text out.
// Every hook asks it the same question, so that no event is ever lost for having been
// missed.
package plan

import (
	"cmp"
	"maps"
	"slices"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/concourse"
	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/juju"
	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/options"
	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/relations"
	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/supervisor"
	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/turns"
)

// Config is the charm's configuration, named as its users know it.
type Config = options.Config

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

// Needs are what a unit has to read. A worker has no use for the web server's secrets, and
// of what other units say only for what the web server's unit does.
func Needs(c Config, event juju.Event, leader bool, app map[string]string) juju.Needs {
	serves := event.Unit == app[relations.WebUnit] || event.Unit == app[relations.NextWebUnit]
	if leader || serves || c.Mode != "auto" || event.Action != "" {
		return juju.Needs{Database: relations.DatabaseEndpoint, Units: true}
	}
	return juju.Needs{Unit: app[relations.WebUnit]}
}

// Make plans. Each part adds to the plan; the first complaint becomes the status.
func Make(in Input) Plan {
	in.Config = in.Config.WithModel(in.Juju.Proxies)
	m := maker{Input: in, changes: juju.Changes{App: map[string]string{}, Self: map[string]string{}}}
	m.checkOptions()
	switch {
	case m.changes.Status.Level != "": // what runs keeps running
		return Plan{Changes: m.changes}
	case in.Juju.Peers == nil || in.Status.WorkerKey == "":
		m.say(preparing)
		return Plan{Changes: m.changes}
	}
	// An address that was told the peers stays until there is another one.
	m.Juju.Address = cmp.Or(m.Juju.Address, m.Juju.Peers.Self[relations.WebIP])
	if m.Juju.Address == "" {
		m.say(waitingForAddress)
		return Plan{Changes: m.changes}
	}
	m.readRelations()
	m.chooseRoles()
	m.chooseTarget()
	m.grantMigration()
	m.checkVolume()
	m.checkDatabase()
	m.spec = supervisor.Spec{
		Unit: in.Juju.Unit, Root: in.Volume, Shared: in.Config.Shared(),
		Source: in.Config.Source(), Digest: in.Config.ReleaseDigest, Proxies: in.Config.Proxies(),
		Fetch: m.target, Contents: m.contents(), Newest: m.newest, Run: m.active, Proven: m.active,
		Try: m.try, Activate: m.first || !in.Config.Shared(), Over: in.Status.Current, OverAs: in.Status.CurrentAs,
		Members: m.members(),

		DrainTimeout: in.Config.DrainTimeout,
		Paused:       in.Before.Paused, Asked: in.Before.Asked,
		Restarts: in.Before.Restarts, AtOnce: in.Before.AtOnce, Check: in.Before.Check,
		Again: in.Juju.Early || in.Juju.Unreadable,
	}
	if m.spec.Shared {
		m.spec.Owner, m.spec.Accepted = in.Juju.Model, m.peers.App[relations.AcceptedVolume]
	}
	// The others follow a web server that has answered. A unit that was the leader goes on
	// to what it has begun with: its web server may have taken the schema up.
	if m.first || in.Config.Mode != "auto" && in.Before.Run == m.target {
		m.spec.Run = m.target
	}
	m.watchWeb()
	m.planMigration()
	m.planWeb()
	m.planWorker()
	m.planTurns()
	m.tellPeers()
	m.giveTurns()
	m.spec.Collect = m.settled() && !m.migrates()
	m.explain()
	return Plan{Spec: &m.spec, Changes: m.changes}
}

type maker struct {
	Input
	peers    relations.Peers
	keys     *concourse.Keys     // nil where this unit cannot read them
	database *concourse.Database // nil until it is complete

	serving, next string           // units, see relations.WebUnit and NextWebUnit
	tsaHost       string           // of the one that serves
	nextTSA       string           // of the next
	web, worker   bool             // roles
	first         bool             // the unit runs a new version before the others
	target        string           // version where all units are to get
	active        string           // version that the web server has proven
	try           string           // see relations.UpgradeTry
	newest        bool             // the target is still to be found
	grant         relations.Grant  // who changes the schema
	before        relations.Before // to what it may be taken down
	halts         []string         // units whose web servers a migration waits for
	turns         []turns.Turn

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
	m.peers = relations.Peers{App: j.Peers.App, Self: j.Peers.Self, Units: maps.Clone(j.Peers.Units)}
	if j.Members.All != nil {
		maps.DeleteFunc(m.peers.Units, func(unit string, _ map[string]string) bool {
			return !slices.Contains(j.Members.All, unit) // it is gone, though it stands in the relation
		})
	}
	if keys, err := concourse.ParseKeys(j.Secrets[j.Peers.App[relations.KeysSecret]]); err == nil {
		m.keys = &keys
	}
	if j.Database != nil {
		m.database = relations.ParseDatabase(j.Database.RemoteApp, j.Secrets)
		m.changes.Database = relations.DatabaseRequest()
	}
	m.grant = relations.ParseGrant(m.peers.App[relations.Migration])
	m.before = relations.ParseBefore(m.peers.App[relations.SchemaBefore])
}

// members are the units of the application: also those that are still being made. Where
// nobody has asked for them, all that are known.
func (m *maker) members() []string {
	if all := m.Juju.Members.All; all != nil {
		return all
	}
	return append(slices.Sorted(maps.Keys(m.peers.Units)), m.Juju.Unit)
}

// known are the other units that have joined.
func (m *maker) known() []string { return slices.Collect(maps.Keys(m.peers.Units)) }

// related tells whether there is a database, though it may not be readable.
func (m *maker) related() bool { return m.Juju.Database != nil || m.Juju.Unreadable }

// tellPeers says what others need to know of this unit, and of the application.
func (m *maker) tellPeers() {
	self, app := m.changes.Self, m.changes.App
	self[relations.WorkerPublicKey] = m.Status.WorkerKey
	self[relations.WebIP] = m.Juju.Address
	self[relations.OverdueVersion] = m.Status.Overdue
	self[relations.RunningWorkers] = m.Status.Workers
	m.tellTurns()
	m.tellMigration()
	if m.serves() {
		self[relations.ConcourseVersion] = m.Status.Run
	}
	if !m.Juju.Leader {
		return
	}
	if m.webUnit() == m.Juju.Unit && m.webServes() {
		m.prove(m.Status.Run)
	}
	if m.keys != nil {
		app[relations.TSAPublicKey] = m.hostPublicKey()
	}
}

// prove has the leader say that the web server answers with a version.
func (m *maker) prove(version string) {
	m.changes.Version = version
	if version == m.target {
		m.active = version
		m.changes.App[relations.ActiveVersion] = version
	}
}

// settled tells whether releases can be collected: this unit's volume holds no
// version that a unit has yet to leave. Only one unit collects a shared volume.
func (m *maker) settled() bool {
	if !m.serves() || m.Status.Run != m.target || m.active != m.target {
		return false
	}
	if !m.Config.Shared() {
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
	if run == "" || m.web && !m.webServes() || m.worker && m.spec.Worker == nil {
		return false
	}
	if m.pause() == relations.Paused {
		return true // it has what its worker will be started with
	}
	return !m.worker || m.Status.Worker == (supervisor.Answer{Version: run, Is: m.spec.Worker.Identity()})
}

// webServes tells that of the web server alone: a worker beside it may wait for its turn.
func (m *maker) webServes() bool {
	run := m.Status.Run
	if run == "" || m.spec.Web == nil || m.Status.Web != (supervisor.Answer{Version: run, Is: m.spec.Web.Identity()}) {
		return false
	}
	return m.Status.Database == "" && m.Status.Schema.Release != run // else it only answers
}

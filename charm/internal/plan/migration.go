package plan

import (
	"cmp"
	"slices"
	"strconv"
	"strings"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/concourse"
	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/relations"
	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/supervisor"
)

// migrates tells whether the schema is being changed.
func (m *maker) migrates() bool { return m.grant.Unit != "" }

// endMigration has the leader take a migration back that is over, or that nobody wants any
// more. It returns why one has failed for which there is a way back.
func (m *maker) endMigration() (failed string) {
	g := m.grant
	if !m.migrates() {
		return ""
	}
	id, reason, _ := strings.Cut(m.saidOfSchema(g.Unit)[relations.Migrated], " ")
	wayBack := m.active != "" && m.target != m.active
	switch {
	case !m.peers.Has(g.Unit, m.Juju.Unit) || slices.Contains(m.Juju.Members.Dying, g.Unit):
	case id == g.ID && reason == "":
		if !g.Up() {
			m.before = relations.Before{}
		}
	case id == g.ID && g.Up() && g.Version == m.target && wayBack:
		failed = migrationFailed.status(g.Version, reason, concourse.MigrationUnit, g.Unit).Message
	case g.Up() != (g.Version == m.target): // something else was asked for meanwhile
	default:
		return ""
	}
	m.grant = relations.Grant{ID: g.ID}
	return failed
}

// grantMigration has the leader choose who changes the schema: the unit whose web server goes
// first. It is taken up for the version where all units are to get. It is taken down to what
// it was before, while no web server of the newer version has served.
func (m *maker) grantMigration() {
	if !m.Juju.Leader {
		return
	}
	if m.before.Version != "" && m.before.Version == m.active {
		m.before = relations.Before{}
	}
	unit := m.goesFirst()
	due := relations.ParseDue(m.saidOfSchema(unit)[relations.SchemaDue])
	tries, _ := strconv.Atoi(m.grant.ID) // none before the first
	g := relations.Grant{ID: strconv.Itoa(tries + 1), Unit: unit, Version: due.Version, From: due.Database, To: due.Supported}
	switch {
	case m.migrates() || due.Version == "" || due.Version != m.target || slices.Contains(m.Juju.Members.Dying, unit):
	case g.Up():
		// What another try has begun with is to be come back to.
		if m.before.Version == "" || m.before.Schema > due.Database {
			m.before.Schema = due.Database
		}
		m.before.Version, m.grant = due.Version, g
	case m.before.Version != "" && m.before.Schema <= due.Supported:
		g.Version, g.To = m.before.Version, m.before.Schema
		m.grant = g
	}
	m.changes.App[relations.Migration], m.changes.App[relations.SchemaBefore] = m.grant.String(), m.before.String()
}

// goesFirst is the unit whose web server goes first to another version.
func (m *maker) goesFirst() string {
	if m.Config.Mode != "auto" {
		return m.Juju.Unit
	}
	return cmp.Or(m.next, m.serving)
}

// webUnits are the units that have a web server, or are to have one.
func (m *maker) webUnits() []string {
	var units []string
	for _, unit := range append(m.known(), m.Juju.Unit) {
		if m.Config.Mode != "auto" || unit == m.serving || unit == m.next {
			units = append(units, unit)
		}
	}
	slices.Sort(units)
	return units
}

// planMigration stops the web server of a unit while the schema is changed, and has the one
// that was chosen do it. What it has begun it goes on with.
func (m *maker) planMigration() {
	g := m.grant
	if !m.migrates() {
		return
	}
	if m.web {
		m.spec.Halt = g.ID
	}
	// One that does not run, as it changes the schema, is not silent.
	own := m.webAt(g.Unit)
	m.spec.Watch = slices.DeleteFunc(m.spec.Watch, func(at string) bool { return at == own })
	if g.Unit != m.Juju.Unit {
		return
	}
	begun := m.Before.Migrate != nil && m.Before.Migrate.ID == g.ID && m.Before.Migrate.Go
	going := m.Status.Halted == g.ID && (!g.Up() || m.Status.Pinned == g.Version)
	m.spec.Silence = silence
	for _, unit := range m.webUnits() {
		at := m.webAt(unit)
		if unit == m.Juju.Unit || at == "" || m.peers.Units[unit][relations.WebHalted] == g.ID {
			continue
		}
		// It has that long to hear of it: that it was silent before says nothing.
		since := at + "#" + g.ID
		m.spec.Watch = append(m.spec.Watch, since)
		if !slices.Contains(strings.Fields(m.Status.Silent), since) {
			going, m.halts = false, append(m.halts, unit)
		}
	}
	m.spec.Migrate = &supervisor.Migration{ID: g.ID, Version: g.Version, From: g.From, To: g.To, Go: begun || going}
}

// tellMigration says what the leader, and the unit that changes the schema, need to know.
func (m *maker) tellMigration() {
	for name, value := range m.saidOfSchema(m.Juju.Unit) {
		m.changes.Self[name] = value
	}
}

// saidOfSchema are a unit's settings about the schema. Those of this unit are about to be as
// its status is.
func (m *maker) saidOfSchema(unit string) map[string]string {
	if unit != m.Juju.Unit {
		return m.peers.Units[unit]
	}
	var due relations.Due
	if s := m.Status.Schema; s.Due || s.Database > s.Supported {
		due = relations.Due{Version: s.Release, Database: s.Database, Supported: s.Supported}
	}
	return map[string]string{
		relations.SchemaDue: due.String(), relations.WebHalted: m.Status.Halted, relations.Migrated: m.Status.Migrated,
	}
}

// goesBack tells whether the schema is taken down, or is to be, by itself.
func (m *maker) goesBack() bool {
	s := m.Status.Schema
	return m.before.Version != "" && m.before.Version != m.target && s.Database > s.Supported && m.before.Schema <= s.Supported
}

// checkMigration says how far a change of the schema is, and what it waits for.
func (m *maker) checkMigration() {
	g, p := m.grant, m.Status.Migration
	if !m.migrates() {
		return
	}
	text := migrating
	if !g.Up() {
		text = takingDown
	}
	switch _, reason, _ := strings.Cut(m.Status.Migrated, " "); {
	case g.Unit != m.Juju.Unit:
		m.say(migratedElsewhere, g.Unit, g.From, g.To)
	case reason != "":
		m.say(migrationFails, g.From, g.To, reason, concourse.MigrationUnit)
	case p.Version == "" && len(m.halts) > 0:
		m.say(haltsFor, strings.Join(m.halts, ", "))
	case p.Steps > 0:
		m.say(text, m.target, g.From, g.To, strconv.Itoa(p.Done)+" of "+strconv.Itoa(p.Steps)+" steps, ", p.Minutes)
	default:
		m.say(text, m.target, g.From, g.To, "", p.Minutes)
	}
}

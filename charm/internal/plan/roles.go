package plan

import (
	"cmp"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/concourse"
	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/relations"
)

// How long a web server may be silent before another unit is appointed. In an upgrade it
// has its own deadline, after which the upgrade is taken back (supervisor.Defaults: 3 min).
const (
	silence          = time.Minute
	silenceInUpgrade = 4 * time.Minute
)

// chooseRoles tells what the unit runs. In mode auto one unit has the web server, and
// keeps it wherever leadership goes. The one that is to take over runs both until its web
// server has answered, so that nothing is taken from anybody before.
func (m *maker) chooseRoles() {
	app, self := m.peers.App, m.Juju.Unit
	m.serving, m.next = app[relations.WebUnit], app[relations.NextWebUnit]
	m.tsaHost, m.nextTSA = app[relations.TSAHost], app[relations.NextTSAHost]
	if m.Config.Mode != "auto" {
		m.web, m.worker, m.first = true, m.Config.Mode == "all", m.Juju.Leader
		if m.first && m.Status.Web.Version != "" {
			m.serving, m.next, m.tsaHost, m.nextTSA = self, "", m.ownTSA(), ""
		}
	} else {
		if m.Juju.Leader {
			m.appoint()
		}
		m.web = self == m.serving || self == m.next
		m.worker = self != m.serving && (self != m.next || m.serving != "")
		m.first = m.web
	}
	if m.Juju.Leader {
		set := m.changes.App
		set[relations.WebUnit], set[relations.NextWebUnit], set[relations.TSAHost] = m.serving, m.next, m.tsaHost
		set[relations.NextTSAHost] = m.nextTSA
	}
}

// appoint has the leader choose the unit with the web server: itself at first, later one
// that can serve.
func (m *maker) appoint() {
	has := func(unit string) bool {
		return m.peers.Has(unit, m.Juju.Unit) && !slices.Contains(m.Juju.Members.Dying, unit)
	}
	switch {
	case m.migrates() && has(m.grant.Unit): // it stays until it is through
	case has(m.serving) && !m.heard(m.Status.Silent, m.serving):
		m.next = ""
	case has(m.next) && m.heard(m.Status.Answering, m.next):
		m.serving, m.next = m.next, ""
	case has(m.next) && !m.heard(m.Status.Silent, m.next): // it may need its time
	case has(m.serving) && m.database == nil: // no other would fare better
		m.next = ""
	default:
		m.next = m.candidate(has)
	}
	m.tsaHost = cmp.Or(tsaAt(m.address(m.serving)), m.tsaHost)
	m.nextTSA = tsaAt(m.address(m.next))
}

// candidate is a unit that runs what is active. Where one fails the next has its turn.
func (m *maker) candidate(has func(unit string) bool) string {
	units := append([]string{m.Juju.Unit}, slices.Sorted(maps.Keys(m.peers.Units))...)
	if failed := slices.Index(units, m.next); failed >= 0 {
		units = append(units[failed+1:], units[:failed]...)
	}
	active := m.peers.App[relations.ActiveVersion]
	for _, unit := range units {
		version := m.peers.Units[unit][relations.ConcourseVersion]
		if unit == m.Juju.Unit {
			version = m.peers.Self[relations.ConcourseVersion]
		}
		if unit != m.serving && has(unit) && active != "" && version == active {
			return unit
		}
	}
	if has(m.serving) || has(m.next) {
		return m.next // which may answer yet
	}
	return m.Juju.Unit
}

// watchWeb has every unit know whether the web server answers: any may have to lead.
func (m *maker) watchWeb() {
	if m.Config.Mode != "auto" {
		return
	}
	m.spec.Silence = silence
	if m.active != m.target {
		m.spec.Silence = silenceInUpgrade
	}
	for _, unit := range []string{m.serving, m.next} {
		if at := m.webAt(unit); at != "" {
			m.spec.Watch = append(m.spec.Watch, at)
		}
	}
}

// heard tells whether the supervisor has a unit's web server in one of its lists.
func (m *maker) heard(list, unit string) bool {
	at := m.webAt(unit)
	return at != "" && slices.Contains(strings.Fields(list), at)
}

// webAt is where a unit's web server answers; empty where that is not known.
func (m *maker) webAt(unit string) string { return hostPort(m.address(unit), m.Config.WebPort) }

// address is that of a unit. A worker knows it of the unit that serves alone.
func (m *maker) address(unit string) string {
	switch unit {
	case "":
		return ""
	case m.Juju.Unit:
		return m.Juju.Address
	case m.serving:
		if address := m.peers.Units[unit][relations.WebIP]; address != "" {
			return address
		}
		host, _, _ := net.SplitHostPort(m.tsaHost) // empty for none
		return host
	}
	return m.peers.Units[unit][relations.WebIP]
}

// webUnit is the unit whose web server speaks for the application.
func (m *maker) webUnit() string {
	switch {
	case m.Config.Mode != "auto":
		return m.Juju.Unit
	case m.serving != "":
		return m.serving
	}
	return m.next
}

// registered tells whether the web server lists this unit's worker as running.
func (m *maker) registered() bool {
	workers := m.Status.Workers
	if m.Config.Mode == "auto" && m.serving != m.Juju.Unit {
		workers = m.peers.Units[m.serving][relations.RunningWorkers]
	}
	return slices.Contains(strings.Fields(workers), concourse.WorkerName(m.Juju.Unit))
}

func tsaAt(address string) string { return hostPort(address, concourse.TSAPort) }

// hostPort is empty without an address.
func hostPort(address string, port int) string {
	if address == "" {
		return ""
	}
	return net.JoinHostPort(address, strconv.Itoa(port))
}

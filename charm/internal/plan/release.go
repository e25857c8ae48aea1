package plan

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/concourse"
	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/options"
	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/relations"
	"github.com/concourse-ci-machine/concourse-ci-machine/charm/product"
)

// checkOptions complains of all options at once that cannot be meant. A version that is
// malformed alone is no reason to stop: see chooseTarget.
func (m *maker) checkOptions() {
	wrong := options.Wrong(m.Config)
	if len(wrong) == 0 {
		return
	}
	if given := strings.TrimSpace(m.Config.Version); given != "" {
		if _, err := product.ParseVersion(given); err != nil {
			wrong = append(wrong, malformedVersion.status(given).Message)
		}
	}
	m.say(wrongOptions, strings.Join(wrong, "; "))
}

// chooseTarget has the leader weigh the option, requests of actions and an
// upgrade that failed. The last to speak wins, so what was heard is remembered.
func (m *maker) chooseTarget() {
	before, app := m.peers.App, m.changes.App
	m.target, m.active, m.try = before[relations.TargetVersion], before[relations.ActiveVersion], before[relations.UpgradeTry]
	option := relations.Newest
	if given := strings.TrimSpace(m.Config.Version); given != "" {
		var err error
		if option, err = product.ParseVersion(given); err != nil {
			m.say(malformedVersion, given)
			option = before[relations.ConfigVersion] // as if nothing had been said
		}
	}
	if !m.Juju.Leader {
		return
	}
	failed := before[relations.FailedUpgrade]
	if option != before[relations.ConfigVersion] {
		version := option
		switch {
		case option == relations.Newest && m.target != "":
			version = m.target // a cluster that has a version is not moved by none
		case option == relations.Newest:
			version = m.Status.Newest
		}
		m.newest = version == ""
		if !m.newest {
			m.target, failed = version, ""
			app[relations.ConfigVersion] = option
			m.tryAnew()
		}
	}
	for _, r := range m.peers.Requests(m.Juju.Unit) {
		app[relations.Handled(r.Unit)] = r.Value
		m.target, failed, m.newest = r.Version, "", false
		m.tryAnew()
		if option != "" {
			app[relations.ConfigVersion] = option
		}
	}
	// Before the spec, as no other hook comes for it; and before it is taken back, as what has
	// served has data that is lost with its schema.
	if version := m.peers.Units[m.webUnit()][relations.ConcourseVersion]; version != "" {
		m.prove(version)
	}
	if m.active != "" && m.target != m.active && m.overdue() == strings.TrimSpace(m.target+" "+m.try) {
		failed = upgradeFailed.status(m.target, concourse.ServerUnit).Message
		m.target = m.active
	}
	if why := m.endMigration(); why != "" {
		failed, m.target = why, m.active
	}
	app[relations.TargetVersion] = m.target
	app[relations.FailedUpgrade] = failed
	if failed != "" && !m.migrates() {
		m.say(failedBefore, failed)
	}
}

// tryAnew has the web server's time for an answer begin, also with a version that was
// tried before.
func (m *maker) tryAnew() {
	tries, _ := strconv.Atoi(m.peers.App[relations.UpgradeTry]) // none before the first
	m.try = strconv.Itoa(tries + 1)
	m.changes.App[relations.UpgradeTry] = m.try
}

// overdue is the version with which the web server has not answered in time, and the try.
func (m *maker) overdue() string {
	for _, unit := range []string{m.serving, m.next} {
		if version := m.peers.Units[unit][relations.OverdueVersion]; version != "" {
			return version
		}
	}
	return m.Status.Overdue
}

// contents are those of the releases that units may run from a shared volume. What the
// leader has once found stays, as long as a unit may run the version.
func (m *maker) contents() map[string]string {
	if !m.Config.Shared() {
		return nil
	}
	known := m.peers.ReleaseContents()
	if !m.Juju.Leader {
		return known
	}
	if s := m.Status; s.Installed != "" && s.Contents != "" && known[s.Installed] == "" {
		known[s.Installed] = s.Contents
	}
	var list []string
	for _, version := range slices.Sorted(maps.Keys(known)) {
		if version == m.target || version == m.active || version == m.before.Version || version == m.grant.Version {
			list = append(list, version+"="+known[version])
		}
	}
	m.changes.App[relations.Contents] = strings.Join(list, " ")
	return known
}

package plan

import (
	"fmt"
	"strings"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/concourse"
	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/relations"
)

// planWeb describes the web server. It stays as it was described while the database's
// settings or the keys cannot be read, as may be for a moment while they change.
func (m *maker) planWeb() {
	m.changes.Ports = []int{}
	if !m.web {
		return
	}
	c := m.Config
	m.changes.Ports = []int{c.WebPort, concourse.TSAPort}
	switch {
	case m.keys == nil:
		m.say(waitingForKeys)
		m.keepWeb(m.related() && m.peers.App[relations.KeysSecret] != "")
	case m.database == nil:
		m.keepWeb(m.related())
	default:
		m.spec.Web = &concourse.Web{
			Port: c.WebPort, Address: m.Juju.Address, ExternalURL: c.ExternalURL,
			AdminUser: c.InitialAdminUsername, LogLevel: c.LogLevel, Database: *m.database, Keys: *m.keys,
			AuthorizedKeys: strings.Join(m.peers.WorkerKeys(m.Status.WorkerKey), "\n") + "\n",
		}
	}
}

func (m *maker) keepWeb(keep bool) {
	if keep {
		m.spec.Web, m.unknown = m.Before.Web, m.Before.Web == nil
	}
}

// planWorker describes the worker. A unit that is both registers with its own web
// server; its worker stays as it was described while the keys cannot be read.
func (m *maker) planWorker() {
	if !m.worker {
		return
	}
	host, key := m.peers.App[relations.TSAHost], m.peers.App[relations.TSAPublicKey]
	if m.web && m.keys != nil {
		host, key = m.ownTSA(), m.hostPublicKey()
	}
	switch {
	case m.web && m.keys == nil && m.Before.Worker != nil:
		m.spec.Worker = m.Before.Worker
	case host != "" && key != "":
		m.spec.Worker = &concourse.Worker{
			Name: concourse.WorkerName(m.Juju.Unit), TSAHost: host, HostPublicKey: key, LogLevel: m.Config.LogLevel,
		}
	}
}

// ownTSA is where workers register with this unit's web server.
func (m *maker) ownTSA() string { return fmt.Sprintf("%s:%d", m.Juju.Address, concourse.TSAPort) }

// hostPublicKey is empty for a key that cannot be parsed, which the web server
// itself will refuse with a better message.
func (m *maker) hostPublicKey() string {
	public, err := concourse.PublicKey(m.keys.HostKey)
	if err != nil {
		return ""
	}
	return public
}

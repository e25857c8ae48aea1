package plan

import (
	"net"
	"strings"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/concourse"
	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/options"
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
			// The TSA asks workers for their health at this address, by the proxy if it may.
			Options: c.Except(m.Juju.Address).Environment(options.Web),
		}
	}
}

func (m *maker) keepWeb(keep bool) {
	if keep {
		m.spec.Web = m.Before.Web
	}
}

// planWorker describes the worker, which knows the TSA by a name: its address may change.
// That of a web server that is to take over comes first, so that workers have registered
// there when it takes up the builds: it takes one whose worker it cannot find for lost.
// In mode all it registers with the unit's own web server, and stays as it was described
// while the keys cannot be read. The worker of a unit that serves in mode auto ends with
// its builds.
func (m *maker) planWorker() {
	host, key := m.tsaHost, m.peers.App[relations.TSAPublicKey]
	if m.Config.Mode != "auto" && m.keys != nil {
		host, key = m.ownTSA(), m.hostPublicKey()
	}
	if address := addressOf(host); address != "" {
		m.spec.TSA, host = strings.TrimSpace(addressOf(m.nextTSA)+" "+address), tsaAt(concourse.TSAName)
	}
	switch {
	case !m.worker:
		m.spec.Land = m.web
	case m.Config.Mode != "auto" && m.keys == nil && m.Before.Worker != nil:
		m.spec.Worker, m.spec.TSA = m.Before.Worker, m.Before.TSA
	case host != "" && key != "":
		m.spec.Worker = &concourse.Worker{
			Name: concourse.WorkerName(m.Juju.Unit), TSAHost: host, HostPublicKey: key, LogLevel: m.Config.LogLevel,
			LocalDir: m.Config.WorkerWorkDir, Options: m.Config.Environment(options.Worker),
		}
	}
}

// addressOf is the IP address of host:port; empty for a host with a name.
func addressOf(hostPort string) string {
	host, _, err := net.SplitHostPort(hostPort)
	if err != nil || net.ParseIP(host) == nil {
		return ""
	}
	return host
}

// ownTSA is where workers register with this unit's web server.
func (m *maker) ownTSA() string { return tsaAt(m.Juju.Address) }

// hostPublicKey is empty for a key that cannot be parsed, which the web server
// itself will refuse with a better message.
func (m *maker) hostPublicKey() string {
	public, err := concourse.PublicKey(m.keys.HostKey)
	if err != nil {
		return ""
	}
	return public
}

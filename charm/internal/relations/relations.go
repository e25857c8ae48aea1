// Package relations reads and writes the charm's relations: its peers and its
// database.
package relations

import (
	"cmp"
	"net"
	"slices"
	"strings"

	"github.com/gruyaume/goops"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/concourse"
)

// Settings that units of one application leave for each other. The first group
// belongs to the application and is written by its leader.
const (
	TargetVersion = "target-version" // all units should come to run this one
	ConfigVersion = "config-version" // value of the option version that target-version took into account
	ActiveVersion = "active-version" // the web server has answered with this one
	FailedUpgrade = "failed-upgrade" // why the last upgrade was taken back
	WebUnit       = "web-unit"
	TSAHost       = "tsa-host"
	TSAPublicKey  = "tsa-public-key"
	KeysSecret    = "keys-secret"
	Handled       = "handled-" // followed by a unit's name with a dash: its last UpgradeRequest that was heard

	WorkerPublicKey  = "worker-public-key"
	ConcourseVersion = "concourse-version" // what the unit runs
	WebIP            = "web-ip"
	UpgradeRequest   = "upgrade-request" // "NONCE VERSION": an action asked for it on this unit
)

// PeersEndpoint is the name of the peer relation.
const PeersEndpoint = "peers"

const (
	databaseEndpoint = "postgresql"
	databaseName     = "concourse"
)

// Newest is the ConfigVersion of an empty option: settings have no empty values.
const Newest = "newest"

// Peers is the peer relation as one unit sees it.
type Peers struct {
	id    string
	unit  string
	App   map[string]string
	Self  map[string]string
	Units map[string]map[string]string // the other units
}

// ReadPeers returns nil before the relation exists.
func ReadPeers(unit string) (*Peers, error) {
	ids, err := goops.GetRelationIDs(PeersEndpoint)
	if err != nil || len(ids) == 0 {
		return nil, err
	}
	p := &Peers{id: ids[0], unit: unit, Units: map[string]map[string]string{}}
	if p.App, err = goops.GetAppRelationData(p.id, unit); err != nil {
		return nil, err
	}
	if p.Self, err = goops.GetUnitRelationData(p.id, unit); err != nil {
		return nil, err
	}
	units, err := goops.ListRelationUnits(p.id)
	if err != nil {
		return nil, err
	}
	for _, other := range units {
		if p.Units[other], err = goops.GetUnitRelationData(p.id, other); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// Write sets what differs. Only the leader may give application settings.
func (p *Peers) Write(app, self map[string]string) error {
	if changed := difference(p.App, app); len(changed) > 0 {
		if err := goops.SetAppRelationData(p.id, changed); err != nil {
			return err
		}
	}
	if changed := difference(p.Self, self); len(changed) > 0 {
		return goops.SetUnitRelationData(p.id, changed)
	}
	return nil
}

func difference(old, settings map[string]string) map[string]string {
	changed := map[string]string{}
	for name, value := range settings {
		if old[name] != value {
			changed[name] = value
		}
	}
	return changed
}

// WorkerKeys are the public keys of all units, sorted: each may register.
func (p *Peers) WorkerKeys(own string) []string {
	keys := []string{own}
	for _, settings := range p.Units {
		if key := settings[WorkerPublicKey]; key != "" {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return slices.Compact(keys)
}

// Reply is what the other side of the database relation has given so far.
type Reply struct {
	Related  bool
	Database *concourse.Database // nil until it is complete
	// Early is set when something may not be read yet, or no more: Juju shows
	// settings a moment before it grants the secrets in them, and relations for
	// a while after it took them away, and sends no event in between.
	Early bool
}

// ReadDatabase asks for a database and returns what came of it. Juju may still
// list relations that are gone, so the newest one that can be read counts.
func ReadDatabase(unit string, leader bool) (Reply, error) {
	ids, err := goops.GetRelationIDs(databaseEndpoint)
	if err != nil {
		return Reply{}, err
	}
	env := goops.GetEnvGetter().Get
	if strings.HasSuffix(env("JUJU_HOOK_NAME"), "-relation-broken") {
		broken := env("JUJU_RELATION_ID")
		ids = slices.DeleteFunc(ids, func(id string) bool { return id == broken })
	}
	slices.SortFunc(ids, func(a, b string) int { return cmp.Or(len(b)-len(a), strings.Compare(b, a)) })
	for _, id := range ids {
		reply, err := readDatabase(id, unit, leader)
		if err == nil {
			return reply, nil
		}
		goops.LogWarningf("Cannot read relation %s yet: %v", id, err)
	}
	return Reply{Related: len(ids) > 0, Early: len(ids) > 0}, nil
}

func readDatabase(id, unit string, leader bool) (Reply, error) {
	if leader {
		if err := requestDatabase(id, unit); err != nil {
			return Reply{}, err
		}
	}
	units, err := goops.ListRelationUnits(id)
	if err != nil || len(units) == 0 {
		return Reply{Related: true}, err
	}
	settings, err := goops.GetAppRelationData(id, units[0])
	if err != nil {
		return Reply{}, err
	}
	for _, secret := range []string{"secret-user", "secret-tls"} {
		if settings[secret] == "" {
			continue
		}
		// Refreshing takes over a rotated password; there is nothing to keep of the old one.
		content, err := goops.GetSecretByID(settings[secret], false, true)
		if err != nil {
			goops.LogWarningf("Cannot read the database's %s yet: %v", secret, err)
			return Reply{Related: true, Early: true}, nil
		}
		for _, name := range []string{"username", "password", "tls"} {
			if content[name] != "" {
				settings[name] = content[name]
			}
		}
	}
	return Reply{Related: true, Database: parseDatabase(settings)}, nil
}

func requestDatabase(id, unit string) error {
	current, err := goops.GetAppRelationData(id, unit)
	if err != nil {
		return err
	}
	changed := difference(current, map[string]string{
		"database":          databaseName,
		"requested-secrets": `["username","password","tls","tls-ca","uris"]`,
	})
	if len(changed) == 0 {
		return nil
	}
	return goops.SetAppRelationData(id, changed)
}

// parseDatabase returns nil for settings that are not complete yet.
func parseDatabase(settings map[string]string) *concourse.Database {
	endpoint, _, _ := strings.Cut(settings["endpoints"], ",")
	if endpoint == "" || settings["username"] == "" || settings["password"] == "" {
		return nil
	}
	host, port, err := net.SplitHostPort(endpoint)
	if err != nil {
		host, port = endpoint, "5432"
	}
	name := settings["database"]
	if name == "" {
		name = databaseName
	}
	return &concourse.Database{
		Host: host, Port: port, Name: name, User: settings["username"], Password: settings["password"],
		TLS: strings.EqualFold(settings["tls"], "true"),
	}
}

// Package juju reads from Juju what a hook may know, a Snapshot, and tells it what the
// hook has decided, Changes. It is the only package that speaks with Juju's hook tools.
package juju

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/gruyaume/goops"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/options"
)

// Event is what Juju has started the charm for.
type Event struct {
	Hook      string // empty for an action
	Action    string // empty for a hook
	Unit      string
	Model     string // its UUID
	Relation  string // endpoint of the relation that it is about, if it is about one
	ID        string // of that relation
	Departing string // unit that leaves that relation
	// Proxies are those that the model has for charms, juju-http-proxy and its siblings.
	Proxies options.Proxies
}

// ReadEvent reads the environment that Juju gives to a hook.
func ReadEvent() Event {
	env, get := goops.ReadEnv(), goops.GetEnvGetter().Get
	return Event{
		Hook: env.HookName, Action: env.ActionName, Unit: env.UnitName, Model: env.ModelUUID,
		Proxies:  options.Proxies{HTTP: env.CharmHTTPProxy, HTTPS: env.CharmHTTPSProxy, No: env.CharmNoProxy},
		Relation: get("JUJU_RELATION"), ID: get("JUJU_RELATION_ID"), Departing: get("JUJU_DEPARTING_UNIT"),
	}
}

// Snapshot is what Juju knows, as one hook sees it.
type Snapshot struct {
	Event
	Leader  bool
	Address string    // of this unit, for its peers; empty while Juju does not know it
	Peers   *Relation // nil before it exists
	Members Members
	// Database is the relation that counts, nil if there is none. Juju may still list
	// relations that are gone: it is the newest one that can be read. Unreadable says
	// that there are some, and none can be read.
	Database   *Relation
	Unreadable bool
	// Secrets are the contents of those that settings name, by their ids. Juju shows
	// settings a moment before it grants the secrets in them, and sends no event in
	// between: Early says that one may not be read yet.
	Secrets map[string]map[string]string
	Early   bool
}

// Relation is one relation.
type Relation struct {
	ID        string
	App       map[string]string            // settings of this application
	Self      map[string]string            // of this unit
	RemoteApp map[string]string            // of the other application
	Units     map[string]map[string]string // of the other units; nil settings were not asked for
}

// Members are the units of the application, whether they have joined a relation or not.
type Members struct {
	All   []string // sorted, this one among them; nil if they were not asked for
	Dying []string // those that are being removed
}

// Needs are what a hook has use for: each costs hook tools.
type Needs struct {
	Database string // name of the endpoint; empty if this unit has no use for the database
	Units    bool   // settings of all peers
	Unit     string // else of this one, if it is a peer
}

// ReadConfig reads the application's options into a struct with json tags.
func ReadConfig(into any) error { return goops.GetConfig(into) }

// IsLeader tells whether this unit leads its application.
func IsLeader() (bool, error) { return goops.IsLeader() }

// Read takes a snapshot. What it needs depends on the application's settings for the
// peers, whose endpoint is named.
func Read(event Event, leader bool, peers string, needed func(app map[string]string) Needs) (Snapshot, error) {
	s := Snapshot{Event: event, Leader: leader, Secrets: map[string]map[string]string{}}
	ids, err := goops.GetRelationIDs(peers)
	if err != nil || len(ids) == 0 {
		return s, err
	}
	app, err := goops.GetAppRelationData(ids[0], event.Unit)
	if err != nil {
		return s, err
	}
	needs := needed(app)
	if needs.Units {
		if s.Members, err = readMembers(event.Unit); err != nil {
			return s, err
		}
	}
	if s.Peers, err = readPeers(ids[0], event.Unit, app, needs); err != nil {
		return s, err
	}
	s.Address = address(peers)
	if needs.Database == "" {
		return s, nil
	}
	if err := s.readDatabase(needs.Database); err != nil {
		return s, err
	}
	s.readSecrets(s.Peers.App)
	if s.Database != nil {
		s.readSecrets(s.Database.RemoteApp)
	}
	return s, nil
}

func readPeers(id, unit string, app map[string]string, needs Needs) (*Relation, error) {
	r := &Relation{ID: id, App: app, Units: map[string]map[string]string{}}
	var err error
	if r.Self, err = goops.GetUnitRelationData(id, unit); err != nil {
		return nil, err
	}
	units, err := goops.ListRelationUnits(id)
	if err != nil {
		return nil, err
	}
	for _, other := range units {
		r.Units[other] = nil
		if !needs.Units && other != needs.Unit {
			continue
		}
		if r.Units[other], err = goops.GetUnitRelationData(id, other); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// readMembers asks Juju which units there are. Those of a relation are another matter: a unit
// stays in it until a hook says that it departs, which Juju 4.1 may never run.
func readMembers(unit string) (m Members, err error) {
	goal, err := goops.GetGoalState()
	if err != nil {
		return m, fmt.Errorf("list the application's units: %w", err)
	}
	m.All = []string{unit}
	for name, state := range goal.Units {
		if name != unit {
			m.All = append(m.All, name)
		}
		if state.Status == "dying" {
			m.Dying = append(m.Dying, name)
		}
	}
	slices.Sort(m.All)
	return m, nil
}

func (s *Snapshot) readDatabase(endpoint string) error {
	ids, err := goops.GetRelationIDs(endpoint)
	if err != nil {
		return err
	}
	if strings.HasSuffix(s.Hook, "-relation-broken") {
		ids = slices.DeleteFunc(ids, func(id string) bool { return id == s.ID })
	}
	slices.SortFunc(ids, func(a, b string) int { // the newest has the highest number
		return cmp.Or(cmp.Compare(len(b), len(a)), cmp.Compare(b, a))
	})
	for _, id := range ids {
		if s.Database, err = readRemote(id, s.Unit, s.Leader); err == nil {
			return nil
		}
		goops.LogWarningf("Cannot read relation %s yet: %v", id, err)
	}
	s.Database, s.Unreadable = nil, len(ids) > 0
	return nil
}

func readRemote(id, unit string, leader bool) (*Relation, error) {
	r := &Relation{ID: id}
	var err error
	if leader { // others may not
		if r.App, err = goops.GetAppRelationData(id, unit); err != nil {
			return nil, err
		}
	}
	units, err := goops.ListRelationUnits(id)
	if err != nil || len(units) == 0 {
		return r, err
	}
	r.RemoteApp, err = goops.GetAppRelationData(id, units[0])
	return r, err
}

// readSecrets reads those that settings name. Refreshing takes over a content that was
// changed; there is nothing to keep of the old one.
func (s *Snapshot) readSecrets(settings map[string]string) {
	for name, id := range settings {
		if !strings.HasPrefix(id, "secret:") {
			continue
		}
		content, err := goops.GetSecretByID(id, false, true)
		if err != nil {
			goops.LogWarningf("Cannot read the secret in %s yet: %v", name, err)
			s.Early = true
			continue
		}
		s.Secrets[id] = content
	}
}

// address is where peers reach this unit.
// address is empty where Juju cannot say it: soon after a machine was made it may not know it
// yet. It runs config-changed when it does.
func address(endpoint string) string {
	network, err := goops.GetNetwork(endpoint)
	switch {
	case err != nil:
		Log("WARN", "Cannot find this unit's address: "+err.Error())
		return ""
	case len(network.IngressAddresses) == 0:
		return ""
	}
	return network.IngressAddresses[0]
}

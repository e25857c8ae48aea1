package sim

import (
	"maps"
	"slices"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/juju"
)

// step runs what is next, unless something runs.
func (a *agent) step() {
	if !a.connected() || a.running != nil || !a.remote.told {
		return
	}
	l, idle := &a.local, a.local.hook == nil
	if a.remote.life == dead || l.removed {
		return
	}
	if a.rebooted && (idle || !l.started) {
		if a.rebooted = false; l.started {
			a.run(&hook{name: "start"})
			return
		}
	}
	if h := a.created(); h != nil {
		a.run(h)
		return
	}
	if l.leader && (!a.remote.leader || a.remote.life == dying) {
		l.leader = false
	}
	if l.installed && idle && a.remote.leader && !l.leader && a.remote.life == alive {
		l.leader, l.hook, l.queued = true, &hook{name: "leader-elected"}, true
		idle = false
	}
	if id := a.changedSecret(); id != "" && idle {
		a.run(&hook{name: "secret-changed", secret: id, version: a.remote.secrets[id]})
		return
	}
	switch {
	case len(a.actions) > 0 && (idle || !l.queued):
		a.act()
	case len(a.commands) > 0:
		a.command()
	case !idle && l.queued && l.hook.name == "leader-elected" && a.unit.juju.leader != a.unit.name:
		l.hook = nil // skipped
		a.step()
	case !idle && l.queued:
		a.run(l.hook)
	case !idle && a.retry:
		a.retry = false
		a.run(l.hook)
	case idle:
		if h := a.next(); h != nil {
			a.run(h)
		}
	}
}

// created enters the scope of relations that are new to the unit, and returns the hook
// for one of them, in any order.
func (a *agent) created() *hook {
	l := &a.local
	if !l.installed || l.hook != nil || a.remote.life == dying {
		return nil
	}
	a.synchronize()
	ids := sortedKeys(a.remote.relations)
	a.unit.rand.Shuffle(len(ids), func(i, j int) { ids[i], ids[j] = ids[j], ids[i] })
	for _, id := range ids {
		if local := l.relations[id]; local != nil && !local.created && a.remote.relations[id].life == alive {
			return &hook{name: local.endpoint + "-relation-created", relation: id}
		}
	}
	return nil
}

// synchronize enters what is new. A unit that is dying enters nothing.
func (a *agent) synchronize() {
	if a.unit.life != alive {
		return
	}
	for _, id := range sortedKeys(a.remote.relations) {
		r := a.remote.relations[id]
		rel := a.unit.juju.relation(id)
		if a.local.relations[id] != nil || r.life != alive || rel == nil {
			continue
		}
		a.local.relations[id] = &localRelation{endpoint: r.endpoint, peer: r.peer, members: map[string]int{}}
		a.unit.juju.enter(rel, a.unit)
	}
}

func (a *agent) changedSecret() string {
	if !a.local.installed || a.remote.life == dying {
		return ""
	}
	for _, id := range sortedKeys(a.remote.secrets) {
		if a.remote.secrets[id] > a.local.secrets[id] {
			return id
		}
	}
	return ""
}

// next is nextOp of Juju's resolver.
func (a *agent) next() *hook {
	l := &a.local
	if a.remote.life == dying {
		switch h := a.nextOfRelations(); {
		case h != nil:
			return h
		case l.started && !l.stopped:
			return &hook{name: "stop"}
		case l.installed && !l.removed:
			return &hook{name: "remove"}
		}
		a.unit.juju.forget(a.unit)
		return nil
	}
	switch {
	case !l.installed && !l.started:
		return &hook{name: "install"}
	case l.charm != a.remote.charm:
		l.charm = a.remote.charm
		return &hook{name: "upgrade-charm"}
	case l.config != a.remote.config:
		return &hook{name: "config-changed", version: a.remote.config}
	}
	if h := a.nextOfRelations(); h != nil {
		return h
	}
	if l.interval != a.remote.interval {
		return &hook{name: "update-status"}
	}
	return nil
}

// nextOfRelations has peers last, so that hooks of other relations can rely on them.
func (a *agent) nextOfRelations() *hook {
	a.synchronize()
	ids := sortedKeys(a.local.relations)
	a.unit.rand.Shuffle(len(ids), func(i, j int) { ids[i], ids[j] = ids[j], ids[i] })
	slices.SortStableFunc(ids, func(x, y string) int {
		return a.local.relations[x].order() - a.local.relations[y].order()
	})
	for _, id := range ids {
		if h := a.nextOfRelation(id, a.local.relations[id]); h != nil {
			return h
		}
	}
	return nil
}

func (r *localRelation) order() int {
	if r.peer {
		return 1
	}
	return 0
}

// nextOfRelation is nextHookForRelation of Juju's relation resolver.
func (a *agent) nextOfRelation(id string, l *localRelation) *hook {
	r, there := a.remote.relations[id]
	broken := !there || a.remote.life == dying || r.life == dying
	if broken {
		r = remoteRelation{}
	}
	h := func(kind, unit string, version int) *hook {
		return &hook{name: l.endpoint + "-relation-" + kind, relation: id, unit: unit, version: version}
	}
	if l.pending != "" {
		return h("changed", l.pending, r.members[l.pending])
	}
	all := maps.Clone(l.members)
	maps.Copy(all, r.members)
	units := sortedKeys(all)
	for _, name := range units {
		if _, here := l.members[name]; !here {
			continue
		}
		if _, there := r.members[name]; !there {
			departed := h("departed", name, l.members[name])
			if departed.departing = name; a.unit.life != alive {
				departed.departing = a.unit.name
			}
			return departed
		}
	}
	if broken {
		if l.peer && !a.breaksPeers {
			return nil
		}
		return h("broken", "", 0)
	}
	if l.app != r.app {
		return h("changed", "", r.app)
	}
	for _, name := range units {
		if _, here := l.members[name]; !here {
			return h("joined", name, r.members[name])
		}
	}
	for _, name := range units {
		if l.members[name] != r.members[name] {
			return h("changed", name, r.members[name])
		}
	}
	return nil
}

// event is what the charm's process is told of a hook.
func (a *agent) event(h hook) juju.Event {
	e := juju.Event{Hook: h.name, Unit: a.unit.name, Model: "model", ID: h.relation, Departing: h.departing}
	if r := a.local.relations[h.relation]; r != nil {
		e.Relation = r.endpoint
	}
	return e
}

package sim

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/juju"
	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/plan"
)

const application = "ci"

// life of a unit or a relation, as in Juju.
type life uint8

const (
	alive life = iota
	dying
	dead
)

// controller is what Juju knows of the application, the truth that agents are told of a
// while later.
type controller struct {
	*world
	down bool // no agent reaches it

	config   plan.Config
	options  int // how often the configuration was changed
	charm    int // revision of the charm
	interval int // how often it was time for update-status
	leader   string
	lease    time.Duration // when leadership ends if it is not renewed

	peers    *relation
	database *relation // nil if there is none
	made     int       // relations that were ever made
	secrets  map[string]*secret
}

// relation holds the settings of both sides.
type relation struct {
	id      string
	life    life
	app     bag             // of this application
	remote  bag             // of the other application
	units   map[string]*bag // of this application's units that are, or were, in scope
	scope   map[string]bool // which are
	members map[string]*bag // units of the other application
}

type bag struct {
	settings map[string]string
	version  int
}

// set changes settings; an empty one is none.
func (b *bag) set(settings map[string]string) {
	if b.settings == nil {
		b.settings = map[string]string{}
	}
	maps.Copy(b.settings, settings)
	maps.DeleteFunc(b.settings, func(_, value string) bool { return value == "" })
	b.version++
}

type secret struct {
	revision int
	content  map[string]string
	granted  bool // units may read it
}

// Times of Juju's own.
const (
	leaseTerm  = time.Minute
	leaseRenew = 30 * time.Second
)

func newController(w *world) *controller {
	c := &controller{world: w, secrets: map[string]*secret{}}
	c.peers = c.relate()
	return c
}

func (c *controller) relate() *relation {
	r := &relation{id: fmt.Sprintf("r:%d", c.made), units: map[string]*bag{}, scope: map[string]bool{}, members: map[string]*bag{}}
	c.made++
	return r
}

// goalState are the units that there are, whatever relation they have joined.
func (c *controller) goalState() (m juju.Members) {
	for _, u := range c.members() {
		if m.All = append(m.All, u.name); u.life == dying {
			m.Dying = append(m.Dying, u.name)
		}
	}
	slices.Sort(m.All)
	return m
}

func (c *controller) relation(id string) *relation {
	for _, r := range []*relation{c.peers, c.database} {
		if r != nil && r.id == id {
			return r
		}
	}
	return nil
}

// claimLeadership is asked for by every agent now and then, and by the leader's to renew.
func (c *controller) claimLeadership(u *unit) {
	if c.leader != "" && c.leader != u.name && c.now < c.lease {
		return
	}
	if c.lease = c.now + leaseTerm; c.leader != u.name {
		c.say("juju", "%s leads", u.name)
		c.leader = u.name
		c.notify("leader")
	}
}

// notify tells all agents, each after a while, that a thing has changed.
func (c *controller) notify(what string) {
	for _, u := range c.units {
		u.agent.notice(what)
	}
}

// setApp commits the application's settings for the peers. It returns their version, zero
// if nothing has changed.
func (c *controller) setApp(settings map[string]string) int {
	if len(settings) == 0 {
		return 0
	}
	c.judge.settings()
	c.peers.app.set(settings)
	c.notify(c.peers.id)
	return c.peers.app.version
}

func (c *controller) setUnit(u *unit, settings map[string]string) int {
	if len(settings) == 0 || !c.peers.scope[u.name] {
		return 0
	}
	c.peers.units[u.name].set(settings)
	c.notify(c.peers.id)
	return c.peers.units[u.name].version
}

// enter has a unit enter the scope of a relation: the others see it from then on.
func (c *controller) enter(r *relation, u *unit) {
	if r.scope[u.name] {
		return
	}
	if r.units[u.name] == nil {
		r.units[u.name] = &bag{settings: map[string]string{"ingress-address": u.machine.address}, version: 1}
	}
	r.scope[u.name] = true
	c.notify(r.id)
}

func (c *controller) leave(r *relation, u *unit) {
	if r != nil && r.scope[u.name] {
		delete(r.scope, u.name)
		c.notify(r.id)
	}
}

// forget removes a unit that is dead, or was removed by force. The others may never be
// told that it has left their relation: Juju 4.1 was seen so.
func (c *controller) forget(u *unit) {
	u.life = dead
	c.say("juju", "%s is gone", u.name)
	if !c.chance(20) {
		c.leave(c.peers, u)
	}
	c.leave(c.database, u)
	if c.leader == u.name {
		c.leader = ""
	}
	u.agent.stop()
	c.soon(time.Second, 10*time.Second, func() { u.machine.destroy() })
}

// addUnit has a machine made, on which an agent comes up.
func (c *controller) addUnit() *unit {
	n := len(c.units)
	name := fmt.Sprintf("%s/%d", application, n)
	u := &unit{world: c.world, name: name, machine: newMachine(c.world, fmt.Sprintf("10.0.0.%d", n+1), name)}
	u.machine.unit = u
	u.agent = &agent{unit: u, breaksPeers: c.chance(50)}
	u.super = &driver{unit: u}
	c.units = append(c.units, u)
	c.say("juju", "adds %s", name)
	c.soon(5*time.Second, 20*time.Second, func() {
		if u.life != dead {
			u.machine.start()
		}
	})
	return u
}

func (c *controller) removeUnit(u *unit) {
	c.say("juju", "%s is to go", u.name)
	u.life = dying
	if u.agent.notice("life"); !u.machine.on && !u.agent.local.installed {
		c.forget(u) // there is nobody to ask
	}
}

func (c *controller) configure(change func(*plan.Config)) {
	change(&c.config)
	c.options++
	c.notify("config")
	// Juju watches hashes of the application's and of the charm's options, and each of them
	// has config-changed run.
	c.soon(0, time.Second, func() {
		c.options++
		c.notify("config")
	})
}

// refreshCharm is juju refresh.
func (c *controller) refreshCharm() {
	c.charm++
	c.notify("charm")
}

// integrate relates PostgreSQL, whose unit is there, and which answers a request.
func (c *controller) integrate() {
	c.database = c.relate()
	c.database.members["postgresql/0"] = &bag{settings: map[string]string{}, version: 1}
	c.notify(c.database.id)
}

// disintegrate removes the relation; it is gone when every unit has left it.
func (c *controller) disintegrate() {
	c.database.life = dying
	c.notify(c.database.id)
}

// integrateAnew waits until the former relation is gone.
func (c *controller) integrateAnew() {
	if c.database != nil {
		c.after(time.Second, c.integrateAnew)
		return
	}
	c.integrate()
}

const databaseSecret = "secret:database"

// requested is called when the leader has asked the database for something.
func (c *controller) requested(r *relation) {
	if len(r.remote.settings) > 0 {
		return
	}
	c.soon(time.Second, 8*time.Second, func() {
		if r != c.database || r.life != alive || len(r.remote.settings) > 0 {
			return
		}
		id := fmt.Sprintf("%s-%s", databaseSecret, r.id)
		c.secrets[id] = &secret{revision: 1, content: c.ci.credentials()}
		r.remote.set(map[string]string{"endpoints": "10.0.1.1:5432", "secret-user": id})
		c.notify(r.id)
		// Settings show a moment before the secret in them is granted.
		c.soon(0, 2*time.Second, func() { c.secrets[id].granted = true })
	})
}

// rotate gives the database another password. What is connected stays so.
func (c *controller) rotate() {
	s := c.secrets[c.database.remote.settings["secret-user"]]
	if s == nil {
		return
	}
	c.ci.password++
	s.content, s.revision = c.ci.credentials(), s.revision+1
	c.notify("secrets")
}

// tick is Juju's own clockwork.
func (c *controller) tick() {
	if c.lease > 0 && c.leader != "" && c.now >= c.lease {
		c.say("juju", "%s leads no longer", c.leader)
		c.leader = ""
		c.notify("leader")
	}
	// One that is dying leads on until it is dead.
	candidates := slices.DeleteFunc(c.members(), func(u *unit) bool { return !u.agent.connected() })
	switch leads := slices.IndexFunc(candidates, func(u *unit) bool { return u.name == c.leader }); {
	case leads >= 0 && c.now >= c.lease-leaseTerm+leaseRenew:
		c.claimLeadership(candidates[leads])
	case c.leader == "" && len(candidates) > 0:
		c.claimLeadership(pick(c.world, candidates))
	}
	if int(c.now/updateStatus) != c.interval {
		c.interval = int(c.now / updateStatus)
		c.notify("update-status")
	}
	if r := c.database; r != nil && r.life == dying && len(r.scope) == 0 {
		c.database = nil
		c.notify(r.id)
	}
	c.after(time.Second, c.tick)
}

// updateStatus is the default of update-status-hook-interval.
const updateStatus = 5 * time.Minute

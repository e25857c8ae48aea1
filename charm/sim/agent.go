package sim

import (
	"errors"
	"time"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/relations"
)

// agent is Juju's agent of one unit. It decides what to run next as Juju's uniter does
// (internal/worker/uniter: resolver.go and the packages relation, leadership, secrets,
// actions, runcommands and reboot). One hook, action or command runs at a time.
type agent struct {
	unit  *unit
	up    bool
	lives int // how often it was started: what an earlier life began has no end

	remote   remote          // what it was told, a while ago
	late     map[string]bool // what it will be told
	local    local
	running  *hookContext // nil while none runs
	rebooted bool
	seen     map[string]map[string]bag // settings of members, by relation and unit
	failed   int                       // tries of the hook that fails
	retry    bool                      // it is time to try it again

	breaks int // hooks that will fail, by a fault
	// breaksPeers has it run relation-broken of peers in the unit's removal. Juju 4.1 was
	// seen to do so for some units, though its source says that it does for none.
	breaksPeers bool
	actions     []action
	commands    []command
}

// remote is the state of the model as the agent knows it.
type remote struct {
	told                    bool // it knows anything
	life                    life
	leader                  bool
	config, charm, interval int
	relations               map[string]remoteRelation
	secrets                 map[string]int // revisions of those that the unit has read
}

type remoteRelation struct {
	life     life
	app      int            // version of the settings of the application that matters
	members  map[string]int // versions of the units' settings
	peer     bool
	endpoint string
}

// local is what the agent keeps on disk.
type local struct {
	installed, started, stopped, removed, leader bool
	hook                                         *hook
	queued                                       bool // the hook has yet to run; else it has failed
	config, charm, interval                      int
	relations                                    map[string]*localRelation
	secrets                                      map[string]int // revisions that hooks were told of
}

type localRelation struct {
	endpoint string
	peer     bool
	created  bool
	members  map[string]int
	app      int
	pending  string // unit whose relation-changed must come next
}

// hook says what one is run for.
type hook struct {
	name      string
	relation  string // its id
	unit      string // of the other side; empty for its application
	departing string
	version   int // of the settings that it is about
	secret    string
}

type action struct{ name, version string }

type command struct{ done func(error) }

func (a *agent) connected() bool { return a.up && !a.unit.machine.cut && !a.unit.juju.down }

// start is that of the agent's process: it knows what is on disk and asks for the rest.
func (a *agent) start(rebooted bool) {
	if a.up || a.unit.life == dead {
		return
	}
	a.up, a.rebooted, a.lives = true, a.rebooted || rebooted, a.lives+1
	a.remote, a.late, a.seen = remote{}, map[string]bool{}, map[string]map[string]bag{}
	a.failed, a.retry = 0, false
	if a.local.relations == nil {
		a.local.relations, a.local.secrets = map[string]*localRelation{}, map[string]int{}
	}
	a.unit.soon(time.Second, 4*time.Second, a.once(func() {
		a.remote.told = true
		for _, what := range a.unit.juju.topics() {
			a.learn(what)
		}
		if a.local.installed {
			a.remote.charm = a.local.charm // what came meanwhile is not taken: Juju 4.1 was seen so
		}
		if a.local.hook != nil && !a.local.queued { // it was cut off
			a.tryAgain()
		}
		a.step()
	}))
}

// stop is the end of its process, killed or in the orderly way. A hook that runs ends with
// it, without having said anything, and has failed. Commands are answered with an error.
func (a *agent) stop() {
	if !a.up {
		return
	}
	a.up, a.running = false, nil
	a.lives++
	for _, c := range a.commands {
		c.done(errors.New("the agent has stopped"))
	}
	a.commands = nil
}

// once returns a function that does nothing in a later life of the agent.
func (a *agent) once(do func()) func() {
	life := a.lives
	return func() {
		if a.lives == life {
			do()
		}
	}
}

func (c *controller) topics() []string {
	topics := []string{"life", "leader", "config", "charm", "update-status", "secrets", c.peers.id}
	if c.database != nil {
		topics = append(topics, c.database.id)
	}
	return topics
}

// notice has the agent learn what has changed, after a while. What changes meanwhile it
// learns with it.
func (a *agent) notice(what string) {
	if !a.up || a.late[what] {
		return
	}
	a.late[what] = true
	a.unit.soon(20*time.Millisecond, 1500*time.Millisecond, a.once(func() { a.arrive(what) }))
}

// arrive waits for the network where it is cut: watchers catch up.
func (a *agent) arrive(what string) {
	if !a.connected() {
		a.unit.after(time.Second, a.once(func() { a.arrive(what) }))
		return
	}
	delete(a.late, what)
	a.learn(what)
	a.step()
}

func (a *agent) learn(what string) {
	c, r := a.unit.juju, &a.remote
	switch what {
	case "life":
		r.life = a.unit.life
	case "leader":
		r.leader = c.leader == a.unit.name
	case "config":
		r.config = c.options + 1 // no configuration is none
	case "charm":
		r.charm = c.charm
	case "update-status":
		r.interval = c.interval
	case "secrets":
		r.secrets = map[string]int{}
		for id := range a.local.secrets {
			r.secrets[id] = c.secrets[id].revision
		}
	default:
		if r.relations == nil {
			r.relations = map[string]remoteRelation{}
		}
		delete(r.relations, what)
		if rel := c.relation(what); rel != nil {
			r.relations[what] = c.view(rel, a.unit)
		}
	}
}

// view is a relation as one unit's agent sees it. Peers have the settings of their own
// application, which the leader hears of, too.
func (c *controller) view(r *relation, u *unit) remoteRelation {
	view := remoteRelation{life: r.life, members: map[string]int{}}
	if r == c.peers {
		view.peer, view.endpoint, view.app = true, relations.PeersEndpoint, r.app.version
		for name := range r.scope {
			if name != u.name {
				view.members[name] = r.units[name].version
			}
		}
		return view
	}
	view.endpoint, view.app = relations.DatabaseEndpoint, r.remote.version
	for name, b := range r.members {
		view.members[name] = b.version
	}
	return view
}

// busy says what keeps it from having nothing to do.
func (a *agent) busy() string {
	l, c := &a.local, a.unit.juju
	switch {
	case !a.connected():
		return "is not connected"
	case a.running != nil || len(a.actions) > 0:
		return "runs a hook or an action"
	case l.hook != nil:
		return "has yet to run " + l.hook.name
	case len(a.late) > 0:
		return "is about to hear of " + sortedKeys(a.late)[0]
	case l.config != c.options+1 || l.charm != a.remote.charm:
		return "has not heard of the options or the charm"
	}
	return ""
}

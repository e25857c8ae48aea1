package sim

import (
	"errors"
	"maps"
	"strings"
	"time"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/juju"
	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/plan"
)

// hookContext is what hook tools do in one hook, action or command. What it sets is told
// to Juju when it has ended without an error; statuses are told at once.
type hookContext struct {
	unit  *unit
	event juju.Event
	about *hook // nil for an action and a command

	app, self, database map[string]string
	secrets             map[string]*secret
	asked               string // version that an action is about
	recorded            int    // index of its record
}

var errHook = errors.New("the hook failed")

// run runs a hook.
func (a *agent) run(h *hook) {
	a.local.hook, a.local.queued = h, false // it has failed, if it does not end
	interval := a.remote.interval
	delete(a.seen[h.relation], h.unit) // it is too old
	a.execute(&hookContext{unit: a.unit, event: a.event(*h), about: h}, func(err error) {
		if err != nil {
			if !errors.Is(err, errHook) {
				a.unit.judge.fails(a.unit, h.name)
			}
			a.tryAgain()
			return
		}
		a.failed = 0
		a.local.hook, a.local.interval = nil, interval
		a.commit(*h)
	})
}

// commit is what the agent remembers of a hook that ended well.
func (a *agent) commit(h hook) {
	l := &a.local
	switch h.name {
	case "install":
		l.installed, l.charm = true, a.remote.charm
	case "config-changed":
		if l.config = h.version; !l.started {
			l.hook, l.queued = &hook{name: "start"}, true
		}
	case "upgrade-charm":
		l.hook, l.queued = &hook{name: "config-changed", version: a.remote.config}, true
	case "start":
		l.started, l.stopped = true, false
	case "stop":
		l.stopped = true
	case "remove":
		l.removed = true
		a.unit.juju.forget(a.unit)
	case "secret-changed":
		l.secrets[h.secret] = h.version
	}
	r := l.relations[h.relation]
	if r == nil {
		return
	}
	switch _, kind, _ := strings.Cut(h.name, "-relation-"); kind {
	case "created":
		r.created = true
	case "joined":
		r.members[h.unit], r.pending = h.version, h.unit
	case "departed":
		delete(r.members, h.unit)
	case "changed":
		if h.unit == "" {
			r.app = h.version
		} else {
			r.members[h.unit], r.pending = h.version, ""
		}
	case "broken":
		a.unit.juju.leave(a.unit.juju.relation(h.relation), a.unit)
		delete(l.relations, h.relation)
	}
}

// tryAgain waits longer each time, as automatically-retry-hooks does.
func (a *agent) tryAgain() {
	pause := min(5*time.Second<<min(a.failed, 6), 5*time.Minute)
	a.failed++
	a.unit.soon(pause, pause+pause/5, a.once(func() { a.retry = true; a.step() }))
}

func (a *agent) act() {
	act := a.actions[0]
	a.actions = a.actions[1:]
	ctx := &hookContext{unit: a.unit, event: juju.Event{Action: act.name, Unit: a.unit.name, Model: "model"}, asked: act.version}
	a.execute(ctx, func(error) {})
}

// command is juju-exec of the supervisor, which runs the charm as the hook
// volume-changed. It may run while another hook has failed.
func (a *agent) command() {
	c := a.commands[0] // it stays there until it has ended: it is answered if the agent stops
	ctx := &hookContext{unit: a.unit, event: juju.Event{Hook: "volume-changed", Unit: a.unit.name, Model: "model"}}
	a.execute(ctx, func(err error) {
		a.commands = a.commands[1:]
		c.done(err)
	})
}

// execute runs the charm's process, and then what is next. A fault may have it fail.
func (a *agent) execute(ctx *hookContext, then func(error)) {
	u := a.unit
	a.running = ctx
	what := ctx.event.Hook + ctx.event.Action
	u.say(u.name, "runs %s %s", what, ctx.of())
	ctx.begins()
	life := a.lives
	u.dispatch(ctx, func(err error) {
		if a.lives != life {
			return
		}
		if err == nil && a.breaks > 0 {
			a.breaks--
			err = errHook
		}
		wrote, wroteApp := 0, 0
		if err == nil {
			wrote, wroteApp, err = ctx.flush()
		}
		if err != nil {
			u.say(u.name, "%s failed: %v", what, err)
		}
		ctx.ends(err, wrote, wroteApp)
		a.running = nil
		then(err)
		a.step()
	})
}

func (ctx *hookContext) of() string {
	if ctx.about == nil {
		return ctx.asked
	}
	return ctx.about.unit + ctx.about.secret
}

// flush tells Juju what the hook has set. It returns the versions of settings that have
// changed.
func (ctx *hookContext) flush() (unit, app int, err error) {
	u, c := ctx.unit, ctx.unit.juju
	switch {
	case !u.agent.connected():
		return 0, 0, errors.New("no controller")
	case len(ctx.app)+len(ctx.database) > 0 && c.leader != u.name:
		return 0, 0, errors.New("only the leader can set the application's settings")
	}
	for id, s := range ctx.secrets {
		c.secrets[id] = s
	}
	app, unit = c.setApp(ctx.app), c.setUnit(u, ctx.self)
	if len(ctx.database) > 0 && c.database != nil {
		c.database.app.set(ctx.database)
		c.requested(c.database)
	}
	return unit, app, nil
}

// snapshot is juju.Read: settings of members are those of the last hook about them, what
// belongs to applications is read anew.
func (ctx *hookContext) snapshot(config plan.Config) (juju.Snapshot, error) {
	u, c, a := ctx.unit, ctx.unit.juju, ctx.unit.agent
	s := juju.Snapshot{Event: ctx.event, Leader: c.leader == u.name, Secrets: map[string]map[string]string{}}
	if !a.connected() {
		return s, errors.New("no controller")
	}
	peers := a.local.relations[c.peers.id]
	if peers == nil {
		return s, nil
	}
	needs := u.protocol.Needs(config, ctx.event, s.Leader, c.peers.app.settings)
	if needs.Units {
		s.Members = c.goalState()
	}
	s.Address = u.machine.address
	s.Peers = &juju.Relation{
		ID: c.peers.id, App: clone(c.peers.app.settings), Self: clone(c.peers.units[u.name].settings),
		Units: map[string]map[string]string{},
	}
	var read []string
	for name := range ctx.members(peers) {
		s.Peers.Units[name] = nil
		if needs.Units || name == needs.Unit {
			s.Peers.Units[name] = a.settings(c.peers, name)
			read = append(read, name)
		}
	}
	ctx.sees(s.Leader, read)
	if needs.Database == "" {
		return s, nil
	}
	ctx.readDatabase(&s)
	ctx.readSecrets(&s, s.Peers.App)
	if s.Database != nil {
		ctx.readSecrets(&s, s.Database.RemoteApp)
	}
	return s, nil
}

// members are those that the charm was told of; who has just joined or departed is, or is
// not, one of them.
func (ctx *hookContext) members(r *localRelation) map[string]bool {
	members := map[string]bool{}
	for name := range r.members {
		members[name] = true
	}
	if h := ctx.about; h != nil && ctx.unit.agent.local.relations[h.relation] == r && h.unit != "" {
		if strings.HasSuffix(h.name, "-departed") {
			delete(members, h.unit)
		} else {
			members[h.unit] = true
		}
	}
	return members
}

// settings of a member are read once, until a hook is about it.
func (a *agent) settings(r *relation, name string) map[string]string {
	if a.seen[r.id] == nil {
		a.seen[r.id] = map[string]bag{}
	}
	if _, known := a.seen[r.id][name]; !known {
		a.seen[r.id][name] = bag{clone(r.units[name].settings), r.units[name].version}
	}
	return clone(a.seen[r.id][name].settings)
}

func (ctx *hookContext) readDatabase(s *juju.Snapshot) {
	c, h := ctx.unit.juju, ctx.about
	var ids []string
	for _, id := range sortedKeys(ctx.unit.agent.local.relations) {
		broken := h != nil && h.relation == id && strings.HasSuffix(h.name, "-broken")
		if !ctx.unit.agent.local.relations[id].peer && !broken {
			ids = append(ids, id)
		}
	}
	for i := len(ids) - 1; i >= 0; i-- {
		r := c.relation(ids[i])
		if r == nil {
			continue
		}
		s.Database = &juju.Relation{ID: r.id}
		if s.Leader {
			s.Database.App = clone(r.app.settings)
		}
		if len(ctx.members(ctx.unit.agent.local.relations[r.id])) > 0 {
			s.Database.RemoteApp = clone(r.remote.settings)
		}
		return
	}
	s.Unreadable = len(ids) > 0
}

func (ctx *hookContext) readSecrets(s *juju.Snapshot, settings map[string]string) {
	for _, id := range settings {
		if !strings.HasPrefix(id, "secret:") {
			continue
		}
		secret := ctx.unit.juju.secrets[id]
		if secret == nil || !secret.granted {
			s.Early = true
			continue
		}
		s.Secrets[id] = clone(secret.content)
		// Who has read it is told when it changes.
		ctx.unit.agent.local.secrets[id] = secret.revision
	}
}

// write is Snapshot.Write.
func (ctx *hookContext) write(s juju.Snapshot, c juju.Changes) {
	if s.Peers != nil {
		ctx.app, ctx.self = changed(ctx.app, s.Peers.App, c.App), changed(ctx.self, s.Peers.Self, c.Self)
	}
	if s.Database != nil && s.Leader {
		ctx.database = changed(ctx.database, s.Database.App, c.Database)
	}
	ctx.unit.setStatus(c.Status)
}

func changed(pending, old, settings map[string]string) map[string]string {
	for name, value := range settings {
		if old[name] != value {
			if pending == nil {
				pending = map[string]string{}
			}
			pending[name] = value
		}
	}
	return pending
}

func clone(m map[string]string) map[string]string {
	if m == nil {
		return map[string]string{}
	}
	return maps.Clone(m)
}

package scenarios

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/sim"
	"github.com/concourse-ci-machine/concourse-ci-machine/charm/sim/probe"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/cluster"
)

// The applications of JujuModel are one charm.
const (
	probes = "probe"
	served = "database"
)

// JujuModel deploys the probe, and has happen what the product's charm depends on. What its
// hooks saw is left in history.jsonl, and must be what the model of Juju allows.
func JujuModel(ctx context.Context, t T, c cluster.Cluster, in Inputs) {
	p := &probing{T: t, ctx: ctx, c: c, in: in, log: map[cluster.LogLine]bool{}}
	volume, err := c.NewVolume(ctx, "")
	require.NoError(t, err)
	defer func() { require.NoError(t, sim.Accept(p.save())) }()
	require.NoError(t, c.Deploy(ctx, cluster.App{Name: served, Charm: in.Probe, Units: 1, Volume: volume}))
	require.NoError(t, c.Deploy(ctx, cluster.App{Name: probes, Charm: in.Probe, Units: 3, Volume: volume}))
	p.relate()
	p.phase("three units related", func() { p.idle(3) })

	for _, part := range []struct {
		name string
		do   func()
	}{
		{"a hook takes long", p.long},
		{"a hook fails", p.failing},
		{"an agent is killed in a hook", p.killed},
		{"an agent is stopped in a hook", p.stopped},
		{"leadership moves in a hook", p.moved},
		{"the leader is removed", p.removed},
		{"a machine reboots", p.rebooted},
		{"the database is related anew", p.relatedAnew},
		{"a unit is removed by force", p.forced},
		{"the application is removed", p.ended},
	} {
		p.phase(part.name, part.do)
	}
}

// probing is that scenario under way.
type probing struct {
	T
	ctx   context.Context
	c     cluster.Cluster
	in    Inputs
	round int // of the option that has config-changed run
	log   map[cluster.LogLine]bool
}

func (p *probing) phase(name string, do func()) {
	p.Helper()
	require.NoError(p, p.in.Report.Time(name, 0, func() error { do(); return p.readLog() }))
}

// relate relates the applications, once a former relation is gone.
func (p *probing) relate() {
	p.Helper()
	require.NoError(p, cluster.Poll(p.ctx, "the relation", time.Second, patience, func(ctx context.Context) (bool, error) {
		err := p.c.Integrate(ctx, probes+":database", served+":clients")
		return err == nil, err
	}))
}

// long keeps a hook from ending: nobody sees what it sets. Others look meanwhile, and an
// action and a command wait for it.
func (p *probing) long() {
	unit, other := p.follower(), p.leader()
	p.put(unit, probe.Hold)
	begun := p.configure(unit)
	p.await("config-changed of "+other, func(r sim.Record) bool {
		return r.Unit == other && r.Event == "config-changed" && r.Begin > begun-time.Second && r.OK
	})
	p.lookAround(other)
	waiting := p.looksAround(unit)
	p.aMoment(2 * time.Second)
	p.take(unit, probe.Hold)
	waiting()
	p.idle(3)
}

// failing has a hook fail, while others change their settings, and an action and a command
// run all the same.
func (p *probing) failing() {
	unit := p.follower()
	p.put(unit, probe.Fail)
	p.configure(unit)
	p.inError(unit)
	p.take(unit, probe.Fail)
	p.lookAround(unit)
	p.put(unit, probe.Fail)
	p.lookAround(p.leader())
	require.NoError(p, p.c.Resolve(p.ctx, unit)) // it fails again
	p.aMoment(3 * time.Second)
	p.inError(unit)
	p.take(unit, probe.Fail)
	p.lookAround(unit)
	require.NoError(p, p.c.Resolve(p.ctx, unit))
	p.idle(3)
}

// killed cuts a hook off.
func (p *probing) killed() {
	p.cutOff(func(unit string) {
		p.exec(unit, "systemctl", "kill", "--signal=KILL", "juju*-machine-*.service")
		p.take(unit, probe.Hold)
		p.lookAround(p.leader())
	})
}

// stopped has the agent end in a hook in the orderly way, which is no other end for the hook.
func (p *probing) stopped() {
	p.cutOff(func(unit string) {
		agent := p.c.Machine(unit).StopAgent()
		require.NoError(p, agent.Inject(p.ctx))
		p.take(unit, probe.Hold)
		require.NoError(p, agent.Heal(p.ctx))
	})
}

func (p *probing) cutOff(end func(unit string)) {
	p.Helper()
	unit := p.follower()
	p.put(unit, probe.Hold)
	p.configure(unit)
	end(unit)
	p.inError(unit)
	require.NoError(p, p.c.Resolve(p.ctx, unit))
	p.idle(3)
}

// moved has a hook of the leader set something for the application while another unit
// becomes the leader: it is not told. Meanwhile a unit is added, and the charm refreshed.
func (p *probing) moved() {
	old := p.leader()
	p.put(old, probe.Hold)
	p.configure(old)
	frozen := p.c.Machine(old).FreezeAgent()
	require.NoError(p, frozen.Inject(p.ctx))
	require.NoError(p, p.c.Refresh(p.ctx, probes, p.in.Probe))
	_, err := p.c.AddUnits(p.ctx, probes, 1)
	require.NoError(p, err)
	p.until("another leader than "+old, func(s cluster.Status) error {
		if u, ok := s.Leader(probes); !ok || u.Name == old {
			return fmt.Errorf("the leader is %q", u.Name)
		}
		return nil
	})
	p.take(old, probe.Hold)
	require.NoError(p, frozen.Heal(p.ctx))
	p.inError(old)
	require.NoError(p, p.c.Resolve(p.ctx, old))
	p.idle(4)
}

// removed has the first hook of the leader's removal take longer than leadership lasts that
// is not renewed.
func (p *probing) removed() {
	unit := p.leader()
	p.put(unit, probe.Hold)
	require.NoError(p, p.c.RemoveUnit(p.ctx, unit))
	p.aMoment(70 * time.Second)
	p.take(unit, probe.Hold)
	p.until("the end of "+unit, cluster.Gone(unit))
	p.idle(3)
}

func (p *probing) rebooted() {
	unit := p.follower()
	begin := len(p.history())
	stopped := p.c.Machine(unit).Stop()
	require.NoError(p, stopped.Inject(p.ctx))
	p.configureOnly()
	require.NoError(p, p.c.Refresh(p.ctx, probes, p.in.Probe))
	require.NoError(p, stopped.Heal(p.ctx))
	p.await("start of "+unit, func(r sim.Record) bool {
		return r.Unit == unit && r.Event == "start" && r.Begin > p.history()[begin-1].Begin
	})
	p.idle(3)
}

func (p *probing) relatedAnew() {
	require.NoError(p, p.c.Disintegrate(p.ctx, probes+":database", served+":clients"))
	p.await("the end of the relation", func(r sim.Record) bool { return r.Unit == served+"/0" && r.Event == "clients-relation-broken" && r.OK })
	p.idle(3)
	p.relate()
	p.idle(3)
}

func (p *probing) forced() {
	unit := p.follower()
	require.NoError(p, p.c.RemoveLostUnit(p.ctx, unit))
	p.until("the end of "+unit, cluster.Gone(unit))
	p.aMoment(15 * time.Second) // in which the others may be told
	p.idle(2)
	p.lookAround(p.leader())
}

func (p *probing) ended() {
	require.NoError(p, p.c.RemoveApp(p.ctx, probes))
	p.until("the end of the application", func(s cluster.Status) error {
		var err error
		for _, u := range s.Units(probes) {
			err = errors.Join(err, fmt.Errorf("%s is there: %s %q", u.Name, u.Workload, u.Message))
			// Juju refuses the settings of a hook during which its unit began to die. It takes
			// them at the next try, which these models do not make by themselves.
			if u.Workload == "error" {
				err = errors.Join(err, p.c.Resolve(p.ctx, u.Name))
			}
		}
		return err
	})
}

// history reads what all hooks have noted so far.
func (p *probing) history() []sim.Record {
	p.Helper()
	history, _, err := p.read()
	require.NoError(p, err)
	return history
}

func (p *probing) read() (history []sim.Record, base time.Time, err error) {
	notes, err := p.c.Machine(served+"/0").Exec(p.ctx, "cat", probe.Notes)
	if err != nil {
		return nil, base, err
	}
	return probe.Read(strings.NewReader(notes))
}

// save leaves the history, with what only Juju's log tells, also if the scenario has
// failed.
func (p *probing) save() []sim.Record {
	history, base, err := p.read()
	err = errors.Join(err, p.readLog())
	judgeByLog(history, base, slices.Collect(maps.Keys(p.log)))
	var file bytes.Buffer
	err = errors.Join(err, sim.WriteHistory(&file, history))
	err = errors.Join(err, os.WriteFile(filepath.Join(p.in.Dir, "history.jsonl"), file.Bytes(), 0o644))
	if err != nil {
		p.Errorf("cannot save the history: %v", err)
	}
	return history
}

// readLog reads Juju's log as far as it still goes back.
func (p *probing) readLog() error {
	lines, err := p.c.DebugLog(p.ctx)
	for _, line := range lines {
		p.log[line] = true
	}
	return err
}

// await waits for a hook.
func (p *probing) await(what string, is func(sim.Record) bool) {
	p.Helper()
	require.NoError(p, cluster.Poll(p.ctx, what, time.Second, patience, func(context.Context) (bool, error) {
		history, _, err := p.read()
		for _, r := range history {
			if is(r) {
				return true, nil
			}
		}
		return false, errors.Join(err, errors.New("no such hook"))
	}))
}

func (p *probing) until(what string, holds cluster.Condition) {
	p.Helper()
	require.NoError(p, cluster.Poll(p.ctx, what, time.Second, patience, func(ctx context.Context) (bool, error) {
		s, err := p.c.Status(ctx)
		if err == nil {
			err = holds(s)
		}
		return err == nil, err
	}))
}

// idle waits until there are so many units, and nothing runs any more.
func (p *probing) idle(units int) {
	p.Helper()
	calm := 0
	p.until("units at rest", func(s cluster.Status) error {
		err := errors.Join(cluster.Idle(probes)(s), cluster.Idle(served)(s), cluster.Failed(s))
		if n := len(s.Units(probes)); n != units {
			err = errors.Join(err, fmt.Errorf("%d units", n))
		}
		if calm++; err != nil {
			calm = 0
		}
		if err == nil && calm < 4 {
			err = errors.New("not for long enough")
		}
		return err
	})
}

func (p *probing) inError(unit string) {
	p.Helper()
	p.until(unit+" in error", cluster.UnitIs(unit, "error", "hook failed"))
}

// configure changes the option, and waits until a unit's hook for it has read. It returns
// when the hook began.
func (p *probing) configure(unit string) (begun time.Duration) {
	p.Helper()
	history := p.history()
	last := history[len(history)-1].Begin
	p.configureOnly()
	p.await("config-changed of "+unit, func(r sim.Record) bool {
		begun = r.Begin
		return r.Unit == unit && r.Event == "config-changed" && r.Begin > last && r.Read > 0
	})
	return begun
}

func (p *probing) configureOnly() {
	p.Helper()
	p.round++
	require.NoError(p, p.c.Configure(p.ctx, probes, map[string]string{"round": strconv.Itoa(p.round)}))
}

// lookAround runs the action and a command.
func (p *probing) lookAround(unit string) {
	p.Helper()
	p.looksAround(unit)()
}

// looksAround asks for both, and returns a function that waits for their ends.
func (p *probing) looksAround(unit string) (wait func()) {
	var both sync.WaitGroup
	var failed [2]error
	both.Go(func() { _, failed[0] = p.c.RunAction(p.ctx, unit, "look", nil) })
	both.Go(func() { _, failed[1] = p.c.Machine(unit).Exec(p.ctx, "juju-exec", unit, probe.Command) })
	return func() {
		p.Helper()
		both.Wait()
		require.NoError(p, errors.Join(failed[:]...))
	}
}

func (p *probing) aMoment(d time.Duration) {
	select {
	case <-p.ctx.Done():
	case <-time.After(d):
	}
}

func (p *probing) put(unit, file string) { p.Helper(); p.exec(unit, "touch", file) }

func (p *probing) take(unit, file string) { p.Helper(); p.exec(unit, "rm", file) }

func (p *probing) exec(unit string, argv ...string) {
	p.Helper()
	_, err := p.c.Machine(unit).Exec(p.ctx, argv...)
	require.NoError(p, err)
}

// leader and follower are units of the application at this moment.
func (p *probing) leader() string   { p.Helper(); return p.unit(true) }
func (p *probing) follower() string { p.Helper(); return p.unit(false) }

func (p *probing) unit(leads bool) string {
	p.Helper()
	s, err := p.c.Status(p.ctx)
	require.NoError(p, err)
	for _, u := range s.Units(probes) {
		if u.Leader == leads {
			return u.Name
		}
	}
	require.Fail(p, "no such unit")
	return ""
}

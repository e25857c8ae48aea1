package upgrade_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/upgrade"
	"github.com/concourse-ci-machine/concourse-ci-machine/internal/explore"
)

// Versions are numbers here, 0 is none.
var versions = []string{"", old, newer, newest}

func number(version string) uint8 { return uint8(slices.Index(versions, version)) }

// member is a unit of a cluster, with the instruction that it has read last.
type member struct {
	exists, lost bool
	running      uint8
	told         uint8 // version to run, 0 is to keep what runs
}

// cluster is a leader, which runs the web server, and workers, on one volume.
type cluster struct {
	phase     upgrade.Phase
	version   uint8
	target    uint8
	heard     int // request
	failed    bool
	late      [3]bool
	clock     upgrade.Deadline
	leader    int
	members   [3]member
	installed [4]bool
	fetch     uint8
	current   uint8
	asked     int  // how many requests were made
	faults    int  // how many of the things happened that nobody plans
	disturbed bool // more workers may be away than were told to go
}

// world is what can happen to a cluster.
type world struct {
	requests []string
	broken   string // a version with which the web server does not start
	faults   int
	known    map[cluster]bool // ends well
}

type step string

func (s step) String() string { return string(s) }

func (w world) start() cluster {
	c := cluster{phase: upgrade.Idle, version: number(old), current: number(old)}
	c.installed[number(old)] = true
	for i := range c.members[:2] {
		c.members[i] = member{exists: true, running: number(old)}
	}
	c.members[2] = c.members[1]
	return c
}

// state is what is stored, and store its inverse: a state has a slice, and
// those cannot be compared.
func (c cluster) state() upgrade.State {
	s := upgrade.State{Phase: c.phase, Version: versions[c.version], Target: versions[c.target], Request: requestID(c.heard)}
	if c.failed {
		s.Failure = "failed"
	}
	for i, late := range c.late {
		if late {
			s.Late = append(s.Late, unitName(i))
		}
	}
	return s
}

func (c *cluster) store(s upgrade.State) {
	c.phase, c.version, c.target, c.failed = s.Phase, number(s.Version), number(s.Target), s.Failure != ""
	c.heard = slices.IndexFunc([]int{0, 1, 2}, func(n int) bool { return requestID(n) == s.Request })
	for i := range c.late {
		c.late[i] = slices.Contains(s.Late, unitName(i))
	}
}

func requestID(n int) string { return []string{"", "1", "2"}[n] }
func unitName(i int) string  { return []string{"ci/0", "ci/1", "ci/2"}[i] }

func (w world) input(c cluster) upgrade.Input {
	in := upgrade.Input{Current: versions[c.current], AtOnce: 1}
	if c.asked > 0 {
		in.Request = upgrade.Request{ID: requestID(c.asked), Version: w.requests[c.asked-1]}
	}
	var installed []string
	for v, is := range c.installed {
		if is {
			installed = append(installed, versions[v])
		}
	}
	for i, m := range c.members {
		if !m.exists {
			continue
		}
		u := upgrade.Unit{Name: unitName(i), Web: i == c.leader, Running: versions[m.running], Installed: installed, Lost: m.lost}
		if u.Web {
			in.Web = u.Running
		}
		in.Units = append(in.Units, u)
	}
	return in
}

// hook is one of the leader's.
func (w world) hook(c cluster, passed upgrade.Deadline) cluster {
	in := w.input(c)
	in.Passed = passed
	out := upgrade.Step(c.state(), in)
	c.store(out.State)
	c.clock, c.fetch = out.Deadline, number(out.Fetch)
	for i := range c.members {
		c.members[i].told = number(out.Units[unitName(i)].Version)
	}
	if v := number(out.Activate); v != 0 && c.installed[v] {
		c.current = v
	}
	c.disturbed = c.disturbed || passed != (upgrade.Deadline{})
	return c
}

// follow has a unit do a part of what it was told.
func (w world) follow(c cluster, i int) cluster {
	m := &c.members[i]
	switch {
	case !m.exists || m.lost || m.told == 0 || m.running == m.told:
	case m.running != 0:
		m.running = 0
	case i != c.leader || versions[m.told] != w.broken:
		m.running = m.told
	}
	return c
}

func (w world) next(c cluster, yield func(step, cluster)) {
	yield("the leader runs a hook", w.hook(c, upgrade.Deadline{}))
	if c.clock != (upgrade.Deadline{}) {
		yield("the deadline passes", w.hook(c, c.clock))
	}
	if c.fetch != 0 {
		n := c
		n.installed[c.fetch] = true
		yield("the release is installed", n)
	}
	if c.asked < len(w.requests) {
		n := c
		n.asked++
		yield(step("somebody asks for "+w.requests[c.asked]), n)
	}
	for i, m := range c.members {
		yield(step(unitName(i)+" follows"), w.follow(c, i))
		if c.faults == w.faults {
			continue
		}
		n := c
		n.faults++
		n.disturbed = true
		if m.exists && i != c.leader {
			n.leader, n.clock = i, upgrade.Deadline{}
			n.members[i].running = 0 // its web server has yet to answer
			yield(step(unitName(i)+" becomes the leader"), n)
			n.leader, n.clock, n.members[i] = c.leader, c.clock, m
			n.members[i].lost = !m.lost
			yield(step(unitName(i)+" is lost, or found"), n)
			n.members[i] = member{}
			yield(step(unitName(i)+" is removed"), n)
		} else if !m.exists {
			n.members[i] = member{exists: true}
			yield(step(unitName(i)+" is added"), n)
		}
	}
}

func (w world) check(c cluster) error {
	away, leaving := 0, 0
	for i, m := range c.members {
		if !m.exists {
			continue
		}
		if m.told != 0 && m.told != c.version && m.told != c.target {
			return fmt.Errorf("%s was told to run %s in %+v", unitName(i), versions[m.told], c.state())
		}
		if i == c.leader {
			continue
		}
		if m.running == 0 {
			away++
		} else if m.told != 0 && m.told != m.running {
			leaving++
		}
	}
	if !c.disturbed && away+leaving > 1 {
		return errors.New("two workers are away at once")
	}
	if c.current != c.version && c.current != c.target {
		return fmt.Errorf("%s is current in %+v", versions[c.current], c.state())
	}
	if !c.installed[c.current] {
		return errors.New("what is current is not installed")
	}
	return w.ends(c)
}

// ends lets everything take its course, with no more faults and all units
// found, and a deadline passes only when nothing else happens.
func (w world) ends(c cluster) error {
	const enough = 60
	c.faults, c.asked = w.faults, len(w.requests)
	for i := range c.members {
		c.members[i].lost = false
	}
	var path []cluster
	for range enough {
		if w.known[c] {
			break
		}
		path = append(path, c)
		before := c
		c = w.hook(c, upgrade.Deadline{})
		if c.fetch != 0 {
			c.installed[c.fetch] = true
		}
		for i := range c.members {
			c = w.follow(c, i)
		}
		if c != before {
			continue
		}
		if c.clock != (upgrade.Deadline{}) {
			c = w.hook(c, c.clock)
			continue
		}
		out := upgrade.Step(c.state(), w.input(c))
		switch {
		case !out.Settled || versions[c.current] != out.State.Version:
			return fmt.Errorf("the upgrade ends in %+v", c.state())
		case out.State.Request != requestID(len(w.requests)):
			return errors.New("the last request was not heard")
		case out.State.Failure == "" && out.State.Version != w.requests[len(w.requests)-1]:
			return fmt.Errorf("the last request was ignored in %+v", c.state())
		case out.State.Version == w.broken:
			return errors.New("the cluster settled on a release that does not start")
		}
		break
	}
	if len(path) == enough {
		return fmt.Errorf("the upgrade does not end: %+v", c.state())
	}
	for _, c := range path {
		w.known[c] = true
	}
	return nil
}

// TestExplore tries every order of hooks, work of the units, requests,
// deadlines and faults, and lets each state that comes of it take its course:
// every unit ends on the version that the cluster settled on.
func TestExplore(t *testing.T) {
	for name, w := range map[string]world{
		"upgrade":                     {requests: []string{newer}, faults: 3},
		"release that does not start": {requests: []string{newer}, broken: newer, faults: 3},
		"third version":               {requests: []string{newer, newest}, faults: 2},
		"instead of a broken one":     {requests: []string{newer, newest}, broken: newer, faults: 2},
		"second thoughts":             {requests: []string{newer, old}, faults: 2},
		"again":                       {requests: []string{newer, newer}, broken: newer, faults: 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w.known = map[cluster]bool{}
			states, err := explore.All(explore.Spec[cluster, step]{Start: []cluster{w.start()}, Next: w.next, Check: w.check})
			require.NoError(t, err)
			t.Logf("%d states", len(states))
		})
	}
}

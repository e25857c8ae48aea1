package turns_test

import (
	"errors"
	"fmt"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/turns"
	"github.com/concourse-ci-machine/concourse-ci-machine/internal/explore"
)

// process is the worker of a unit.
type process uint8

const (
	running process = iota
	landing
	ended
	starting // the new one
)

// member is a unit, with what the others know of it.
type member struct {
	exists, off bool
	process     process
	wants, runs uint8 // generations
	turn        uint8 // process for which it has read that it has one

	due, listed bool // as the leader reads it; both are old for a while
	missing     bool
	began, seen uint8 // processes that have begun: said by the unit, and listed by the web server
	processes   uint8
	lapsed      bool // it was missing, so its turn has ended while it may land
}

// cluster is a leader and the units.
type cluster struct {
	members [3]member
	stored  [3]uint8 // who has a turn, for which process
	wanted  uint8    // generation
	faults  int
}

type world struct {
	most, changes, faults int
	known                 map[cluster]bool // ends well
}

type step string

func (s step) String() string { return string(s) }

func name(i int) string { return fmt.Sprintf("ci/%d", i) }

func number(process uint8) string { return strconv.Itoa(int(process)) }

func (w world) start() (c cluster) {
	for i := range c.members {
		c.members[i] = member{exists: true, listed: true, processes: 1, began: 1, seen: 1}
	}
	return c
}

// hook is one of the leader's, whoever that is: it knows what is stored, and no more.
func (w world) hook(c cluster) cluster {
	var before []turns.Turn
	var units []turns.Unit
	for i, m := range c.members {
		if c.stored[i] > 0 {
			before = append(before, turns.Turn{Unit: name(i), Process: number(c.stored[i])})
		}
		if m.exists {
			units = append(units, turns.Unit{Name: name(i), Process: number(m.began), Due: m.due, Running: m.listed && m.seen == m.began, Missing: m.missing})
		}
	}
	c.stored = [3]uint8{}
	for _, t := range turns.Next(before, units, w.most) {
		for i := range c.members {
			if name(i) == t.Unit {
				process, _ := strconv.Atoi(t.Process)
				c.stored[i] = uint8(process)
			}
		}
	}
	return c
}

// work is a part of what a unit does.
func (w world) work(c cluster, i int) cluster {
	m := &c.members[i]
	if !m.exists || m.off {
		return c
	}
	due := m.wants != m.runs
	switch {
	case m.process == running && due && m.turn == m.processes:
		m.process = landing
	case m.process == landing:
		m.process = ended
	case m.process == ended:
		m.process, m.runs = starting, m.wants
		m.processes++
		m.due, m.began = false, m.processes
	case m.process == starting:
		m.process = running
	case m.process == running && due && m.missing: // it has no builds
		m.process = ended
	}
	return c
}

// list is one of the web server's: what is off is listed for a while.
func (w world) list(c cluster, i int) cluster {
	m := &c.members[i]
	m.listed = m.process == running && !m.off
	if m.listed {
		m.seen, m.missing, m.lapsed = m.processes, false, false
	}
	return c
}

// hear has a unit read what is wanted and whether it has a turn, and say whether it is due.
func (w world) hear(c cluster, i int) cluster {
	m := &c.members[i]
	if m.exists && !m.off {
		m.wants, m.turn = c.wanted, c.stored[i]
		m.due = m.wants != m.runs && m.process != starting
	}
	return c
}

func (w world) next(c cluster, yield func(step, cluster)) {
	yield("the leader runs a hook", w.hook(c))
	if int(c.wanted) < w.changes {
		n := c
		n.wanted++
		yield("something changes", n)
	}
	for i, m := range c.members {
		yield(step(name(i)+" works"), w.work(c, i))
		yield(step(name(i)+" is listed"), w.list(c, i))
		yield(step(name(i)+" hears, and is heard"), w.hear(c, i))
		n := c
		if m.exists && !m.listed && (m.off || m.process == ended || m.process == starting) {
			n.members[i].missing, n.members[i].lapsed = true, true
			yield(step(name(i)+" is missing"), n)
			n = c
		}
		if c.faults == w.faults || !m.exists {
			continue
		}
		n.faults++
		n.members[i].off = !m.off
		if m.process != starting {
			n.members[i].process = ended
		}
		yield(step(name(i)+" is off, or comes back"), n)
		n.members[i] = member{}
		yield(step(name(i)+" is removed"), n)
	}
}

func (w world) check(c cluster) error {
	turns, away := 0, 0
	for i, m := range c.members {
		if c.stored[i] > 0 {
			turns++
		}
		if m.exists && !m.off && !m.lapsed && m.process != running {
			away++
		}
	}
	switch {
	case turns > w.most:
		return errors.New("more have a turn than may")
	case away > w.most && c.faults == 0:
		return errors.New("more workers are away than may")
	}
	return w.ends(c)
}

// ends lets everything take its course, with no more faults, and those that are off stay so;
// one of these whose new worker never ran is removed, as the leader's status says.
func (w world) ends(c cluster) error {
	c.wanted, c.faults = uint8(w.changes), w.faults
	var path []cluster
	for range 60 {
		if w.known[c] {
			break
		}
		path = append(path, c)
		before := c
		c = w.hook(c)
		for i, m := range c.members {
			c = w.list(w.work(w.hear(c, i), i), i)
			c.members[i].missing = c.members[i].missing || m.off
			if fails := c.stored[i] > 0 && c.stored[i] != m.began && !m.due; m.off && fails {
				c.members[i] = member{}
			}
		}
		if c == before {
			break
		}
	}
	for i, m := range c.members {
		if m.exists && !m.off && !w.known[c] && (m.runs != c.wanted || m.process != running || c.stored[i] > 0) {
			return fmt.Errorf("%s does not come through: %+v", name(i), m)
		}
	}
	for _, c := range path {
		w.known[c] = true
	}
	return nil
}

// TestExplore tries every order of hooks, changes, and faults, with news that are late, and
// lets each state that comes of it take its course.
func TestExplore(t *testing.T) {
	for name, w := range map[string]world{
		"one at a time": {most: 1, changes: 1, faults: 1},
		"no fault":      {most: 1, changes: 2},
		"two at a time": {most: 2, changes: 1, faults: 1},
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

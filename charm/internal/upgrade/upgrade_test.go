package upgrade_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/upgrade"
)

const (
	old    = "7.14.2"
	newer  = "7.14.3"
	newest = "7.14.4"
)

func web(running string) upgrade.Unit {
	return upgrade.Unit{Name: "ci/0", Web: true, Running: running, Installed: []string{old, newer}}
}

func worker(name, running string) upgrade.Unit {
	return upgrade.Unit{Name: name, Running: running, Installed: []string{old, newer}}
}

func lost(u upgrade.Unit) upgrade.Unit {
	u.Lost = true
	return u
}

func lacking(u upgrade.Unit) upgrade.Unit {
	u.Installed = []string{old}
	return u
}

func TestStep(t *testing.T) {
	var (
		keep    = upgrade.Instruction{Action: upgrade.Keep}
		restart = func(v string) upgrade.Instruction {
			return upgrade.Instruction{Action: upgrade.Restart, Version: v}
		}
		land = func(v string) upgrade.Instruction {
			return upgrade.Instruction{Action: upgrade.Land, Version: v}
		}
		again     = upgrade.Request{ID: "2", Version: newer}
		fetching  = upgrade.State{Phase: upgrade.Fetching, Version: old, Target: newer, Request: "1"}
		activated = upgrade.State{Phase: upgrade.Activating, Version: old, Target: newer, Request: "1"}
		rolling   = upgrade.State{Phase: upgrade.Rolling, Version: old, Target: newer, Request: "1"}
		back      = upgrade.State{Phase: upgrade.RollingBack, Version: old, Target: newer, Request: "1"}
		first     = upgrade.State{Phase: upgrade.Activating, Target: newer, Request: "1"}
	)
	for name, test := range map[string]struct {
		state   upgrade.State
		units   []upgrade.Unit
		request upgrade.Request
		web     string
		passed  upgrade.Deadline

		phase    upgrade.Phase
		told     []upgrade.Instruction // in the order of units
		activate string
		status   string
		late     []string
	}{
		"nothing was ever asked for": {
			units: []upgrade.Unit{web("")},
			phase: upgrade.Idle, told: []upgrade.Instruction{keep},
		},
		"the first release": {
			units: []upgrade.Unit{web(""), worker("ci/1", "")}, request: again,
			phase: upgrade.Activating, told: []upgrade.Instruction{restart(newer), keep}, activate: newer,
			status: "Upgrading to v7.14.3: waiting for the web server to answer with it",
		},
		"the first release does not start": {
			state: first, units: []upgrade.Unit{web("")},
			passed: upgrade.Deadline{Phase: upgrade.Activating, Version: newer, Request: "1", Left: 1},
			phase:  upgrade.Activating, told: []upgrade.Instruction{restart(newer)}, activate: newer,
			status: "Upgrading to v7.14.3: waiting for the web server to answer with it; Not on v7.14.3 in time, see its status: ci/0",
			late:   []string{"ci/0"},
		},
		"another first release": {
			state: first, units: []upgrade.Unit{web("")}, request: upgrade.Request{ID: "2", Version: newest},
			phase: upgrade.Fetching, told: []upgrade.Instruction{keep},
			status: "Upgrading to v7.14.4: installing it",
		},
		"while fetching all goes on": {
			state: fetching, units: []upgrade.Unit{lacking(web(old)), lacking(worker("ci/1", old))}, web: old,
			phase: upgrade.Fetching, told: []upgrade.Instruction{keep, keep}, activate: old,
			status: "Upgrading to v7.14.3: installing it",
		},
		"asked to stay while fetching": {
			state: fetching, units: []upgrade.Unit{lacking(web(old))}, web: old, request: upgrade.Request{ID: "2", Version: old},
			phase: upgrade.Idle, told: []upgrade.Instruction{keep}, activate: old,
		},
		"a lost web server does not keep the others": {
			state: fetching, units: []upgrade.Unit{web(old), lost(lacking(upgrade.Unit{Name: "ci/9", Web: true}))}, web: old,
			phase: upgrade.Activating, told: []upgrade.Instruction{restart(newer), keep}, activate: newer,
			status: "Upgrading to v7.14.3: waiting for the web server to answer with it",
		},
		"workers wait for the web server": {
			state: activated, units: []upgrade.Unit{web(""), worker("ci/1", old)},
			phase: upgrade.Activating, told: []upgrade.Instruction{restart(newer), keep}, activate: newer,
			status: "Upgrading to v7.14.3: waiting for the web server to answer with it",
		},
		"the web server does not answer": {
			state: activated, units: []upgrade.Unit{web(""), worker("ci/1", old)},
			passed: upgrade.Deadline{Phase: upgrade.Activating, Version: newer, Request: "1", Left: 1},
			phase:  upgrade.RollingBack, told: []upgrade.Instruction{restart(old), keep}, activate: old,
			status: "Upgrade to v7.14.3 failed: the web server did not answer in time; Returning to v7.14.2: 1 of 2 units run it",
		},
		"the deadline of an earlier attempt": {
			state: activated, units: []upgrade.Unit{web("")},
			passed: upgrade.Deadline{Phase: upgrade.Activating, Version: newer, Request: "0", Left: 1},
			phase:  upgrade.Activating, told: []upgrade.Instruction{restart(newer)}, activate: newer,
			status: "Upgrading to v7.14.3: waiting for the web server to answer with it",
		},
		"web servers of another application": {
			state: activated, units: []upgrade.Unit{worker("w/0", old), worker("w/1", old)}, web: newer,
			phase: upgrade.Rolling, told: []upgrade.Instruction{land(newer), keep}, activate: newer,
			status: "Upgrading to v7.14.3: 0 of 2 units run it",
		},
		"those never answer": {
			state: activated, units: []upgrade.Unit{worker("w/0", old)}, web: old,
			passed: upgrade.Deadline{Phase: upgrade.Activating, Version: newer, Request: "1"},
			phase:  upgrade.Idle, told: []upgrade.Instruction{keep}, activate: old,
			status: "Upgrade to v7.14.3 failed: the web server did not answer in time",
		},
		"one worker at a time": {
			state: rolling, units: []upgrade.Unit{web(newer), worker("ci/1", ""), worker("ci/2", old)}, web: newer,
			phase: upgrade.Rolling, told: []upgrade.Instruction{keep, restart(newer), keep}, activate: newer,
			status: "Upgrading to v7.14.3: 1 of 3 units run it",
		},
		"a lost worker takes no place": {
			state: rolling, units: []upgrade.Unit{web(newer), lost(worker("ci/1", old)), worker("ci/2", old)}, web: newer,
			phase: upgrade.Rolling, told: []upgrade.Instruction{keep, land(newer), land(newer)}, activate: newer,
			status: "Upgrading to v7.14.3: 1 of 3 units run it",
		},
		"a worker without the release": {
			state: rolling, units: []upgrade.Unit{web(newer), lacking(worker("ci/1", old)), worker("ci/2", old)}, web: newer,
			phase: upgrade.Rolling, told: []upgrade.Instruction{keep, keep, land(newer)}, activate: newer,
			status: "Upgrading to v7.14.3: 1 of 3 units run it",
		},
		"a late worker is named, the next one has its turn": {
			state: rolling, units: []upgrade.Unit{web(newer), worker("ci/1", ""), worker("ci/2", old)}, web: newer,
			passed: upgrade.Deadline{Phase: upgrade.Rolling, Version: newer, Request: "1", Left: 2},
			phase:  upgrade.Rolling, told: []upgrade.Instruction{keep, restart(newer), land(newer)}, activate: newer,
			status: "Upgrading to v7.14.3: 1 of 3 units run it; Not on v7.14.3 in time, see its status: ci/1",
			late:   []string{"ci/1"},
		},
		"a late worker that is told again comes last": {
			state: upgrade.State{Phase: upgrade.Rolling, Version: old, Target: newer, Request: "1", Late: []string{"ci/1"}},
			units: []upgrade.Unit{web(newer), worker("ci/1", old), worker("ci/2", old)}, web: newer,
			phase: upgrade.Rolling, told: []upgrade.Instruction{keep, keep, land(newer)}, activate: newer,
			status: "Upgrading to v7.14.3: 1 of 3 units run it; Not on v7.14.3 in time, see its status: ci/1",
			late:   []string{"ci/1"},
		},
		"all but a late one": {
			state: upgrade.State{Phase: upgrade.Rolling, Version: old, Target: newer, Request: "1", Late: []string{"ci/1"}},
			units: []upgrade.Unit{web(newer), worker("ci/1", "")}, web: newer,
			phase: upgrade.Idle, told: []upgrade.Instruction{keep, restart(newer)}, activate: newer,
			status: "Not on v7.14.3 in time, see its status: ci/1",
			late:   []string{"ci/1"},
		},
		"a third version waits while rolling": {
			state: rolling, units: []upgrade.Unit{web(newer), worker("ci/1", old)}, web: newer, request: upgrade.Request{ID: "2", Version: newest},
			phase: upgrade.Rolling, told: []upgrade.Instruction{keep, land(newer)}, activate: newer,
			status: "Upgrading to v7.14.3: 1 of 2 units run it",
		},
		"asked to return while rolling": {
			state: rolling, units: []upgrade.Unit{web(newer), worker("ci/1", newer), worker("ci/2", old)}, web: newer, request: upgrade.Request{ID: "2", Version: old},
			phase: upgrade.RollingBack, told: []upgrade.Instruction{restart(old), land(old), keep}, activate: old,
			status: "Returning to v7.14.2: 1 of 3 units run it",
		},
		"a new web server while rolling": {
			state: rolling, units: []upgrade.Unit{web(newer), {Name: "ci/1", Web: true, Running: old, Installed: []string{newer}}}, web: newer,
			phase: upgrade.Rolling, told: []upgrade.Instruction{keep, restart(newer)}, activate: newer,
			status: "Upgrading to v7.14.3: 1 of 2 units run it",
		},
		"all have returned": {
			state: back, units: []upgrade.Unit{web(old), worker("ci/1", old)}, web: old,
			phase: upgrade.Idle, told: []upgrade.Instruction{keep, keep}, activate: old,
		},
		"a new unit when idle": {
			state: upgrade.State{Version: newer}, units: []upgrade.Unit{web(newer), worker("ci/1", "")}, web: newer,
			phase: upgrade.Idle, told: []upgrade.Instruction{keep, restart(newer)}, activate: newer,
		},
	} {
		t.Run(name, func(t *testing.T) {
			in := upgrade.Input{Request: test.request, Web: test.web, Units: test.units, AtOnce: 1, Passed: test.passed}
			out := upgrade.Step(test.state, in)
			require.Equal(t, test.phase, out.State.Phase)
			told := []upgrade.Instruction{}
			for _, u := range test.units {
				told = append(told, out.Units[u.Name])
			}
			require.Equal(t, test.told, told)
			require.Equal(t, test.activate, out.Activate)
			require.Equal(t, test.status, out.Status)
			require.Equal(t, test.late, out.State.Late)
			in.Current, in.Passed = out.Activate, upgrade.Deadline{}
			again := upgrade.Step(out.State, in)
			require.Empty(t, again.Activate)
			require.Equal(t, out.State, again.State, "a call more does no harm")
			require.Equal(t, out.Units, again.Units)
		})
	}
}

package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/concourse"
	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/supervisor"
)

// onTheMachineOf is another unit there.
func onTheMachineOf(first *unit, name string) *unit {
	second := newUnit(first.TB, name, false)
	second.charm, second.system, second.files = first.charm, first.system, first.files
	for _, u := range []*unit{first, second} {
		require.NoError(first, os.MkdirAll(u.agent(), 0o755))
	}
	return second
}

// agent is the directory of the unit's agent, which Juju removes with the unit.
func (u *unit) agent() string {
	return filepath.Join(u.charm.agents, "unit-"+concourse.WorkerName(u.name))
}

// onDisk returns all that a unit has on the machine.
func (u *unit) onDisk() map[string]string {
	all := map[string]string{}
	require.NoError(u, filepath.WalkDir(u.charm.paths.State, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		all[path] = string(data)
		return err
	}))
	return all
}

// Two units on a machine would share a directory and services. The second one is refused,
// and the first one never notices, also when the second one is removed.
func TestTwoUnitsOnOneMachine(t *testing.T) {
	const refused = "blocked Machine taken by unit ci/0 of this charm: remove this unit and add one on a machine of its own"
	first := newUnit(t, "ci/0", true)
	second := onTheMachineOf(first, "ci/1")
	first.hook("install") // no hook of it had a spec to write yet
	first.system.Done()
	before := first.onDisk()
	require.Equal(t, refused, second.hook("install"))
	require.Equal(t, before, first.onDisk())
	first.is(supervisor.Status{})
	first.hook("start")
	before = first.onDisk()
	for _, hook := range []string{"leader-elected", "config-changed", "start", "upgrade-charm", "update-status", "peers-relation-created", "stop", "remove"} {
		require.Equal(t, refused, second.hook(hook), hook)
	}
	juju := second.context()
	_, err := juju.RunAction("upgrade", second.state, map[string]any{"version": "7.14.3"})
	require.NoError(t, err)
	require.ErrorContains(t, juju.ActionError, "Machine taken by unit ci/0")
	require.Equal(t, before, first.onDisk())
	require.Empty(t, first.system.Done())
	require.Equal(t, "ci/0", first.spec().Unit)
	require.Equal(t, "blocked PostgreSQL database required", first.hook("config-changed"))
}

// Whose place is free is taken: also that of a unit whose removal no hook has seen.
func TestMachineIsTakenOver(t *testing.T) {
	for name, leave := range map[string]func(first *unit){
		"removed":          func(first *unit) { first.hook("remove") },
		"removed by force": func(first *unit) { require.NoError(first, os.Remove(first.agent())) },
	} {
		t.Run(name, func(t *testing.T) {
			first := newUnit(t, "ci/0", true)
			second := onTheMachineOf(first, "ci/1")
			first.hook("install")
			first.is(supervisor.Status{})
			first.hook("start")
			require.Contains(t, second.hook("install"), "Machine taken by unit ci/0")
			leave(first)
			require.Equal(t, "maintenance Preparing unit", second.hook("update-status"))
			definition, atBoot := second.system.Definition(supervisor.Unit)
			require.Contains(t, definition, " supervise ci/1\n")
			require.True(t, atBoot)
			second.is(supervisor.Status{})
			second.hook("config-changed")
			require.Equal(t, "ci/1", second.spec().Unit)
		})
	}
}

// A charm of before wrote no name, but a spec.
func TestUnitOfAnEarlierCharmHasTheMachine(t *testing.T) {
	first := newUnit(t, "ci/0", true)
	second := onTheMachineOf(first, "ci/1")
	first.hook("install")
	first.is(supervisor.Status{})
	first.hook("start")
	require.NoError(t, os.Remove(filepath.Join(first.charm.paths.State, occupantFile)))
	require.Contains(t, second.hook("install"), "Machine taken by unit ci/0")
	first.hook("upgrade-charm")
	require.FileExists(t, filepath.Join(first.charm.paths.State, occupantFile))
}

package juju

import (
	"testing"

	"github.com/canonical/lxd/shared/api"
	"github.com/stretchr/testify/require"
)

func TestProjectOf(t *testing.T) {
	for name, c := range map[string]struct {
		config map[string]any
		want   string
	}{
		"a cloud without projects": {map[string]any{"name": "ccbench-abcdef"}, "default"},
		"Juju's default":           {map[string]any{"project": "default"}, "default"},
		"the operator's":           {map[string]any{"project": "ci"}, "ci"},
		"set to nothing":           {map[string]any{"project": ""}, "default"},
	} {
		t.Run(name, func(t *testing.T) { require.Equal(t, c.want, projectOf(c.config)) })
	}
}

// inProject has the same names in two projects: a cluster must touch those of its own.
func inProject(project string) *partOfLXD {
	mine := container("juju-abcdef-0", api.Running)
	mine.Project = project
	return &partOfLXD{
		instances: map[string]*api.Instance{mine.Name: mine, "juju-123456-0": container("juju-123456-0", api.Running)},
		volumes: []api.StorageVolume{
			{Name: "ccbench-abcdef", Type: "custom", Project: "default"},
			{Name: "ccbench-abcdef", Type: "custom", Project: project},
		},
	}
}

func TestMachinesOfAnotherProject(t *testing.T) {
	l := inProject("ci")
	c := clusterOn(t, l.start(t))
	require.False(t, c.lxd.is(t.Context(), "juju-abcdef-0", api.Running), "the default project has no such machine")
	c.useProject("ci")

	require.NoError(t, c.Machine("ci/0").Freeze().Inject(t.Context()))
	require.Equal(t, api.Frozen, l.instances["juju-abcdef-0"].StatusCode)
	require.NoError(t, c.Machine("ci/0").Freeze().Heal(t.Context()))

	v, err := c.NewVolume(t.Context(), "1GiB")
	require.NoError(t, err)
	require.Equal(t, "ci", l.volumes[2].Project, "a machine gets no volume of another project")
	made := v.(*volume)
	require.NoError(t, c.setDevice(t.Context(), "juju-abcdef-0", volumePlace, made.device(false), func() bool { return true }))
	found, err := made.writableIn(t.Context())
	require.NoError(t, err)
	require.Equal(t, []string{"juju-abcdef-0"}, found)

	require.Error(t, c.Destroy(t.Context()), "there is no controller")
	require.Equal(t, []string{"custom ccbench-abcdef", "juju-123456-0"}, l.names())
	require.Equal(t, "default", l.volumes[0].Project)
}

// Juju may be gone before it said where its machines are.
func TestDestroyFindsTheProject(t *testing.T) {
	l := inProject("ci")
	c := clusterOn(t, l.start(t))
	require.ErrorContains(t, c.Destroy(t.Context()), "no controller")
	require.Equal(t, "ci", c.project)
	require.Equal(t, []string{"custom ccbench-abcdef", "juju-123456-0"}, l.names())
	require.Equal(t, "default", l.volumes[0].Project)
}

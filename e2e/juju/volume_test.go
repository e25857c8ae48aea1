package juju

import (
	"maps"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestVolumeNames(t *testing.T) {
	require.Equal(t, "ccbench-1a2b3c", volumeName("ccbench-1a2b3c", 1))
	require.Equal(t, "ccbench-1a2b3c-2", volumeName("ccbench-1a2b3c", 2))
}

func TestDevice(t *testing.T) {
	v := &volume{cluster: &Cluster{}, pool: "pool", name: "v"}
	require.Equal(t, map[string]string{"type": "disk", "pool": "pool", "source": "v", "path": "/var/lib/concourse"}, v.device(false))
	require.Equal(t, "true", v.device(true)["readonly"])

	v.pool, v.cluster.options.HostPath = "", "/srv"
	require.Equal(t, map[string]string{"type": "disk", "source": "/srv/v", "shift": "true", "path": "/var/lib/concourse"}, v.device(false))
}

func TestNextDevices(t *testing.T) {
	type devices = map[string]map[string]string
	root, disk := map[string]string{"type": "disk", "path": "/"}, map[string]string{"type": "disk", "source": "v", "path": "/data"}
	readOnly := maps.Clone(disk)
	readOnly["readonly"] = "true"
	other := maps.Clone(disk)
	other["source"] = "w"
	cases := map[string]struct {
		have  devices
		want  map[string]string
		steps []devices
	}{
		"added":                 {devices{"root": root}, disk, []devices{{"root": root, "v": disk}}},
		"added to none":         {nil, disk, []devices{{"v": disk}}},
		"there":                 {devices{"v": disk}, disk, nil},
		"taken away":            {devices{"root": root, "v": disk}, nil, []devices{{"root": root}}},
		"not there":             {devices{"root": root}, nil, nil},
		"changed by two steps":  {devices{"root": root, "v": disk}, readOnly, []devices{{"root": root}, {"root": root, "v": readOnly}}},
		"and back in two steps": {devices{"v": readOnly}, disk, []devices{{}, {"v": disk}}},
		"there as Juju's":       {devices{"filesystem-0": disk}, disk, nil},
		"taken from Juju":       {devices{"filesystem-0": disk}, nil, []devices{{}}},
		"in place of Juju's":    {devices{"filesystem-0": other}, disk, []devices{{}, {"v": disk}}},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			have := tc.have
			for _, step := range tc.steps {
				next, there := nextDevices(have, place{"v", "/data"}, tc.want)
				require.False(t, there)
				require.Equal(t, step, next)
				have = next
			}
			_, there := nextDevices(have, place{"v", "/data"}, tc.want)
			require.True(t, there)
		})
	}
}

func TestFillerSizes(t *testing.T) {
	for _, tc := range []struct{ volume, free, leaving int64 }{
		{2 << 30, 2 << 30, 50 << 20},
		{2 << 30, 1<<30 + 12345, 50 << 20},
		{4e9, 3.9e9, 1},
		{1 << 20, 1 << 20, 1 << 30},
		{1, 1, 0},
	} {
		free := tc.free
		for _, s := range fillerSizes(tc.volume, tc.leaving) {
			size, err := strconv.ParseInt(s, 10, 64)
			require.NoError(t, err)
			if size <= free {
				free -= size
			}
		}
		require.Less(t, free, max(tc.leaving, 4<<10)+1, "%+v", tc)
	}
}

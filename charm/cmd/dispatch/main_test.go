package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"gopkg.in/yaml.v3"
)

// Juju mounts what there can be one of at its location itself, and else below it. That it
// is optional lets the charm be deployed without it.
func TestStorageIsWhereTheVolumeIs(t *testing.T) {
	data, err := os.ReadFile(filepath.Join("..", "..", "metadata.yaml"))
	require.NoError(t, err)
	type storage struct {
		Type, Location string
		Multiple       struct{ Range string }
	}
	var metadata struct{ Storage map[string]storage }
	require.NoError(t, yaml.Unmarshal(data, &metadata))
	want := storage{Type: "filesystem", Location: "/var/lib/concourse"}
	want.Multiple.Range = "0-1"
	require.Equal(t, map[string]storage{"concourse-data": want}, metadata.Storage)
}

// The charm is Apache-2.0; Juju's own code is AGPL-3.0.
func TestLinksNothingOfJuju(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", ".").Output()
	require.NoError(t, err)
	for name := range strings.Lines(string(out)) {
		require.False(t, strings.HasPrefix(name, "github.com/juju/juju"), name)
	}
}

package juju

import (
	"testing"

	corestorage "github.com/juju/juju/core/storage"
	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/cluster"
)

func TestStorageDirectives(t *testing.T) {
	got, err := storageDirectives(cluster.App{Storage: map[string]string{"data": "10G", "cache": "ssd,2,512M"}})
	require.NoError(t, err)
	require.Equal(t, map[string]corestorage.Directive{
		"data": {Size: 10 << 10, Count: 1}, "cache": {Pool: "ssd", Size: 512, Count: 2},
	}, got)
	_, err = storageDirectives(cluster.App{Storage: map[string]string{"data": "0"}})
	require.ErrorContains(t, err, "data=0")
}

package juju

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestEntityName(t *testing.T) {
	require.Equal(t, "concourse-ci/0", entityName("unit-concourse-ci-0"))
	require.Equal(t, "machine-0", entityName("machine-0"))
}

package main

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// The charm is Apache-2.0; Juju's own code is AGPL-3.0.
func TestLinksNothingOfJuju(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", ".").Output()
	require.NoError(t, err)
	for name := range strings.Lines(string(out)) {
		require.False(t, strings.HasPrefix(name, "github.com/juju/juju"), name)
	}
}

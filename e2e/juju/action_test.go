package juju

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestFlatten(t *testing.T) {
	require.Equal(t,
		map[string]string{"username": "admin", "web.url": "http://x", "web.port": "8080"},
		flatten("", map[string]any{"username": "admin", "web": map[string]any{"url": "http://x", "port": 8080}}))
}

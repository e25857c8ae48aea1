package judge

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestWebGap(t *testing.T) {
	require.Empty(t, WebGap(0))
	require.Empty(t, WebGap(webGap))
	require.Equal(t, []string{"the web server did not answer for 31s, longer than 8s"}, WebGap(31*time.Second))
}

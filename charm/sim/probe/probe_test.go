package probe

import (
	"archive/zip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/sim"
)

// The later line of a hook counts, one that was cut off keeps what it saw, and times,
// numbers and lives begin anew.
func TestRead(t *testing.T) {
	notes := `{"unit":"p/0","life":700,"event":"install","begin":1000000000000000,"end":0}
{"unit":"p/1","life":900,"event":"start","begin":1000000050000000,"end":0}
{"unit":"p/0","life":700,"event":"install","begin":1000000000000000,"read":1000000010000000,"end":1000000020000000,"ok":true,"self":1,"wrote":1000000000,"wrote_app":1000000000}
{"unit":"p/1","life":900,"event":"start","begin":1000000050000000,"read":1000000060000000,"end":0,"self":1,"app":1000000000,"units":{"p/0":1000000000}}
{"unit":"p/0","life":1200,"event":"start","begin":1000000080000000,"end":0}
`
	history, base, err := Read(strings.NewReader(notes))
	require.NoError(t, err)
	const ms = time.Millisecond
	require.Equal(t, time.Unix(0, 1000000000000000).Add(-10*ms), base)
	require.Equal(t, []sim.Record{
		{Unit: "p/0", Life: 1, Event: "install", Begin: 10 * ms, Read: 20 * ms, End: 30 * ms, OK: true, Self: 1, Wrote: 10, WroteApp: 10},
		{Unit: "p/1", Life: 1, Event: "start", Begin: 60 * ms, Read: 70 * ms, Self: 1, App: 10, Units: map[string]int{"p/0": 10}},
		{Unit: "p/0", Life: 2, Event: "start", Begin: 90 * ms},
	}, history)

	_, _, err = Read(strings.NewReader("no JSON"))
	require.ErrorContains(t, err, "read history")
}

func TestPack(t *testing.T) {
	out := filepath.Join(t.TempDir(), "probe.charm")
	require.NoError(t, Pack(t.Context(), out))
	z, err := zip.OpenReader(out)
	require.NoError(t, err)
	defer z.Close()
	var names []string
	for _, f := range z.File {
		names = append(names, f.Name)
	}
	require.Subset(t, names, []string{"dispatch", "metadata.yaml", "config.yaml", "actions.yaml"})
}

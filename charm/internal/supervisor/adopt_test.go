package supervisor_test

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/concourse"
	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/supervisor"
)

// Services that the charm before has started are left alone by a refresh.
func TestFormerCharm(t *testing.T) {
	for _, test := range []struct {
		name   string
		change bool
		did    []string
	}{
		{"as it was", false, nil},
		{"changed with the refresh", true, []string{"start " + concourse.WorkerUnit}},
	} {
		t.Run(test.name, func(t *testing.T) {
			m, root, c := newMirror(t), t.TempDir(), newCharm(t)
			spec := m.serving(root, 1, "7.14.3")
			spec.Web, spec.Worker = nil, &concourse.Worker{Name: "ci-0", TSAHost: "10.0.0.9:2222", HostPublicKey: "ssh-rsa TSA"}
			started := *spec.Worker
			started.WorkDir = filepath.Join(root, "worker", "ci-0")
			service := started.Service(concourse.Paths{Volume: "/var/lib/concourse", State: string(c.files)}, "7.14.3")
			former := "[Unit]\nDescription=Concourse CI worker 7.14.3\nAfter=network-online.target\nWants=network-online.target\n" +
				"StartLimitIntervalSec=0\n\n[Service]\n" + service.Process + "\n[Install]\nWantedBy=multi-user.target\n"
			notes, err := json.Marshal(map[string]any{
				"running": "7.14.3", "tsa_host": "10.0.0.9:2222",
				"applied": map[string]string{concourse.WorkerUnit: fmt.Sprintf("%x", sha256.Sum256([]byte(former+"\x00"+service.Files[0].Content)))},
			})
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(filepath.Join(string(c.files), "notes.json"), notes, 0o600))
			require.NoError(t, c.system.Restart(t.Context(), concourse.WorkerUnit))
			c.system.Done()
			if test.change {
				spec.Worker.LogLevel = "debug"
			}
			require.NoError(t, c.files.PutSpec(spec))
			c.run(t)
			eventually(t, "the release", c.saw(func(f supervisor.Status) bool { return f.Run == "7.14.3" && f.Installed == "7.14.3" }))
			eventually(t, "what is due", func() bool { return len(test.did) == 0 || strings.Join(c.system.Done(), "") == test.did[0] })
			require.Empty(t, c.system.Done())
			require.NoFileExists(t, filepath.Join(string(c.files), "notes.json"))
		})
	}
}

// The web server's user could have put a link where a directory is expected.
func TestLinksAreNotGivenAway(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root gives files away")
	}
	c := newCharm(t)
	c.system.IDs = [2]int{4711, 4711}
	target := t.TempDir()
	require.NoError(t, os.Symlink(target, filepath.Join(string(c.files), "web")))
	c.run(t)
	eventually(t, "the worker's key", func() bool {
		status, err := c.files.Status()
		return err == nil && status.WorkerKey != ""
	})
	info, err := os.Stat(target)
	require.NoError(t, err)
	require.EqualValues(t, 0, info.Sys().(*syscall.Stat_t).Uid)
	info, err = os.Stat(string(c.files))
	require.NoError(t, err)
	require.EqualValues(t, 4711, info.Sys().(*syscall.Stat_t).Gid)
}

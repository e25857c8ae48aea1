package concourse_test

import (
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/concourse"
)

var update = flag.Bool("update", false, "write the golden files anew")

func golden(t *testing.T, name string, s concourse.Service) {
	t.Helper()
	path := filepath.Join("testdata", name)
	got := s.Definition + "\n# " + s.EnvPath + "\n" + s.Environment
	if *update {
		require.NoError(t, os.WriteFile(path, []byte(got), 0o644))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, string(want), got)
}

var paths = concourse.Paths{Volume: "/var/lib/concourse", State: "/var/lib/concourse-ci-machine"}

func TestServices(t *testing.T) {
	web := concourse.Web{
		Version: "7.14.3", Port: 80, Address: "10.0.0.1", AdminUser: "admin", AdminPassword: "secret",
		LogLevel: "info", Database: concourse.Database{
			Host: "10.0.0.9", Port: "5432", Name: "concourse", User: "relation-1",
			Password: `a"b\c` + "`d$e f#g", TLS: true,
		},
	}
	golden(t, "server.golden", web.Service(paths))
	golden(t, "worker.golden", concourse.Worker{
		Version: "7.14.3", Name: "ci-1", WorkDir: "/var/lib/concourse/worker/ci-1", TSAHost: "10.0.0.1:2222", LogLevel: "info",
	}.Service(paths))

	before := web.Service(paths).Digest()
	web.Database.Password = "rotated"
	require.NotEqual(t, before, web.Service(paths).Digest())
}

func TestKeys(t *testing.T) {
	keys, err := concourse.NewKeys()
	require.NoError(t, err)
	parsed, err := concourse.ParseKeys(keys.Content())
	require.NoError(t, err)
	require.Equal(t, keys, parsed)
	_, err = concourse.ParseKeys(map[string]string{"admin-password": "x"})
	require.ErrorContains(t, err, "tsa-host-key")

	public, err := concourse.PublicKey(keys.HostKey)
	require.NoError(t, err)
	require.Regexp(t, `^ssh-rsa [A-Za-z0-9+/=]+$`, public)
	_, err = concourse.PublicKey("no key")
	require.Error(t, err)
}

func TestWorkerKeyIsMadeOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "worker_key")
	first, err := concourse.WorkerKey(path)
	require.NoError(t, err)
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode())
	second, err := concourse.WorkerKey(path)
	require.NoError(t, err)
	require.Equal(t, first, second)
}

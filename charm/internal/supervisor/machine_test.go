package supervisor_test

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/concourse"
	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/supervisor"
)

// A worker is told the machine's name servers and certificates where it cannot find them,
// and anew when they change. The web server has no use for them.
func TestMachine(t *testing.T) {
	dir := t.TempDir()
	machine := supervisor.Machine{
		ResolvConf: filepath.Join(dir, "resolv.conf"), Resolved: filepath.Join(dir, "resolved"), Certificates: filepath.Join(dir, "certs"),
	}
	write := func(path, content string) { // as a whole, as programs do
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(filepath.Join(dir, "new"), []byte(content), 0o644))
		require.NoError(t, os.Rename(filepath.Join(dir, "new"), path))
	}
	write(machine.ResolvConf, "nameserver 127.0.0.53\n")
	write(machine.Resolved, "nameserver 10.0.3.1\n")

	m := newMirror(t)
	c := start(t, func(s *supervisor.Supervisor) { s.Machine = machine })
	require.NoError(t, c.files.PutSpec(m.serving(t.TempDir(), 1, "7.14.3")))
	variable := func(name string) string {
		data, err := os.ReadFile(filepath.Join(string(c.files), "concourse-worker.env"))
		if err != nil {
			return ""
		}
		if found := regexp.MustCompile(`(?m)^` + name + `="(.*)"$`).FindSubmatch(data); found != nil {
			return string(found[1])
		}
		return ""
	}
	starts := func(n int, what string) {
		t.Helper()
		var did []string
		eventually(t, what, func() bool { did = append(did, c.system.Done()...); return len(did) >= n })
		if n == 1 {
			require.Equal(t, []string{"start " + concourse.WorkerUnit}, did)
		}
	}
	starts(2, "both services")
	require.Equal(t, "10.0.3.1", variable("CONCOURSE_CONTAINERD_DNS_SERVER"))
	require.Empty(t, variable("CONCOURSE_CERTS_DIR"), "the machine has none")

	write(machine.Resolved, "nameserver 10.0.3.2\n")
	starts(1, "another name server")
	require.Equal(t, "10.0.3.2", variable("CONCOURSE_CONTAINERD_DNS_SERVER"))

	write(filepath.Join(machine.Certificates, "ca-certificates.crt"), "ONE")
	starts(1, "certificates")
	first := variable("CONCOURSE_CERTS_DIR")
	require.FileExists(t, filepath.Join(first, "ca-certificates.crt"))

	write(filepath.Join(machine.Certificates, "ca-certificates.crt"), "ONE AND TWO")
	starts(1, "one more certificate")
	second := variable("CONCOURSE_CERTS_DIR")
	require.NotEqual(t, first, second, "the web server keeps what a worker had under a path")
	data, err := os.ReadFile(filepath.Join(second, "ca-certificates.crt"))
	require.NoError(t, err)
	require.Equal(t, "ONE AND TWO", string(data))

	// Nothing of this changes what there is: the same again, and a network that is away.
	write(filepath.Join(machine.Certificates, "ca-certificates.crt"), "ONE AND TWO")
	write(machine.Resolved, "")
	write(machine.ResolvConf, "nameserver 127.0.0.53\nsearch lxd\n")
	write(filepath.Join(machine.Certificates, "more.crt"), "THREE")
	starts(1, "the one that changes")
	require.Equal(t, "10.0.3.2", variable("CONCOURSE_CONTAINERD_DNS_SERVER"))

	write(machine.ResolvConf, "nameserver 10.0.0.2\n")
	starts(1, "a server of its own")
	require.Empty(t, variable("CONCOURSE_CONTAINERD_DNS_SERVER"))
}

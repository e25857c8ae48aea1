package supervisor_test

import (
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/options"
	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/supervisor"
)

// A proxy that appears later counts at once, and its password is nowhere to be read.
func TestDownloadsGoByTheProxy(t *testing.T) {
	t.Parallel() // with the other: what is unreachable is tried for a while
	m, c := newMirror(t), start(t)
	proxy := strings.Replace(m.URL, "http://", "http://user:s3cret@", 1) // answers for any host
	spec := m.serving(t.TempDir(), 1, "7.14.3")
	spec.Source, spec.Newest = "http://mirror.invalid/o/r", true
	spec.Web, spec.Worker = nil, nil
	spec.Proxies = options.Proxies{HTTP: "http://user:s3cret@127.0.0.1:1"}
	require.NoError(t, c.files.PutSpec(spec))
	eventually(t, "that the proxy is away", c.saw(func(f supervisor.Status) bool {
		require.NotContains(t, f.Failure+f.NewestFailure, "s3cret")
		return strings.Contains(f.Failure, "127.0.0.1:1") && strings.Contains(f.NewestFailure, "127.0.0.1:1")
	}))

	spec.Proxies.HTTP = proxy
	require.NoError(t, c.files.PutSpec(spec))
	eventually(t, "the release", c.saw(func(f supervisor.Status) bool { return f.Installed == "7.14.3" && f.Newest == "7.14.3" }))
	c.mu.Lock()
	defer c.mu.Unlock()
	require.NotEmpty(t, c.log)
	require.NotContains(t, strings.Join(c.log, "\n"), "s3cret")
}

// An authority that the machine comes to trust is trusted by downloads without a restart.
func TestDownloadsTrustWhomTheMachineTrusts(t *testing.T) {
	t.Parallel()
	m := newMirror(t)
	server := httptest.NewTLSServer(http.HandlerFunc(m.Config.Handler.ServeHTTP))
	t.Cleanup(server.Close)
	certificates := t.TempDir()
	c := start(t, func(s *supervisor.Supervisor) { s.Machine.Certificates = certificates })
	spec := m.serving(t.TempDir(), 1, "7.14.3")
	spec.Source, spec.Web, spec.Worker = server.URL+"/o/r", nil, nil
	require.NoError(t, c.files.PutSpec(spec))
	eventually(t, "that it is not trusted", c.saw(func(f supervisor.Status) bool { return strings.Contains(f.Failure, "certificate") }))

	bundle := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	require.NoError(t, os.WriteFile(filepath.Join(certificates, "ca-certificates.crt"), bundle, 0o644))
	eventually(t, "the release", c.saw(func(f supervisor.Status) bool { return f.Installed == "7.14.3" }))
}

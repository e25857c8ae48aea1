package concourse_test

import (
	"cmp"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/concourse"
	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/options"
)

var update = flag.Bool("update", false, "write the golden files anew")

func golden(t *testing.T, name string, s concourse.Service) {
	t.Helper()
	path := filepath.Join("testdata", name)
	got := s.Definition()
	for _, f := range s.Files {
		got += "\n# " + f.Path + ", owner " + cmp.Or(f.Owner, "root") + "\n" + f.Content
	}
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
		Port: 80, Address: "10.0.0.1", AdminUser: "admin", LogLevel: "info",
		Database: concourse.Database{
			Host: "10.0.0.9", Port: "5432", Name: "concourse", User: "relation-1",
			Password: `a"b\c` + "`d$e f#g", TLS: true,
		},
		Keys:           concourse.Keys{HostKey: "HOST KEY\n", SigningKey: "SIGNING KEY\n", AdminPassword: "secret"},
		AuthorizedKeys: "ssh-rsa ONE\n",
	}
	worker := concourse.Worker{
		Name: "ci-1", WorkDir: "/var/lib/concourse/worker/ci-1", TSAHost: "10.0.0.1:2222", HostPublicKey: "ssh-rsa TSA", LogLevel: "info",
	}
	golden(t, "server.golden", web.Service(paths, "7.14.3"))
	golden(t, "worker.golden", worker.Service(paths, "7.14.3"))
}

// What the charm sets, no operator can set with extra-env.
func TestTheCharmOwnsWhatItSets(t *testing.T) {
	web := concourse.Web{Port: 80, Database: concourse.Database{TLS: true}}
	worker := concourse.Worker{Name: "ci-1", WorkDir: "/a", NameServers: "10.0.0.2", Certificates: "/c"}
	for _, s := range []concourse.Service{web.Service(paths, "7.14.3"), worker.Service(paths, "7.14.3")} {
		for line := range strings.Lines(s.Files[0].Content) {
			name, _, _ := strings.Cut(line, "=")
			require.True(t, options.Owns(name), name)
		}
	}
	require.False(t, options.Owns("CONCOURSE_ENABLE_ACROSS_STEP"))
}

func TestOptions(t *testing.T) {
	const given = "CONCOURSE_TAG=gpu\nCONCOURSE_BAGGAGECLAIM_DRIVER=overlay\nSECRET=a\"b=c"
	web, worker := concourse.Web{Options: given}, concourse.Worker{Options: given}
	for _, s := range []concourse.Service{web.Service(paths, "7.14.3"), worker.Service(paths, "7.14.3")} {
		for _, line := range []string{`CONCOURSE_TAG="gpu"`, `CONCOURSE_BAGGAGECLAIM_DRIVER="overlay"`, `SECRET="a\"b=c"`} {
			require.Contains(t, s.Files[0].Content, line+"\n")
		}
	}
	require.NotEqual(t, concourse.Web{}.Identity(), web.Identity())
	require.NotEqual(t, concourse.Worker{}.Identity(), worker.Identity())
}

// What the machine has is for the worker; an option prevails. Who describes it does not
// know the machine.
func TestWhatTheMachineHas(t *testing.T) {
	plain := concourse.Worker{Name: "ci-1", WorkDir: "/a"}
	has := plain
	has.NameServers, has.Certificates = "10.0.3.1,10.0.3.2", "/certificates"
	environment := func(w concourse.Worker) string { return w.Service(paths, "7.14.3").Files[0].Content }
	require.Contains(t, environment(has), "CONCOURSE_CONTAINERD_DNS_SERVER=\"10.0.3.1,10.0.3.2\"\n")
	require.Contains(t, environment(has), "CONCOURSE_CERTS_DIR=\"/certificates\"\n")
	require.Equal(t, plain.Identity(), has.Identity())
	require.NotEqual(t, plain.Service(paths, "7.14.3").RestartDigest(), has.Service(paths, "7.14.3").RestartDigest())

	has.Options = "CONCOURSE_CONTAINERD_DNS_SERVER=10.0.0.2"
	require.Contains(t, environment(has), "CONCOURSE_CONTAINERD_DNS_SERVER=\"10.0.0.2\"\n")
	has.Options = "CONCOURSE_CONTAINERD_DNS_PROXY_ENABLE=true"
	require.NotContains(t, environment(has), "CONCOURSE_CONTAINERD_DNS_SERVER")
}

// What a process has read decides whether it is restarted, reloaded, or left alone.
func TestDigests(t *testing.T) {
	web := concourse.Web{Port: 80, Keys: concourse.Keys{HostKey: "a", SigningKey: "b"}, AuthorizedKeys: "one\n"}
	worker := concourse.Worker{Name: "ci-1", WorkDir: "/a", TSAHost: "10.0.0.1:2222", HostPublicKey: "ssh-rsa TSA"}
	of := func(s concourse.Service) [2]string { return [2]string{s.RestartDigest(), s.ReloadDigest()} }
	webService := func(change func(*concourse.Web)) concourse.Service {
		changed := web
		change(&changed)
		return changed.Service(paths, "7.14.3")
	}
	for name, test := range map[string]struct {
		change          func(*concourse.Web)
		restart, reload bool
	}{
		"nothing":            {func(*concourse.Web) {}, false, false},
		"the password":       {func(w *concourse.Web) { w.Database.Password = "rotated" }, true, false},
		"the host key":       {func(w *concourse.Web) { w.Keys.HostKey = "replaced" }, true, false},
		"the signing key":    {func(w *concourse.Web) { w.Keys.SigningKey = "replaced" }, true, false},
		"a worker that came": {func(w *concourse.Web) { w.AuthorizedKeys += "two\n" }, false, true},
	} {
		before, after := of(web.Service(paths, "7.14.3")), of(webService(test.change))
		require.Equal(t, test.restart, before[0] != after[0], "restarted for %s", name)
		require.Equal(t, test.reload, before[1] != after[1], "reloaded for %s", name)
		changed := web
		test.change(&changed)
		require.Equal(t, test.restart, web.Identity() != changed.Identity(), "another one for %s", name)
	}
	require.NotEqual(t, of(web.Service(paths, "7.14.2")), of(web.Service(paths, "7.14.3")))

	elsewhere, other := worker, worker
	elsewhere.WorkDir, other.HostPublicKey = "/b", "ssh-rsa OTHER"
	require.NotEqual(t, of(worker.Service(paths, "7.14.3")), of(elsewhere.Service(paths, "7.14.3")))
	require.Equal(t, worker.Identity(), elsewhere.Identity(), "who describes it does not know the volume")
	require.NotEqual(t, worker.Identity(), other.Identity(), "the web server has another key")
	moved := worker
	moved.LocalDir = "/mnt/fast"
	require.NotEqual(t, worker.Identity(), moved.Identity(), "its state is to be elsewhere")
	require.Equal(t, of(worker.Service(paths, "7.14.3")), of(moved.Service(paths, "7.14.3")), "until it is there")
	worker.WorkDir = ""
	require.Equal(t, worker.Service(concourse.Paths{}, "").RestartDigest(), worker.Identity(), "as it always was: a refresh of the charm starts no worker anew")
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

// A unit whose address is one of IPv6 has a URL that can be parsed.
func TestExternalURLOfIPv6(t *testing.T) {
	web := concourse.Web{Port: 8080, Address: "fd00::1"}
	require.Contains(t, web.Service(paths, "7.14.3").Files[0].Content, `CONCOURSE_EXTERNAL_URL="http://[fd00::1]:8080"`)
}

package hook_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/gruyaume/goops"
	"github.com/gruyaume/goops/goopstest"
	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/concourse"
	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/hook"
	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/relations"
	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/watcher"
	"github.com/concourse-ci-machine/concourse-ci-machine/charm/product"
	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator"
)

// system is a machine whose systemd does as it is told.
type system struct {
	running map[string]bool
	did     []string
}

func (s *system) Account(context.Context, string) (uid, gid int, err error) {
	return os.Getuid(), os.Getgid(), nil
}

func (s *system) Define(_ context.Context, unit, _ string) (bool, error) { return false, nil }

func (s *system) Running(_ context.Context, unit string) (bool, error) { return s.running[unit], nil }

func (s *system) Restart(_ context.Context, unit string) error {
	s.did = append(s.did, "restart "+unit)
	s.running[unit] = true
	return nil
}

func (s *system) Reload(_ context.Context, unit string) error {
	s.did = append(s.did, "reload "+unit)
	return nil
}

func (s *system) Remove(_ context.Context, unit string) error {
	s.did = append(s.did, "remove "+unit)
	delete(s.running, unit)
	return nil
}

func (s *system) Execute(_ context.Context, name string, args ...string) error {
	s.did = append(s.did, filepath.Base(name)+" "+strings.Join(args[:2], " "))
	return nil
}

func (s *system) done() []string {
	did := s.did
	s.did = nil
	return did
}

// tools fill gaps of goopstest's hook tools: an endpoint without relations,
// and the id of a new secret.
type tools struct{ goops.CommandRunner }

func (f tools) Run(name string, args ...string) ([]byte, error) {
	out, err := f.CommandRunner.Run(name, args...)
	switch {
	case err != nil:
	case name == "relation-ids" && len(out) == 0:
		out = []byte("[]")
	case name == "secret-add":
		out = []byte("secret:keys\n")
	}
	return out, err
}

// environment adds variables that goopstest does not know.
type environment struct {
	goops.EnvironmentGetter
	extra map[string]string
}

func (e environment) Get(name string) string {
	if value, ok := e.extra[name]; ok {
		return value
	}
	return e.EnvironmentGetter.Get(name)
}

// unit is one unit under test: Juju's side is goopstest's, the volume is a
// real coordinator's, and the watcher's part is played by the test.
type unit struct {
	*testing.T
	name   string
	charm  hook.Charm
	system *system
	state  goopstest.State
	extra  map[string]string // environment of the next hook
	source string
}

func newUnit(t *testing.T, name string, leader bool) *unit {
	dir := t.TempDir()
	u := &unit{T: t, name: name, system: &system{running: map[string]bool{}}, source: mirror(t)}
	executable := filepath.Join(dir, "dispatch")
	require.NoError(t, os.WriteFile(executable, []byte("binary"), 0o755))
	u.charm = hook.Charm{
		Paths:  concourse.Paths{Volume: filepath.Join(dir, "volume"), State: filepath.Join(dir, "state")},
		System: u.system,
		Open: func(ctx context.Context, root string, o coordinator.Options) (hook.Volume, error) {
			return coordinator.Open(ctx, root, o)
		},
		Address:    func() (string, error) { return "10.0.0.1", nil },
		Hostname:   "juju-1-0",
		Executable: executable,
	}
	u.state = goopstest.State{
		Leader: leader,
		Config: map[string]any{
			"mode": "auto", "version": "7.14.2", "release-url": u.source, "shared-storage": "none",
			"web-port": 8080, "initial-admin-username": "admin", "log-level": "info",
		},
		PeerRelations: []goopstest.PeerRelation{{
			ID: "peers:0", Endpoint: "peers", LocalAppData: goopstest.DataBag{}, LocalUnitData: goopstest.DataBag{},
			PeersData: map[goopstest.UnitID]goopstest.DataBag{},
		}},
	}
	return u
}

func (u *unit) context() *goopstest.Context {
	return goopstest.NewContext(func() error {
		goops.SetCommandRunner(tools{goops.GetCommandRunner()})
		goops.SetEnvGetter(environment{goops.GetEnvGetter(), u.extra})
		return u.charm.Run(context.Background())
	}, goopstest.WithUnitID(u.name), goopstest.WithAppName("ci"))
}

// hook runs one hook and returns the unit's status.
func (u *unit) hook(name string) string {
	u.Helper()
	juju := u.context()
	u.state = juju.Run(name, u.state)
	require.NoError(u, juju.CharmErr)
	// goopstest forgets the id of a secret that a hook made.
	for i := range u.state.Secrets {
		if u.state.Secrets[i].ID == "" {
			u.state.Secrets[i].ID = "secret:keys"
		}
	}
	return string(u.state.UnitStatus.Name) + " " + u.state.UnitStatus.Message
}

func (u *unit) app() goopstest.DataBag  { return u.state.PeerRelations[0].LocalAppData }
func (u *unit) self() goopstest.DataBag { return u.state.PeerRelations[0].LocalUnitData }

func (u *unit) want() watcher.Want {
	u.Helper()
	want, err := watcher.Files(u.charm.Paths.State).Want()
	require.NoError(u, err)
	return want
}

// install does what the watcher does for what the hook wants.
func (u *unit) install() {
	u.Helper()
	want := u.want()
	c, err := coordinator.Open(context.Background(), want.Root, coordinator.Options{Product: product.Concourse, Unit: want.Unit, Source: want.Source,
		Log: slog.New(slog.NewJSONHandler(watcher.Files(u.charm.Paths.State).Journal(), nil))})
	require.NoError(u, err)
	_, err = c.Ensure(context.Background(), want.Version)
	require.NoError(u, err)
}

func (u *unit) found(found watcher.Found) {
	u.Helper()
	require.NoError(u, watcher.Files(u.charm.Paths.State).PutFound(found))
}

// relate gives the unit a database.
func (u *unit) relate() {
	u.state.Relations = []goopstest.Relation{{
		Endpoint: "postgresql", ID: "postgresql:1", RemoteAppName: "db",
		RemoteAppData:   goopstest.DataBag{"endpoints": "10.0.0.9:5432", "secret-user": "secret:db", "database": "concourse"},
		RemoteUnitsData: map[goopstest.UnitID]goopstest.DataBag{"db/0": {}},
		LocalAppData:    goopstest.DataBag{}, LocalUnitData: goopstest.DataBag{},
	}}
	u.state.Secrets = append(u.state.Secrets, goopstest.Secret{
		ID: "secret:db", Content: map[string]string{"username": "relation-1", "password": "first"},
	})
}

// mirror serves any version.
func mirror(t *testing.T) string {
	var out bytes.Buffer
	zipped := gzip.NewWriter(&out)
	files := tar.NewWriter(zipped)
	require.NoError(t, files.WriteHeader(&tar.Header{Name: "concourse/bin/concourse", Mode: 0o755, Typeflag: tar.TypeReg}))
	require.NoError(t, errors.Join(files.Close(), zipped.Close()))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if archive, ok := strings.CutSuffix(r.URL.Path, ".sha256"); ok {
			fmt.Fprintf(w, "%x  %s\n", sha256.Sum256(out.Bytes()), filepath.Base(archive))
			return
		}
		_, _ = w.Write(out.Bytes())
	}))
	t.Cleanup(server.Close)
	return server.URL + "/o/r"
}

const (
	server = concourse.ServerUnit
	worker = concourse.WorkerUnit
)

func TestLeader(t *testing.T) {
	u := newUnit(t, "ci/0", true)
	require.Equal(t, "blocked PostgreSQL database required", u.hook("install"))
	require.Equal(t, []string{"restart " + watcher.Unit}, u.system.done())
	require.Equal(t, "7.14.2", u.want().Version, "the download does not wait for the database")
	require.Equal(t, "secret:keys", u.app()[relations.KeysSecret])

	u.relate()
	require.Equal(t, "maintenance Waiting for binaries v7.14.2...", u.hook("postgresql-relation-changed"))
	require.Equal(t, "concourse", u.state.Relations[0].LocalAppData["database"])
	require.JSONEq(t, `["username","password","tls","tls-ca","uris"]`, u.state.Relations[0].LocalAppData["requested-secrets"])

	u.install()
	juju := u.context()
	u.state = juju.Run("volume-changed", u.state)
	require.NoError(t, juju.CharmErr)
	require.Equal(t, []string{"restart " + server}, u.system.done())
	require.Contains(t, fmt.Sprint(juju.JujuLog), "Downloading Concourse binaries v7.14.2 from "+u.source)
	require.Equal(t, 8080, u.want().WebPort)
	for _, name := range []string{"concourse-server.env", "web/tsa_host_key", "web/session_signing_key", "worker/worker_key"} {
		info, err := os.Stat(filepath.Join(u.charm.Paths.State, name))
		require.NoError(t, err)
		require.Equal(t, os.FileMode(0o600), info.Mode(), name)
	}

	u.found(watcher.Found{Mounted: true, Web: "7.14.2"})
	require.Equal(t, "active Web server ready (v7.14.2)", u.hook("volume-changed"))
	require.Empty(t, u.system.done())
	require.Equal(t, "7.14.2", u.app()[relations.ActiveVersion])
	require.Equal(t, "10.0.0.1:2222", u.app()[relations.TSAHost])
	require.Equal(t, "7.14.2", u.state.ApplicationVersion)
	require.Len(t, u.state.Ports, 2)

	for i := range u.state.Secrets {
		if u.state.Secrets[i].ID == "secret:db" {
			u.state.Secrets[i].Content["password"] = "rotated"
		}
	}
	u.hook("secret-changed")
	require.Equal(t, []string{"restart " + server}, u.system.done())

	// A worker comes, and goes.
	u.state.PeerRelations[0].PeersData["ci/1"] = goopstest.DataBag{relations.WorkerPublicKey: "ssh-rsa ONE"}
	u.hook("peers-relation-changed")
	require.Equal(t, []string{"reload " + server}, u.system.done())
	keys, err := os.ReadFile(u.charm.Paths.AuthorizedKeys())
	require.NoError(t, err)
	require.Contains(t, string(keys), "ssh-rsa ONE\n")

	delete(u.state.PeerRelations[0].PeersData, "ci/1")
	u.extra = map[string]string{"JUJU_RELATION": "peers", "JUJU_DEPARTING_UNIT": "ci/1"}
	u.hook("peers-relation-departed")
	require.Equal(t, []string{"reload " + server, "concourse retire-worker --name=ci-1"}, u.system.done())
	u.extra = nil

	// Actions.
	juju = u.context()
	_, err = juju.RunAction("get-admin-password", u.state, nil)
	require.NoError(t, err)
	require.Equal(t, "admin", juju.ActionResults["username"])
	require.Len(t, juju.ActionResults["password"], 32)

	juju = u.context()
	_, err = juju.RunAction("upgrade", u.state, map[string]any{"version": "newest"})
	require.NoError(t, err)
	require.ErrorContains(t, juju.ActionError, `malformed version "newest": use the form 7.14.3`)

	juju = u.context()
	u.state, err = juju.RunAction("upgrade", u.state, map[string]any{"version": "v7.14.3"})
	require.NoError(t, errors.Join(err, juju.CharmErr))
	require.Equal(t, "7.14.3", juju.ActionResults["target-version"])
	require.Equal(t, "Upgrading to v7.14.3...", u.state.UnitStatus.Message)
	u.install()
	u.hook("volume-changed")
	require.Equal(t, []string{"restart " + server}, u.system.done())
	u.found(watcher.Found{Mounted: true, Web: "7.14.3"})
	require.Equal(t, "active Web server ready (v7.14.3)", u.hook("volume-changed"))
	require.Equal(t, "active Web server ready (v7.14.3)", u.hook("config-changed"), "the older option does not undo it")
}

// Juju shows the settings of a relation before it grants the secret in them.
func TestSecretThatMayNotBeReadYet(t *testing.T) {
	u := newUnit(t, "ci/0", true)
	u.relate()
	secrets := u.state.Secrets
	u.state.Secrets = nil
	require.Equal(t, "waiting Waiting for PostgreSQL database...", u.hook("postgresql-relation-changed"))
	require.True(t, u.want().Again, "no event says that the secret can be read")
	u.state.Secrets = append(u.state.Secrets, secrets...)
	require.Equal(t, "maintenance Waiting for binaries v7.14.2...", u.hook("volume-changed"))
	require.False(t, u.want().Again)
}

func TestPinnedDigest(t *testing.T) {
	u := newUnit(t, "ci/0", true)
	u.relate()
	u.hook("start")
	u.install()
	u.system.done()
	u.state.Config["release-digest"] = "sha256:" + strings.Repeat("0", 64)
	require.Equal(t, "maintenance Waiting for binaries v7.14.2...", u.hook("config-changed"))
	require.Empty(t, u.system.done(), "what is on the volume is another archive")

	u.state.Config["release-digest"] = ""
	u.hook("config-changed")
	require.Equal(t, []string{"restart " + server}, u.system.done())
	u.state.Config["release-digest"] = "sha256:" + strings.Repeat("0", 64)
	u.found(watcher.Found{Mounted: true, Web: "7.14.2"})
	require.Equal(t, "active Web server ready (v7.14.2)", u.hook("config-changed"), "what runs goes on")
}

func TestTwoApplicationsOnOneVolume(t *testing.T) {
	u := newUnit(t, "ci/0", true)
	u.relate()
	u.hook("start")
	u.install()
	u.hook("volume-changed")
	other, err := coordinator.Open(context.Background(), u.charm.Paths.Volume, coordinator.Options{Product: product.Concourse, Unit: "other/0", Source: u.source})
	require.NoError(t, err)
	_, err = other.Ensure(context.Background(), "7.14.3")
	require.NoError(t, err)
	theirs, err := other.Activate(context.Background(), "7.14.3")
	require.NoError(t, err)
	u.hook("volume-changed")
	current, err := other.Current(context.Background())
	require.NoError(t, err)
	require.Equal(t, theirs, current)
}

// elsewhere is a machine on which the web server has a user of its own.
type elsewhere struct{ *system }

func (elsewhere) Account(context.Context, string) (uid, gid int, err error) { return 4711, 4711, nil }

func TestLinksAreNotGivenAway(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root gives files away")
	}
	u := newUnit(t, "ci/0", true)
	u.charm.System = elsewhere{u.system}
	target := t.TempDir()
	require.NoError(t, os.Mkdir(u.charm.Paths.State, 0o700))
	require.NoError(t, os.Symlink(target, u.charm.Paths.WebDir()))
	u.hook("install")
	info, err := os.Stat(target)
	require.NoError(t, err)
	require.EqualValues(t, 0, info.Sys().(*syscall.Stat_t).Uid)
}

func TestDatabaseRelationBroken(t *testing.T) {
	u := newUnit(t, "ci/0", true)
	u.relate()
	u.hook("start")
	u.extra = map[string]string{"JUJU_RELATION": "postgresql", "JUJU_RELATION_ID": "postgresql:1"}
	require.Equal(t, "blocked PostgreSQL database required", u.hook("postgresql-relation-broken"))
}

func TestWorker(t *testing.T) {
	u := newUnit(t, "ci/1", false)
	u.app()[relations.TargetVersion], u.app()[relations.ConfigVersion] = "7.14.2", "7.14.2"
	require.Equal(t, "maintenance Waiting for binaries v7.14.2...", u.hook("start"))
	require.NotEmpty(t, u.self()[relations.WorkerPublicKey])
	u.install()
	require.Equal(t, "waiting Waiting for TSA connection info...", u.hook("volume-changed"))
	u.system.done()

	keys, err := concourse.NewKeys()
	require.NoError(t, err)
	public, err := concourse.PublicKey(keys.HostKey)
	require.NoError(t, err)
	u.app()[relations.ActiveVersion], u.app()[relations.TSAHost], u.app()[relations.TSAPublicKey] = "7.14.2", "10.0.0.9:2222", public
	require.Equal(t, "maintenance Starting Concourse v7.14.2...", u.hook("peers-relation-changed"))
	require.Equal(t, []string{"restart " + worker}, u.system.done())
	u.found(watcher.Found{Mounted: true, Worker: "7.14.2"})
	require.Equal(t, "active Worker ready (v7.14.2)", u.hook("volume-changed"))
	require.Equal(t, "7.14.2", u.self()[relations.ConcourseVersion])

	// The leader is lost, and this unit leads until it is not.
	u.relate()
	u.state.Leader = true
	u.state.Secrets = append(u.state.Secrets, goopstest.Secret{ID: "secret:keys", Content: keys.Content()})
	u.app()[relations.KeysSecret] = "secret:keys"
	u.hook("leader-elected")
	require.Equal(t, []string{"restart " + server, "remove " + worker}, u.system.done())
	private, err := os.ReadFile(u.charm.Paths.HostKey())
	require.NoError(t, err)
	require.Equal(t, keys.HostKey, string(private), "workers know the new web server by the old key")
	u.found(watcher.Found{Mounted: true, Web: "7.14.2"})
	require.Equal(t, "active Web server ready (v7.14.2)", u.hook("volume-changed"))
	require.Equal(t, []string{"concourse retire-worker --name=ci-1"}, u.system.done())
	u.state.Leader = false
	u.hook("config-changed")
	require.Equal(t, []string{"remove " + server, "restart " + worker}, u.system.done())

	workDir := filepath.Join(u.charm.Paths.Volume, "worker", "ci-1")
	require.DirExists(t, workDir)
	u.extra = map[string]string{"JUJU_RELATION": "peers", "JUJU_DEPARTING_UNIT": "ci/1"}
	u.hook("peers-relation-departed")
	require.Equal(t, []string{"concourse retire-worker --name=ci-1",
		"remove " + watcher.Unit, "remove " + worker, "remove " + server}, u.system.done())
	require.NoDirExists(t, workDir)
	u.extra = nil
	u.hook("config-changed")
	require.Empty(t, u.system.running, "a unit that leaves starts nothing")
	u.hook("stop")
	u.hook("remove")
	require.NoDirExists(t, u.charm.Paths.State)
}

func TestSharedVolumeNeverMounted(t *testing.T) {
	u := newUnit(t, "ci/1", false)
	u.state.Config["shared-storage"] = "lxc"
	require.NoError(t, os.Mkdir(u.charm.Paths.Volume, 0o755))
	require.Contains(t, u.hook("start"), "blocked Shared storage unavailable - attach it with `lxc config device add ")
	left, err := os.ReadDir(u.charm.Paths.Volume)
	require.NoError(t, err)
	require.Empty(t, left)
}

func TestNotesSurviveAFailedStep(t *testing.T) {
	u := newUnit(t, "ci/0", true)
	u.relate()
	u.hook("start")
	u.install()
	broken := &failing{system: u.system}
	u.charm.System = broken
	juju := u.context()
	u.state = juju.Run("volume-changed", u.state)
	require.ErrorContains(t, juju.CharmErr, "systemd is on strike")
	data, err := os.ReadFile(filepath.Join(u.charm.Paths.State, "notes.json"))
	require.NoError(t, err)
	var notes struct {
		Running string            `json:"running"`
		Applied map[string]string `json:"applied"`
	}
	require.NoError(t, json.Unmarshal(data, &notes))
	require.Equal(t, "7.14.2", notes.Running)
	require.Empty(t, notes.Applied)

	u.charm.System = u.system
	for i := range u.state.Secrets {
		if u.state.Secrets[i].ID == "" {
			u.state.Secrets[i].ID = "secret:keys"
		}
	}
	u.system.done()
	u.hook("volume-changed")
	require.Equal(t, []string{"restart " + server}, u.system.done())
}

// failing is a system that starts nothing.
type failing struct{ *system }

func (f *failing) Restart(context.Context, string) error { return errors.New("systemd is on strike") }

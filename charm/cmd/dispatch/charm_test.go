package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gruyaume/goops"
	"github.com/gruyaume/goops/goopstest"
	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/concourse"
	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/concourse/concoursetest"
	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/options"
	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/relations"
	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/supervisor"
)

// tools fill gaps of goopstest's hook tools: an address, an endpoint without relations, the
// id of a new secret, and contents that come from files. They note which were used.
type tools struct {
	goops.CommandRunner
	used *[][]string
	goal func() ([]byte, error)
	// address is what network-get prints.
	address func() ([]byte, error)
}

func (f tools) Run(name string, args ...string) ([]byte, error) {
	*f.used = append(*f.used, append([]string{name}, args...))
	switch name {
	case "network-get":
		return f.address()
	case "goal-state":
		return f.goal()
	}
	if name == "secret-add" {
		args = slices.Clone(args)
		for i, arg := range args {
			key, path, ok := strings.Cut(arg, "#file=")
			if !ok {
				continue
			}
			content, err := os.ReadFile(path)
			if err != nil {
				return nil, err
			}
			args[i] = key + "=" + string(content)
		}
	}
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

// unit is one unit under test: Juju's side is goopstest's, and the supervisor's part is
// played by the test.
type unit struct {
	testing.TB
	name   string
	charm  charm
	system *concoursetest.System
	state  goopstest.State
	extra  map[string]string // environment of the next hook
	used   [][]string        // hook tools of the last one
	nets   string            // what network-get prints; empty, it fails
	files  supervisor.Files
}

func newUnit(t testing.TB, name string, leader bool) *unit {
	dir := t.TempDir()
	u := &unit{TB: t, name: name, system: concoursetest.New()}
	executable := filepath.Join(dir, "dispatch")
	require.NoError(t, os.WriteFile(executable, []byte("binary"), 0o755))
	u.charm = charm{
		paths:      concourse.Paths{Volume: filepath.Join(dir, "volume"), State: filepath.Join(dir, "state")},
		system:     u.system,
		hostname:   "juju-1-0",
		hosts:      filepath.Join(dir, "hosts"),
		executable: executable,
		agents:     filepath.Join(dir, "agents"),
		patience:   patience{look: time.Millisecond},
	}
	u.nets = `{"ingress-addresses":["10.0.0.1"]}`
	u.files = supervisor.Files(u.charm.paths.State)
	u.state = goopstest.State{
		Leader: leader,
		Config: map[string]any{
			"mode": "auto", "version": "7.14.2", "release-url": "https://example.com/o/r", "shared-storage": "none",
			"web-port": 8080, "initial-admin-username": "admin", "log-level": "info",
			"drain-timeout": "0s", // or the hook stop waits so long for a supervisor that is not there
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
		u.used = nil
		goops.SetCommandRunner(tools{goops.GetCommandRunner(), &u.used, u.goal, u.address})
		goops.SetEnvGetter(environment{goops.GetEnvGetter(), u.extra})
		return u.charm.run(context.Background())
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

func (u *unit) address() ([]byte, error) {
	if u.nets == "" {
		return nil, errors.New("no address")
	}
	return []byte(u.nets), nil
}

// goal is what goal-state prints: the units of the application.
func (u *unit) goal() ([]byte, error) {
	units := map[string]any{u.name: map[string]string{"status": "active"}}
	for peer := range u.state.PeerRelations[0].PeersData {
		units[string(peer)] = map[string]string{"status": "waiting"}
	}
	return json.Marshal(map[string]any{"units": units})
}

func (u *unit) app() goopstest.DataBag  { return u.state.PeerRelations[0].LocalAppData }
func (u *unit) self() goopstest.DataBag { return u.state.PeerRelations[0].LocalUnitData }

func (u *unit) spec() supervisor.Spec {
	u.Helper()
	spec, err := u.files.Spec()
	require.NoError(u, err)
	return spec
}

// is has the supervisor say how the unit is.
func (u *unit) is(status supervisor.Status) {
	u.Helper()
	status.WorkerKey = "ssh-rsa OWN"
	require.NoError(u, u.files.PutStatus(status))
}

// serves has the supervisor say that what the spec wants answers with a version.
func (u *unit) serves(version string) {
	u.Helper()
	spec := u.spec()
	status := supervisor.Status{Run: version, Installed: version, Answering: strings.Join(spec.Watch, " ")}
	if spec.Web != nil {
		status.Web = supervisor.Answer{Version: version, Is: spec.Web.Identity()}
	}
	if spec.Worker != nil {
		status.Worker = supervisor.Answer{Version: version, Is: spec.Worker.Identity()}
	}
	u.is(status)
}

// joins has ci/0 serve, and list the worker of ci/1.
func (u *unit) joins() {
	maps.Copy(u.app(), goopstest.DataBag{
		relations.WebUnit: "ci/0", relations.TSAHost: "10.0.0.9:2222", relations.TSAPublicKey: "ssh-rsa TSA",
	})
	u.state.PeerRelations[0].PeersData["ci/0"] = goopstest.DataBag{relations.RunningWorkers: "ci-1"}
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

func TestLeader(t *testing.T) {
	u := newUnit(t, "ci/0", true)
	require.Equal(t, "maintenance Preparing unit", u.hook("install"))
	require.Equal(t, []string{"start " + supervisor.Unit}, u.system.Done())
	_, atBoot := u.system.Definition(supervisor.Unit)
	require.True(t, atBoot)
	require.Equal(t, "secret:keys", u.app()[relations.KeysSecret])
	for _, call := range u.used {
		require.NotContains(t, fmt.Sprint(call), "PRIVATE KEY", "arguments can be read by every user of the machine")
	}

	u.is(supervisor.Status{})
	require.Equal(t, "blocked PostgreSQL database required", u.hook("config-changed"))
	require.Empty(t, u.system.Done())
	require.Equal(t, "7.14.2", u.spec().Fetch, "the download does not wait for the database")

	u.relate()
	require.Equal(t, "maintenance Waiting for binaries v7.14.2...", u.hook("postgresql-relation-changed"))
	require.Equal(t, "concourse", u.state.Relations[0].LocalAppData["database"])
	require.JSONEq(t, `["username","password","tls","tls-ca","uris"]`, u.state.Relations[0].LocalAppData["requested-secrets"])
	web := u.spec().Web
	require.Equal(t, concourse.Database{Host: "10.0.0.9", Port: "5432", Name: "concourse", User: "relation-1", Password: "first"}, web.Database)
	require.Contains(t, web.Keys.HostKey, "PRIVATE KEY")
	info, err := os.Stat(filepath.Join(u.charm.paths.State, "spec.json"))
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode())

	_, err = u.files.Journal().Write([]byte(`{"level":"INFO","msg":"Downloading Concourse binaries v7.14.2 from URL"}` + "\n"))
	require.NoError(t, err)
	u.serves("7.14.2")
	juju := u.context()
	u.state = juju.Run("volume-changed", u.state)
	require.NoError(t, juju.CharmErr)
	require.Contains(t, fmt.Sprint(juju.JujuLog), "Downloading Concourse binaries v7.14.2 from URL")
	require.Equal(t, "Web server ready (v7.14.2)", u.state.UnitStatus.Message)
	require.Equal(t, "7.14.2", u.app()[relations.ActiveVersion])
	require.Equal(t, "10.0.0.1:2222", u.app()[relations.TSAHost])
	require.Equal(t, "7.14.2", u.state.ApplicationVersion)
	require.Len(t, u.state.Ports, 2)

	for i := range u.state.Secrets {
		if u.state.Secrets[i].ID == "secret:db" {
			u.state.Secrets[i].Content["password"] = "rotated"
		}
	}
	require.Equal(t, "maintenance Starting Concourse v7.14.2...", u.hook("secret-changed"))
	require.Equal(t, "rotated", u.spec().Web.Database.Password)

	// A worker comes, and goes.
	u.state.PeerRelations[0].PeersData["ci/1"] = goopstest.DataBag{relations.WorkerPublicKey: "ssh-rsa ONE"}
	u.hook("peers-relation-changed")
	require.Equal(t, "ssh-rsa ONE\nssh-rsa OWN\n", u.spec().Web.AuthorizedKeys)
	require.Equal(t, []string{"ci/0", "ci/1"}, u.spec().Members)
	delete(u.state.PeerRelations[0].PeersData, "ci/1")
	u.extra = map[string]string{"JUJU_RELATION": "peers", "JUJU_DEPARTING_UNIT": "ci/1"}
	u.hook("peers-relation-departed")
	u.extra = nil
	require.Equal(t, []string{"ci/0"}, u.spec().Members)
	require.Empty(t, u.system.Done(), "hooks leave the work to the supervisor")
}

func TestActions(t *testing.T) {
	u := newUnit(t, "ci/0", true)
	u.relate()
	u.hook("install")
	u.is(supervisor.Status{})
	u.hook("start")
	u.serves("7.14.2")
	u.hook("volume-changed")

	juju := u.context()
	_, err := juju.RunAction("get-admin-password", u.state, nil)
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
	require.Equal(t, "7.14.3", u.spec().Run)
	u.serves("7.14.3")
	require.Equal(t, "active Web server ready (v7.14.3)", u.hook("volume-changed"))
	require.Equal(t, "active Web server ready (v7.14.3)", u.hook("config-changed"), "the older option does not undo it")
}

// The leader accepts what is mounted there; its supervisor, and those of the others, take it.
func TestAcceptVolume(t *testing.T) {
	u := newUnit(t, "ci/0", true)
	u.state.Config["shared-storage"] = "lxc"
	u.hook("install")
	run := func() (*goopstest.Context, error) {
		juju := u.context()
		var err error
		u.state, err = juju.RunAction("accept-volume", u.state, nil)
		return juju, errors.Join(err, juju.CharmErr)
	}
	for _, fault := range []supervisor.Fault{supervisor.Healthy, supervisor.NotMounted, supervisor.Unmarked, supervisor.Newer} {
		u.is(supervisor.Status{Fault: fault})
		juju, err := run()
		require.NoError(t, err)
		require.Error(t, juju.ActionError, fault)
		require.NotContains(t, u.app(), relations.AcceptedVolume)
	}
	u.is(supervisor.Status{Fault: supervisor.OtherModel, Mounted: "THEIRS.3"})
	juju, err := run()
	require.NoError(t, errors.Join(err, juju.ActionError))
	require.Equal(t, "THEIRS", juju.ActionResults["volume-id"])
	require.Equal(t, "THEIRS.3", u.app()[relations.AcceptedVolume])
	require.Equal(t, "THEIRS.3", u.spec().Accepted)

	u.is(supervisor.Status{Fault: supervisor.Foreign, VolumeID: "LOST"})
	juju, err = run()
	require.NoError(t, errors.Join(err, juju.ActionError))
	require.Equal(t, u.app()[relations.AcceptedVolume], juju.ActionResults["volume-id"], "an empty volume gets an id")
	require.Len(t, u.spec().Accepted, 26)

	u.state.Leader = false
	u.is(supervisor.Status{Fault: supervisor.Foreign, Mounted: "OTHER.0"})
	juju, err = run()
	require.NoError(t, err)
	require.ErrorContains(t, juju.ActionError, "run it on ci/leader")
	u.hook("config-changed")
	require.Len(t, u.spec().Accepted, 26, "every unit follows the leader")
}

// Juju shows the settings of a relation before it grants the secret in them.
func TestSecretThatMayNotBeReadYet(t *testing.T) {
	u := newUnit(t, "ci/0", true)
	u.hook("install")
	u.is(supervisor.Status{})
	keys := u.state.Secrets
	u.relate()
	secrets := u.state.Secrets
	u.state.Secrets = keys
	require.Equal(t, "waiting Waiting for PostgreSQL database...", u.hook("postgresql-relation-changed"))
	require.True(t, u.spec().Again, "no event says that the secret can be read")
	u.state.Secrets = secrets
	require.Equal(t, "maintenance Waiting for binaries v7.14.2...", u.hook("volume-changed"))
	require.False(t, u.spec().Again)
}

func TestDatabaseRelationBroken(t *testing.T) {
	u := newUnit(t, "ci/0", true)
	u.relate()
	u.hook("install")
	u.is(supervisor.Status{})
	u.hook("start")
	u.extra = map[string]string{"JUJU_RELATION": "postgresql", "JUJU_RELATION_ID": "postgresql:1"}
	require.Equal(t, "blocked PostgreSQL database required", u.hook("postgresql-relation-broken"))
	require.Nil(t, u.spec().Web)
}

func TestWorkerLeaves(t *testing.T) {
	u := newUnit(t, "ci/1", false)
	u.app()[relations.TargetVersion], u.app()[relations.ActiveVersion] = "7.14.2", "7.14.2"
	u.joins()
	u.hook("install")
	u.is(supervisor.Status{})
	u.hook("start")
	u.serves("7.14.2")
	require.Equal(t, "active Worker ready (v7.14.2)", u.hook("volume-changed"))
	require.Equal(t, "ssh-rsa OWN", u.self()[relations.WorkerPublicKey])
	require.Equal(t, "7.14.2", u.self()[relations.ConcourseVersion])

	u.extra = map[string]string{"JUJU_RELATION": "peers", "JUJU_DEPARTING_UNIT": "ci/0"}
	u.hook("peers-relation-departed")
	require.False(t, u.spec().Leaving, "another one goes")
	for _, relation := range []string{"postgresql", "peers"} { // in Juju's order
		u.extra = map[string]string{"JUJU_RELATION": relation, "JUJU_DEPARTING_UNIT": "ci/1"}
		require.Equal(t, "maintenance Leaving the cluster", u.hook(relation+"-relation-departed"))
		require.True(t, u.spec().Leaving)
	}
	u.extra = nil
	u.hook("config-changed")
	require.True(t, u.spec().Leaving, "a unit that leaves starts nothing")
	u.is(supervisor.Status{Left: true})
	u.hook("stop")
	require.Equal(t, "active Worker ready (v7.14.2)", func() string {
		u.serves("7.14.2")
		return u.hook("start")
	}(), "the machine was only stopped")
	u.hook("stop")
	u.system.Done()
	u.hook("remove")
	require.Equal(t, []string{"remove " + supervisor.Unit}, u.system.Done())
	require.NoDirExists(t, u.charm.paths.State)
}

// The hook stop waits until the unit has left, and no longer than that.
func TestStopWaits(t *testing.T) {
	u := newUnit(t, "ci/1", false)
	u.hook("install")
	u.is(supervisor.Status{})
	u.hook("start")
	u.charm.patience.leave = time.Hour
	go func() {
		for !u.spec().Leaving {
			time.Sleep(time.Millisecond)
		}
		u.is(supervisor.Status{Left: true})
	}()
	require.Equal(t, "maintenance Leaving the cluster", u.hook("stop"))
	status, err := u.files.Status()
	require.NoError(t, err)
	require.True(t, status.Left)
}

// While a unit waits for the builds of its worker, it says so.
func TestStopShowsWhatItWaitsFor(t *testing.T) {
	u := newUnit(t, "ci/1", false)
	u.state.Config["drain-timeout"] = "1h"
	u.hook("install")
	u.is(supervisor.Status{})
	u.hook("start")
	go func() {
		for !u.spec().Leaving {
			time.Sleep(time.Millisecond)
		}
		require.WithinDuration(t, time.Now(), u.spec().Asked, time.Minute)
		u.is(supervisor.Status{Landing: true})
		_, err := u.files.Journal().Write([]byte(`{"level":"INFO","msg":"Landing the worker for good"}` + "\n"))
		require.NoError(t, err)
		for end := time.Now().Add(time.Minute); u.files.Journal().Waiting() && time.Now().Before(end); {
			time.Sleep(time.Millisecond)
		}
		u.is(supervisor.Status{Landing: true, Left: true})
	}()
	require.Equal(t, "maintenance Leaving the cluster: the worker ends with its builds, in 1h0m0s at most...", u.hook("stop"))
}

// An operator takes a worker out, which every hook keeps, and has it back.
func TestPauseAndResume(t *testing.T) {
	u := readyWorker(t, 2)
	u.state.Config["drain-timeout"] = "1h"
	run := func(action string) (*goopstest.Context, string) {
		juju := u.context()
		var err error
		u.state, err = juju.RunAction(action, u.state, nil)
		require.NoError(t, errors.Join(err, juju.CharmErr))
		return juju, u.state.UnitStatus.Message
	}
	juju, message := run("pause")
	require.NoError(t, juju.ActionError)
	require.Equal(t, "pausing", juju.ActionResults["state"])
	require.Equal(t, "Pausing the worker: it ends with its builds, in 1h0m0s at most...", message)
	require.Equal(t, relations.Pausing, u.self()[relations.WorkerPause])
	asked := u.spec().Asked
	require.WithinDuration(t, time.Now(), asked, time.Minute)
	u.is(supervisor.Status{Run: "7.14.2", Paused: true})
	for _, hook := range []string{"volume-changed", "config-changed", "start", "upgrade-charm"} {
		require.Equal(t, "maintenance Paused: the worker is out (v7.14.2), run `resume`", u.hook(hook))
		require.True(t, u.spec().Paused, hook)
	}
	juju, _ = run("pause")
	require.Equal(t, "paused", juju.ActionResults["state"])
	require.Equal(t, asked, u.spec().Asked)
	u.state.Config["log-level"] = "nonsense"
	_, message = run("resume")
	require.Contains(t, message, "log-level")
	require.False(t, u.spec().Paused, "an option that is wrong keeps nobody paused")
	juju, _ = run("resume")
	require.Contains(t, juju.ActionResults["message"], "not paused")

	leader := newUnit(t, "ci/0", true)
	leader.hook("install")
	leader.is(supervisor.Status{})
	leader.hook("config-changed")
	juju = leader.context()
	_, err := juju.RunAction("pause", leader.state, nil)
	require.NoError(t, err)
	require.ErrorContains(t, juju.ActionError, "pause a unit with a worker")
}

// A restart is filed with the supervisor, and named; who asks again hears how far it is.
func TestRestartServices(t *testing.T) {
	u := readyWorker(t, 2)
	run := func(params map[string]any) (map[string]string, error) {
		juju := u.context()
		var err error
		u.state, err = juju.RunAction("restart-services", u.state, params)
		require.NoError(t, errors.Join(err, juju.CharmErr))
		return juju.ActionResults, juju.ActionError
	}
	results, failed := run(nil)
	require.NoError(t, failed)
	id := u.spec().Restarts
	require.NotEmpty(t, id)
	require.False(t, u.spec().AtOnce)
	require.Equal(t, []string{id, "waiting"}, []string{results["id"], results["state"]})
	u.hook("config-changed")
	require.Equal(t, id, u.spec().Restarts, "hooks keep it")
	u.is(supervisor.Status{Run: "7.14.2", Landing: true})
	results, _ = run(map[string]any{"id": id})
	require.Equal(t, "landing", results["state"])
	u.is(supervisor.Status{Run: "7.14.2", Restarted: id})
	results, _ = run(map[string]any{"id": id})
	require.Equal(t, "done", results["state"])
	require.Equal(t, id, u.spec().Restarts, "to ask starts nothing")
	_, failed = run(map[string]any{"id": "other"})
	require.ErrorContains(t, failed, `no restart "other"`)

	u.charm.patience.action = time.Hour
	go func() {
		for u.spec().Restarts == id {
			time.Sleep(time.Millisecond)
		}
		u.is(supervisor.Status{Restarted: u.spec().Restarts})
	}()
	results, _ = run(map[string]any{"at-once": true})
	require.Equal(t, "done", results["state"], "it has waited")
	require.True(t, u.spec().AtOnce)
}

// A check of the volume is filed with the supervisor, and waited for a while.
func TestVerifyVolume(t *testing.T) {
	u := readyWorker(t, 2)
	run := func(params map[string]any) (map[string]string, error) {
		juju := u.context()
		var err error
		u.state, err = juju.RunAction("verify-volume", u.state, params)
		require.NoError(t, errors.Join(err, juju.CharmErr))
		return juju.ActionResults, juju.ActionError
	}
	results, failed := run(nil)
	require.NoError(t, failed)
	first := u.spec().Check
	require.Equal(t, []string{first.ID, "verifying"}, []string{results["id"], results["state"]})
	require.False(t, first.Repair)
	u.hook("config-changed")
	require.Equal(t, first, u.spec().Check, "hooks keep it")
	u.is(supervisor.Status{Checked: supervisor.Checked{ID: first.ID, Found: "a file"}})
	results, _ = run(map[string]any{"id": first.ID})
	require.Equal(t, "damaged", results["state"])
	require.Contains(t, results["message"], "a file; run verify-volume repair=true")
	_, failed = run(map[string]any{"id": "other"})
	require.ErrorContains(t, failed, `no check "other"`)

	u.charm.patience.action = time.Hour
	go func() {
		for u.spec().Check == first {
			time.Sleep(time.Millisecond)
		}
		u.is(supervisor.Status{Checked: supervisor.Checked{ID: u.spec().Check.ID, Found: "all", Sound: true}})
	}()
	results, _ = run(map[string]any{"repair": true})
	require.Equal(t, "sound", results["state"], "it has waited")
	require.True(t, u.spec().Check.Repair)
}

// Who asks for the status changes nothing.
func TestCheckStatus(t *testing.T) {
	u := readyWorker(t, 2)
	run := func() map[string]string {
		juju := u.context()
		spec := u.spec()
		_, err := juju.RunAction("check-status", u.state, nil)
		require.NoError(t, errors.Join(err, juju.CharmErr, juju.ActionError))
		require.Equal(t, spec, u.spec())
		return juju.ActionResults
	}
	u.hook("volume-changed")
	results := run()
	for name, want := range map[string]string{
		"status": "active", "worker": "v7.14.2", "web-server": "none", "version": "7.14.2", "due": "nothing", "restart-state": "none", "volume": "healthy",
	} {
		require.Equal(t, want, results[name], name)
	}
	status, err := u.files.Status()
	require.NoError(t, err)
	status.Due, status.Landing, status.Fault = "7.14.3", true, supervisor.Full
	u.is(status)
	results = run()
	for name, want := range map[string]string{
		"status": "blocked", "worker": "landing", "due": "land the worker; replace the worker, by v7.14.3", "volume": "full",
	} {
		require.Equal(t, want, results[name], name)
	}
}

// Juju tells of storage before it installs a unit, and when it takes it away, which need
// not be for good.
func TestStorageHooks(t *testing.T) {
	u := newUnit(t, "ci/1", false)
	u.app()[relations.TargetVersion], u.app()[relations.ActiveVersion] = "7.14.2", "7.14.2"
	u.joins()
	peers := u.state.PeerRelations
	u.state.PeerRelations = nil // as they are not there yet
	require.Equal(t, "maintenance Preparing unit", u.hook("concourse-data-storage-attached"))
	u.state.PeerRelations = peers
	u.hook("install")
	u.is(supervisor.Status{})
	u.hook("start")
	u.serves("7.14.2")
	require.Equal(t, "active Worker ready (v7.14.2)", u.hook("concourse-data-storage-attached"))
	u.is(supervisor.Status{Fault: supervisor.NotMounted})
	u.hook("concourse-data-storage-detaching")
	require.False(t, u.spec().Leaving)
	u.serves("7.14.2")
	require.Equal(t, "active Worker ready (v7.14.2)", u.hook("concourse-data-storage-attached"))
}

// readyWorker is a unit with that many peers on which nothing changes any more.
func readyWorker(t testing.TB, peers int) *unit {
	u := newUnit(t, "ci/1", false)
	u.app()[relations.TargetVersion], u.app()[relations.ActiveVersion] = "7.14.2", "7.14.2"
	u.joins()
	for i := range peers {
		u.state.PeerRelations[0].PeersData[goopstest.UnitID(fmt.Sprintf("ci/%d", i+2))] = goopstest.DataBag{}
	}
	u.hook("install")
	u.is(supervisor.Status{})
	u.hook("start")
	u.serves("7.14.2")
	u.hook("volume-changed")
	u.system.Done()
	return u
}

// A worker reads little: with many peers each tool more is one for each of them.
func TestHookToolsOfAWorker(t *testing.T) {
	u := readyWorker(t, 50)
	require.Equal(t, "active Worker ready (v7.14.2)", u.hook("update-status"))
	require.LessOrEqual(t, len(u.used), 12, "%v", u.used)
	require.Empty(t, u.system.Done())
}

// BenchmarkHookOfAWorker measures the processor time of a hook that changes nothing, with
// 50 peers. In place of Juju's tools are functions of the test, which count too.
func BenchmarkHookOfAWorker(b *testing.B) {
	u := readyWorker(b, 50)
	used := func() time.Duration {
		var usage syscall.Rusage
		require.NoError(b, syscall.Getrusage(syscall.RUSAGE_SELF, &usage))
		return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
	}
	before := used()
	for b.Loop() {
		u.hook("update-status")
	}
	b.ReportMetric(float64((used()-before).Microseconds())/float64(b.N)/1000, "cpu-ms/op")
}

func TestRefreshReplacesTheSupervisor(t *testing.T) {
	u := newUnit(t, "ci/0", true)
	u.hook("install")
	u.system.Done()
	u.is(supervisor.Status{})
	u.hook("config-changed")
	require.Empty(t, u.system.Done())
	require.NoError(t, os.WriteFile(u.charm.executable, []byte("another binary"), 0o755))
	u.hook("upgrade-charm")
	require.Equal(t, []string{"start " + supervisor.Unit}, u.system.Done())
	definition, _ := u.system.Definition(supervisor.Unit)
	require.Contains(t, definition, "/bin/supervisor supervise ci/0\n")
	installed, err := os.ReadFile(filepath.Join(u.charm.paths.State, "bin", "supervisor"))
	require.NoError(t, err)
	require.Equal(t, "another binary", string(installed))
}

func TestStartWithAWrongOption(t *testing.T) {
	u := newUnit(t, "ci/1", false)
	u.app()[relations.TargetVersion], u.app()[relations.ActiveVersion] = "7.14.2", "7.14.2"
	u.joins()
	u.hook("install")
	u.is(supervisor.Status{})
	u.hook("start")
	u.is(supervisor.Status{Left: true})
	u.hook("stop")
	u.state.Config["log-level"] = "loud"
	u.serves("7.14.2")
	u.hook("start")
	u.state.Config["log-level"] = "info"
	u.hook("config-changed")
	require.False(t, u.spec().Leaving, "the machine was only stopped")
}

func TestFileThatCannotBeParsed(t *testing.T) {
	for _, name := range []string{"spec.json", "status.json"} {
		u := newUnit(t, "ci/1", false)
		u.hook("install")
		u.is(supervisor.Status{})
		require.NoError(t, os.WriteFile(filepath.Join(u.charm.paths.State, name), nil, 0o600))
		u.hook("config-changed")
		u.is(supervisor.Status{})
		u.hook("config-changed")
		require.Equal(t, "ci/1", u.spec().Unit)
	}
}

// The model's proxies reach the services and the downloads, and neither log nor status.
func TestProxiesOfTheModel(t *testing.T) {
	u := newUnit(t, "ci/0", true)
	u.hook("install")
	u.is(supervisor.Status{})
	u.relate()
	u.extra = map[string]string{
		"JUJU_CHARM_HTTP_PROXY": "http://user:s3cret@proxy:3128", "JUJU_CHARM_HTTPS_PROXY": "http://proxy:3128", "JUJU_CHARM_NO_PROXY": "localhost",
	}
	juju := u.context()
	u.state = juju.Run("config-changed", u.state)
	require.NoError(t, juju.CharmErr)
	require.Equal(t, options.Proxies{HTTP: "http://user:s3cret@proxy:3128", HTTPS: "http://proxy:3128", No: "localhost"}, u.spec().Proxies)
	require.Contains(t, u.spec().Web.Options, "http_proxy=http://user:s3cret@proxy:3128")
	require.NotContains(t, fmt.Sprint(juju.JujuLog, u.state.UnitStatus, u.used), "s3cret")
}

// A disk that is full, as builds fill it, is something that an operator can mend: the hook
// says so, and does not fail.
func TestHookOnAFullDisk(t *testing.T) {
	u := newUnit(t, "ci/1", false)
	u.hook("install")
	u.is(supervisor.Status{})
	u.joins()
	u.hook("start")
	u.serves("7.14.2")
	// No file can be written any more in the state directory: this stands in its way.
	require.NoError(t, os.MkdirAll(filepath.Join(string(u.files), ".spec.json.new", "full"), 0o755))
	juju := u.context()
	u.state = juju.Run("update-status", u.state)
	require.NoError(t, juju.CharmErr)
	require.Equal(t, "blocked", string(u.state.UnitStatus.Name))
}

// What a supervisor has written that ends again and again since, for whatever reason, is no
// news of the unit: its worker may have died long ago.
func TestSupervisorThatEndsAgainAndAgain(t *testing.T) {
	u := newUnit(t, "ci/1", false)
	u.hook("install")
	u.is(supervisor.Status{})
	u.joins()
	u.app()["target-version"], u.app()["active-version"] = "7.14.2", "7.14.2"
	u.hook("start")
	u.serves("7.14.2")
	require.Equal(t, "active Worker ready (v7.14.2)", u.hook("update-status"))
	long := time.Now().Add(-5 * time.Minute)
	require.NoError(t, os.Chtimes(filepath.Join(string(u.files), "status.json"), long, long))
	require.Equal(t, "blocked The supervisor has not looked at this unit for 5m0s; it is tried again, see journalctl -u "+supervisor.Unit, u.hook("update-status"))
}

// A worker whose release has changed says that it is due, and takes the turn that the leader
// gives to its process.
func TestWorkerTakesItsTurn(t *testing.T) {
	u := readyWorker(t, 2)
	u.app()[relations.Turns] = relations.None
	serving := u.state.PeerRelations[0].PeersData["ci/0"]
	serving[relations.RunningWorkers], serving[relations.MayLand] = "ci-1", relations.None
	u.hook("update-status")
	require.Equal(t, supervisor.Wait, u.spec().Turn)
	status, err := u.files.Status()
	require.NoError(t, err)
	status.Due, status.Process = "7.14.3", "100"
	u.is(status)
	require.Equal(t, "maintenance Waiting for its turn to replace the worker (v7.14.3)...", u.hook("volume-changed"))
	require.Equal(t, []string{"7.14.3", "100"}, []string{u.self()[relations.WorkerDue], u.self()[relations.WorkerProcess]})
	u.app()[relations.Turns], serving[relations.MayLand] = "ci/1=100", "ci-1"
	u.hook("peers-relation-changed")
	require.Equal(t, supervisor.TakeTurn, u.spec().Turn)
	require.True(t, u.spec().MayLand)
	status.Due = ""
	u.is(status)
	u.hook("volume-changed")
	require.Empty(t, u.self()[relations.WorkerDue])
}

// Soon after a machine was made Juju may not know its address; nothing is told of it then,
// and no hook fails. A unit that has told it keeps it.
func TestAddressThatIsNotKnown(t *testing.T) {
	for name, prints := range map[string]string{"Juju has none": `{"ingress-addresses":[]}`, "Juju fails": ""} {
		t.Run(name, func(t *testing.T) {
			u := newUnit(t, "ci/0", true)
			known := u.nets
			u.nets = prints
			u.hook("install")
			u.is(supervisor.Status{})
			require.Equal(t, "waiting Waiting for Juju to find this unit's address...", u.hook("config-changed"))
			require.Empty(t, u.state.PeerRelations[0].LocalUnitData)
			u.nets = known
			before := u.hook("config-changed")
			require.Equal(t, "10.0.0.1", u.state.PeerRelations[0].LocalUnitData[relations.WebIP])
			u.nets = prints
			require.Equal(t, before, u.hook("config-changed"))
			require.Equal(t, "10.0.0.1", u.state.PeerRelations[0].LocalUnitData[relations.WebIP])
		})
	}
}

package reconcile_test

import (
	"fmt"
	"maps"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/concourse"
	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/reconcile"
	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/relations"
	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/watcher"
	"github.com/concourse-ci-machine/concourse-ci-machine/charm/product"
	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator"
)

const (
	old  = "7.14.2"
	next = "7.14.3"
)

var keys = func() *concourse.Keys {
	keys, err := concourse.NewKeys()
	if err != nil {
		panic(err)
	}
	return &keys
}()

// unit is one unit's world; changes to it make the cases.
type unit struct {
	d reconcile.Desired
	o reconcile.Observed
}

// leader and follower are units of a cluster at rest on the old version.
func leader(changes ...func(*unit)) unit {
	u := at(true, map[string]string{})
	u.o.Found.Web = old
	u.settle()
	return u.with(changes...)
}

func follower(changes ...func(*unit)) unit {
	u := at(false, map[string]string{
		relations.TSAHost: "10.0.0.1:2222", relations.TSAPublicKey: "ssh-rsa TSA",
	})
	u.o.Found.Worker = old
	u.settle()
	return u.with(changes...)
}

// fresh is a leader on whose volume nothing was installed yet.
func fresh(changes ...func(*unit)) unit {
	u := at(true, map[string]string{})
	u.d.Peers.App = map[string]string{}
	u.o.Running, u.o.Volume.Installed, u.o.Volume.Current, u.o.Volume.SeenID = "", nil, "", ""
	u.o.Found = watcher.Found{}
	return u.with(changes...)
}

func at(leads bool, app map[string]string) unit {
	maps.Copy(app, map[string]string{
		relations.TargetVersion: old, relations.ActiveVersion: old, relations.ConfigVersion: old,
	})
	u := unit{
		d: reconcile.Desired{
			Unit: "ci/0", Address: "10.0.0.1", Leader: leads,
			Config: reconcile.Config{
				Mode: "auto", Version: old, ReleaseURL: "https://example.com/o/r", SharedStorage: "lxc",
				WebPort: 8080, InitialAdminUsername: "admin", LogLevel: "info",
			},
			Paths:     concourse.Paths{Volume: "/var/lib/concourse", State: "/var/lib/state"},
			Peers:     &relations.Peers{App: app, Self: map[string]string{}, Units: map[string]map[string]string{}},
			WorkerKey: "ssh-rsa OWN",
		},
		o: reconcile.Observed{
			Hostname: "juju-1-0",
			Volume: reconcile.Volume{ID: "v1", SeenID: "v1", Current: old, CurrentBy: "ci/0", Installed: []string{old},
				WorkDir: "/var/lib/concourse/worker/ci-0"},
			Running: old, Applied: map[string]string{}, Active: map[string]bool{},
			Found: watcher.Found{Mounted: true, Installed: old},
		},
	}
	if leads {
		u.d.Keys = keys
		u.d.Database = relations.Reply{Related: true, Database: &concourse.Database{
			Host: "10.0.0.9", Port: "5432", Name: "concourse", User: "u", Password: "p",
		}}
	}
	return u
}

// settle makes what the plan asks for true, as the executor does.
func (u *unit) settle() {
	plan := reconcile.Make(u.d, u.o)
	u.obey(plan)
	maps.Copy(u.d.Peers.App, plan.App)
}

func (u *unit) obey(plan reconcile.Plan) {
	for _, step := range plan.Steps {
		switch step.Verb {
		case reconcile.Activate:
			u.o.Volume.Current, u.o.Volume.CurrentBy = step.Version, u.d.Unit
		case reconcile.Pin:
			u.o.Running = step.Version
		case reconcile.Restart:
			u.o.Active[step.Unit] = true
			u.o.Applied[step.Unit] = plan.Services[step.Unit].Digest()
			u.o.Applied[reconcile.AuthorizedKeysApplied] = plan.AuthorizedKeys
		case reconcile.Stop:
			delete(u.o.Active, step.Unit)
			delete(u.o.Applied, step.Unit)
		}
	}
}

func (u unit) with(changes ...func(*unit)) unit {
	for _, change := range changes {
		change(&u)
	}
	return u
}

func config(change func(*reconcile.Config)) func(*unit) {
	return func(u *unit) { change(&u.d.Config) }
}

func app(name, value string) func(*unit) {
	return func(u *unit) { u.d.Peers.App[name] = value }
}

func installed(versions ...string) func(*unit) {
	return func(u *unit) { u.o.Volume.Installed = versions }
}

// unread is a unit that runs the web server and cannot read the leader's keys.
func unread(mode string) unit {
	return leader(config(func(c *reconcile.Config) { c.Mode = mode }), func(u *unit) {
		u.settle()
		u.o.Found.Worker = old
		u.d.Leader, u.d.Keys, u.d.Again = false, nil, true
		u.d.Peers.App[relations.KeysSecret], u.d.Peers.App[relations.TSAHost] = "secret:keys", "10.0.0.2:2222"
	})
}

func found(change func(*watcher.Found)) func(*unit) {
	return func(u *unit) { change(&u.o.Found) }
}

func fault(f reconcile.Fault) func(*unit) {
	return func(u *unit) {
		u.o.Volume = reconcile.Volume{Fault: f, SeenID: u.o.Volume.SeenID, Detail: "disk is on fire"}
	}
}

func steps(plan reconcile.Plan) string {
	var all []string
	for _, s := range plan.Steps {
		all = append(all, strings.TrimRight(strings.Join([]string{string(s.Verb),
			strings.TrimSuffix(strings.TrimPrefix(s.Unit, "concourse-"), ".service"), s.Version}, " "), " "))
	}
	return strings.ReplaceAll(strings.Join(all, ", "), "  ", " ")
}

func TestMake(t *testing.T) {
	for _, test := range []struct {
		name   string
		unit   unit
		status string // level and message
		steps  string
		want   string            // version that the watcher is to install
		app    map[string]string // settings, among others, that the leader leaves
	}{{
		name: "leader at rest", unit: leader(),
		status: "active Web server ready (v7.14.2)", want: old,
	}, {
		name: "follower at rest", unit: follower(),
		status: "active Worker ready (v7.14.2)", want: old,
	}, {
		name: "both roles", unit: leader(config(func(c *reconcile.Config) { c.Mode = "all" }),
			func(u *unit) { u.settle(); u.o.Found.Worker = old }),
		status: "active Ready (v7.14.2)", want: old,
	}, {
		name: "before the peer relation", unit: leader(func(u *unit) { u.d.Peers = nil }),
		status: "maintenance Preparing unit",
	},
		// What operators get wrong: nothing that runs is touched.
		{
			name: "unknown mode", unit: leader(config(func(c *reconcile.Config) { c.Mode = "cluster" })),
			status: `blocked Unknown mode "cluster": set mode to one of auto, web, all`,
		}, {
			name: "unknown storage", unit: leader(config(func(c *reconcile.Config) { c.SharedStorage = "nfs" })),
			status: `blocked Unknown shared-storage "nfs": set shared-storage to one of none, lxc`,
		}, {
			name: "port of the TSA", unit: leader(config(func(c *reconcile.Config) { c.WebPort = 2222 })),
			status: "blocked Unusable web-port 2222: set web-port to a free port between 1 and 65535 other than 2222",
		}, {
			name: "admin name with a colon", unit: leader(config(func(c *reconcile.Config) { c.InitialAdminUsername = "a:b" })),
			status: `blocked Unusable initial-admin-username "a:b": use letters, digits, dots, dashes and @`,
		}, {
			name: "release URL without a scheme", unit: leader(config(func(c *reconcile.Config) { c.ReleaseURL = "example.com" })),
			status: `blocked Malformed release-url "example.com": use the form https://github.com/concourse/concourse`,
		}, {
			name: "malformed version", unit: leader(config(func(c *reconcile.Config) { c.Version = "latest" })),
			status: `blocked Malformed version "latest": use the form 7.14.3`, want: old,
		}, {
			name: "malformed version at first", unit: fresh(config(func(c *reconcile.Config) { c.Version = "7.14" })),
			status: `blocked Malformed version "7.14": use the form 7.14.3`,
		},
		// First deployment.
		{
			name: "no database", unit: fresh(func(u *unit) { u.d.Database = relations.Reply{} }),
			status: "blocked PostgreSQL database required", want: old,
		}, {
			name: "database without data", unit: fresh(func(u *unit) { u.d.Database.Database = nil }),
			status: "waiting Waiting for PostgreSQL database...", want: old,
		}, {
			name: "newest is unknown", unit: fresh(config(func(c *reconcile.Config) { c.Version = "" })),
			status: "waiting Waiting for the version to run...",
		}, {
			name: "newest cannot be known", unit: fresh(config(func(c *reconcile.Config) { c.Version = "" }),
				found(func(f *watcher.Found) { f.NewestFailure = "no route\nto host" })),
			status: "blocked Cannot find the newest Concourse release: no route to host; set version, or release-url",
		}, {
			name: "newest is known", unit: fresh(config(func(c *reconcile.Config) { c.Version = "" }),
				found(func(f *watcher.Found) { f.Newest = next })),
			status: "maintenance Waiting for binaries v7.14.3...", want: next,
			app: map[string]string{relations.TargetVersion: next, relations.ConfigVersion: relations.Newest},
		}, {
			name: "this unit downloads", unit: fresh(found(func(f *watcher.Found) {
				f.Trying, f.Holder, f.Percent = old, "ci/0", 42
			})),
			status: "maintenance Downloading Concourse CI 7.14.2... 42%", want: old,
		}, {
			name: "another unit downloads", unit: fresh(found(func(f *watcher.Found) {
				f.Trying, f.Holder = old, "ci/1"
			})),
			status: "maintenance Waiting for binaries v7.14.2...", want: old,
		}, {
			name: "cannot install", unit: fresh(found(func(f *watcher.Found) {
				f.Trying, f.Failure = old, "release not found"
			})),
			status: "blocked Cannot install Concourse v7.14.2: release not found", want: old,
		}, {
			name: "installed", unit: fresh(installed(old)),
			status: "maintenance Starting Concourse v7.14.2...", want: old,
			steps: "activate 7.14.2, pin 7.14.2, restart server 7.14.2",
		}, {
			name: "web answered for the first time", unit: leader(app(relations.ActiveVersion, "")),
			status: "active Web server ready (v7.14.2)", want: old,
			app: map[string]string{relations.ActiveVersion: old, relations.TSAHost: "10.0.0.1:2222", relations.WebUnit: "ci/0"},
		}, {
			name: "worker waits for the web server", unit: follower(app(relations.ActiveVersion, ""),
				app(relations.TSAHost, ""), func(u *unit) { u.o.Running = ""; clear(u.o.Active); clear(u.o.Applied) }),
			status: "waiting Waiting for TSA connection info...", want: old,
		}, {
			name: "worker joins", unit: follower(func(u *unit) { u.o.Running = ""; clear(u.o.Active); clear(u.o.Applied) }),
			status: "maintenance Starting Concourse v7.14.2...", want: old,
			steps: "pin 7.14.2, restart worker 7.14.2",
		}, {
			name: "without shared storage each unit activates", want: old,
			unit: follower(config(func(c *reconcile.Config) { c.SharedStorage = "none" }),
				func(u *unit) { u.o.Volume.Current = "" }),
			status: "active Worker ready (v7.14.2)", steps: "activate 7.14.2",
		},
		// The volume.
		{
			name: "volume never seen", unit: fresh(fault(reconcile.NotMounted)),
			status: "blocked Shared storage unavailable - attach it with `lxc config device add juju-1-0 concourse-data disk pool=POOL source=VOLUME path=/var/lib/concourse`", want: old,
		}, {
			name: "web lost its volume", unit: leader(fault(reconcile.NotMounted)), want: old,
			status: "blocked Shared storage unavailable - attach it with `lxc config device add juju-1-0 concourse-data disk pool=POOL source=VOLUME path=/var/lib/concourse`",
		}, {
			name: "worker lost its volume", unit: follower(fault(reconcile.NotMounted)), want: old,
			status: "blocked Shared storage unavailable - attach it with `lxc config device add juju-1-0 concourse-data disk pool=POOL source=VOLUME path=/var/lib/concourse`",
			steps:  "stop worker",
		}, {
			name: "unmarked volume", unit: follower(fault(reconcile.Unmarked), func(u *unit) { u.o.Volume.Detail = "it has no marker: touch it" }), want: old,
			status: "blocked Shared storage unavailable - it has no marker: touch it",
			steps:  "stop worker",
		}, {
			name: "another volume", unit: follower(fault(reconcile.Foreign)), want: old,
			status: "blocked Shared storage unavailable - another volume is mounted: detach it and attach the one with id v1 at /var/lib/concourse",
			steps:  "stop worker",
		}, {
			name: "volume fails", unit: leader(fault(reconcile.Broken)), want: old,
			status: "blocked Storage unavailable - disk is on fire",
		},
		{
			name: "worker's directory fails", want: old,
			unit: follower(func(u *unit) {
				u.o.Volume.Fault, u.o.Volume.Detail, u.o.Volume.WorkDir = reconcile.Broken, "disk is on fire", ""
			}),
			status: "blocked Storage unavailable - disk is on fire", steps: "stop worker",
		}, {
			name: "release of the web server is damaged", want: old,
			unit: leader(installed(), found(func(f *watcher.Found) {
				f.Trying, f.Failure = old, "release source is unreachable"
			})),
			status: "blocked Cannot install Concourse v7.14.2: release source is unreachable",
		}, {
			name: "release of the worker is damaged", unit: follower(installed()), want: old,
			status: "maintenance Waiting for binaries v7.14.2...",
		}, {
			name: "release is damaged and the database is gone", want: old,
			unit:   leader(installed(), func(u *unit) { u.d.Database = relations.Reply{} }),
			status: "blocked PostgreSQL database required", steps: "stop server",
		}, {
			name: "another application activated its version", want: old,
			unit:   leader(func(u *unit) { u.o.Volume.Current, u.o.Volume.CurrentBy = next, "other/0" }),
			status: "active Web server ready (v7.14.2)",
		}, {
			name: "upgrade beside another application", want: next,
			unit: leader(app(relations.TargetVersion, next), installed(old, next),
				func(u *unit) { u.o.Volume.CurrentBy = "other/0" }),
			status: "maintenance Upgrading to v7.14.3...", steps: "activate 7.14.3, pin 7.14.3, restart server 7.14.3",
		}, {
			name: "an activation that was lost", want: old,
			unit:   leader(func(u *unit) { u.o.Volume.Current, u.o.Volume.CurrentBy = next, "ci/7" }),
			status: "active Web server ready (v7.14.2)", steps: "activate 7.14.2",
		},
		// Changes to what runs.
		{
			name: "option changed", unit: leader(config(func(c *reconcile.Config) { c.LogLevel = "debug" })), want: old,
			status: "maintenance Starting Concourse v7.14.2...", steps: "restart server 7.14.2",
		}, {
			name: "password rotated", unit: leader(func(u *unit) {
				database := *u.d.Database.Database
				database.Password = "rotated"
				u.d.Database.Database = &database
			}), want: old,
			status: "maintenance Starting Concourse v7.14.2...", steps: "restart server 7.14.2",
		}, {
			name: "worker key arrived", unit: leader(func(u *unit) {
				u.d.Peers.Units["ci/1"] = map[string]string{relations.WorkerPublicKey: "ssh-rsa ONE"}
			}), want: old,
			status: "active Web server ready (v7.14.2)", steps: "reload server",
		}, {
			name: "server died", unit: leader(func(u *unit) { clear(u.o.Active); u.o.Found.Web = "" }), want: old,
			status: "maintenance Starting Concourse v7.14.2...", steps: "restart server 7.14.2",
		}, {
			name: "database settings incomplete", want: old,
			unit:   leader(func(u *unit) { u.d.Database.Database = nil }),
			status: "waiting Waiting for PostgreSQL database...",
		}, {
			name: "database relation removed", want: old,
			unit:   leader(func(u *unit) { u.d.Database = relations.Reply{} }),
			status: "blocked PostgreSQL database required", steps: "stop server",
		}, {
			name: "worker becomes leader", want: old,
			unit: follower(func(u *unit) {
				u.d.Leader, u.d.Keys, u.d.Database = true, keys, leader().d.Database
			}),
			status: "maintenance Starting Concourse v7.14.2...", steps: "restart server 7.14.2, stop worker",
		},
		{
			name: "keys cannot be read by a web server", unit: unread("web"), want: old,
			status: "waiting Waiting for the leader's keys...",
		}, {
			name: "keys cannot be read by a unit of both roles", unit: unread("all"), want: old,
			status: "waiting Waiting for the leader's keys...",
		},
		// Upgrade.
		{
			name: "option asks for an upgrade", unit: leader(config(func(c *reconcile.Config) { c.Version = "v" + next })),
			status: "maintenance Upgrading to v7.14.3...", want: next,
			app: map[string]string{relations.TargetVersion: next, relations.ConfigVersion: next},
		}, {
			name: "action asks for an upgrade", unit: leader(func(u *unit) {
				u.d.Peers.Units["ci/1"] = map[string]string{relations.UpgradeRequest: "17 " + next}
			}),
			status: "maintenance Upgrading to v7.14.3...", want: next,
			app:   map[string]string{relations.TargetVersion: next, relations.Handled + "ci-1": "17 " + next},
			steps: "",
		}, {
			name: "an action is heard before the newest version is known",
			unit: fresh(config(func(c *reconcile.Config) { c.Version = "" }), func(u *unit) {
				u.d.Peers.Self[relations.UpgradeRequest] = "17 " + old
			}),
			status: "maintenance Waiting for binaries v7.14.2...", want: old,
			app: map[string]string{relations.TargetVersion: old, relations.ConfigVersion: relations.Newest},
		}, {
			name: "an action that was heard stays quiet", unit: leader(app(relations.Handled+"ci-1", "17 "+next), func(u *unit) {
				u.d.Peers.Units["ci/1"] = map[string]string{relations.UpgradeRequest: "17 " + next}
			}),
			status: "active Web server ready (v7.14.2)", want: old,
		}, {
			name: "target cannot be installed", unit: leader(app(relations.TargetVersion, next), found(func(f *watcher.Found) {
				f.Trying, f.Failure = next, "not enough space on the volume"
			})),
			status: "blocked Cannot install Concourse v7.14.3: not enough space on the volume", want: next,
		}, {
			name: "web goes first", unit: leader(app(relations.TargetVersion, next), installed(old, next)),
			status: "maintenance Upgrading to v7.14.3...", want: next,
			steps: "activate 7.14.3, pin 7.14.3, restart server 7.14.3",
		}, {
			name: "worker waits for web", unit: follower(app(relations.TargetVersion, next), installed(old, next)),
			status: "maintenance Upgrading to v7.14.3...", want: next,
		}, {
			name: "worker follows", want: next,
			unit:   follower(app(relations.TargetVersion, next), app(relations.ActiveVersion, next), installed(old, next)),
			status: "maintenance Starting Concourse v7.14.3...", steps: "pin 7.14.3, restart worker 7.14.3",
		}, {
			name: "web does not answer in time",
			unit: leader(app(relations.TargetVersion, next), installed(old, next), func(u *unit) {
				u.settle()
				u.o.Found.Web, u.o.Found.Overdue = "", next
			}),
			status: "blocked Upgrade to v7.14.3 failed: the web server did not answer in time; see journalctl -u concourse-server.service, then run upgrade again",
			steps:  "activate 7.14.2, pin 7.14.2, restart server 7.14.2", want: old,
			app: map[string]string{relations.TargetVersion: old},
		}, {
			name: "a failed upgrade is asked for again",
			unit: leader(app(relations.FailedUpgrade, "Upgrade to v7.14.3 failed"), func(u *unit) {
				u.d.Peers.Self[relations.UpgradeRequest] = "18 " + next
			}),
			status: "maintenance Upgrading to v7.14.3...", want: next,
			app: map[string]string{relations.TargetVersion: next, relations.FailedUpgrade: ""},
		}, {
			name: "a web server that hangs later is not taken back",
			unit: leader(found(func(f *watcher.Found) { f.Web, f.Overdue = "", old })), want: old,
			status: "maintenance Starting Concourse v7.14.2...",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			plan := reconcile.Make(test.unit.d, test.unit.o)
			require.Equal(t, test.status, string(plan.Status.Level)+" "+plan.Status.Message)
			require.Equal(t, test.steps, steps(plan))
			if test.want == "" {
				require.True(t, plan.Want == nil || plan.Want.Version == "", "wants %+v", plan.Want)
			} else {
				require.Equal(t, test.want, plan.Want.Version)
				require.False(t, plan.Want.Newest, "a version is chosen")
			}
			for name, value := range test.app {
				require.Equal(t, value, plan.App[name], name)
			}
			if !test.unit.d.Leader {
				require.Empty(t, plan.App, "only the leader speaks for the application")
			}
			// Obeyed, the plan has nothing more to do: no hook restarts twice.
			test.unit.obey(plan)
			if test.unit.d.Peers != nil {
				maps.Copy(test.unit.d.Peers.App, plan.App)
			}
			for _, step := range reconcile.Make(test.unit.d, test.unit.o).Steps {
				require.Equal(t, reconcile.Reload, step.Verb, "again: %v", step)
			}
		})
	}
}

// However long a failure is, the status says once what is wrong, and what to do.
func TestLongFailure(t *testing.T) {
	url := "http://mirror.example.com/a/rather/long/path/concourse/releases/download/v7.14.2/concourse-7.14.2-linux-amd64.tgz"
	digests := "it has sha256:" + strings.Repeat("1", 64) + ", expected is sha256:" + strings.Repeat("2", 64)
	failure := product.Explain(&coordinator.Error{
		Doing: "install", What: product.Concourse.Name + " " + old, Kind: coordinator.ErrDigest,
		Err: fmt.Errorf("%s: %w: %s (found out by concourse-ci/2; tried again in 29m59s, or when the cause is seen to be gone)", url, coordinator.ErrDigest, digests),
	}).Error()
	u := fresh(found(func(f *watcher.Found) { f.Trying, f.Failure = old, failure }))
	status := reconcile.Make(u.d, u.o).Status
	require.Equal(t, reconcile.Blocked, status.Level)
	require.True(t, strings.HasPrefix(status.Message, "Cannot install Concourse v7.14.2: "+url+": digest mismatch: "), status.Message)
	require.Contains(t, status.Message, "found out by concourse-ci/2")
	require.True(t, strings.HasSuffix(status.Message, "check the option release-digest, the mirror and the proxy between"), status.Message)
	require.Less(t, len(status.Message), 500)
}

func TestWatcherIsToldOfARestart(t *testing.T) {
	u := leader()
	before := reconcile.Make(u.d, u.o)
	require.False(t, before.Want.Again)
	u.d.Config.LogLevel = "debug"
	after := reconcile.Make(u.d, u.o)
	require.Equal(t, "restart server "+old, steps(after))
	require.True(t, after.Want.Again, "or a service that answers at once again would be no news")
	require.Equal(t, after.Services[concourse.ServerUnit].Digest(), after.Want.WebService)
	require.NotEqual(t, before.Want.WebService, after.Want.WebService)

	u = follower()
	u.d.Config.LogLevel = "debug"
	after = reconcile.Make(u.d, u.o)
	require.Equal(t, after.Services[concourse.WorkerUnit].Digest(), after.Want.WorkerService)
	require.NotEmpty(t, after.Want.WorkerService)
}

func TestCollectsWhenAllUnitsRunTheTarget(t *testing.T) {
	u := leader(app(relations.TargetVersion, next), app(relations.ActiveVersion, next), installed(old, next), func(u *unit) {
		u.settle()
		u.o.Found.Web = next
		u.d.Peers.Units["ci/1"] = map[string]string{relations.ConcourseVersion: old}
	})
	require.False(t, reconcile.Make(u.d, u.o).Want.Collect)
	u.d.Peers.Units["ci/1"][relations.ConcourseVersion] = next
	require.True(t, reconcile.Make(u.d, u.o).Want.Collect)
	u.o.Found.Web = ""
	require.False(t, reconcile.Make(u.d, u.o).Want.Collect)
	require.False(t, reconcile.Make(follower().d, follower().o).Want.Collect)
}

package plan_test

import (
	"fmt"
	"maps"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/concourse"
	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/juju"
	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/plan"
	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/relations"
	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/supervisor"
	"github.com/concourse-ci-machine/concourse-ci-machine/charm/product"
	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator"
)

const (
	old  = "7.14.2"
	next = "7.14.3"
)

var keys = func() concourse.Keys {
	keys, err := concourse.NewKeys()
	if err != nil {
		panic(err)
	}
	return keys
}()

var hostKey = func() string {
	public, err := concourse.PublicKey(keys.HostKey)
	if err != nil {
		panic(err)
	}
	return public
}()

// unit is one unit's world: what Juju says, and a machine that does at once what the
// supervisor finds due. Changes to it make the cases.
type unit struct {
	in     plan.Input
	seen   supervisor.Seen
	memory supervisor.Memory
}

// leader and follower are units of a cluster at rest on the old version.
func leader(changes ...func(*unit)) unit {
	u := at(true)
	u.settle()
	return u.with(changes...)
}

func follower(changes ...func(*unit)) unit {
	u := at(false)
	u.settle()
	return u.with(changes...)
}

// fresh is a leader on whose volume nothing was installed yet.
func fresh(changes ...func(*unit)) unit {
	u := at(true)
	secret := u.app()[relations.KeysSecret]
	u.in.Juju.Peers.App = map[string]string{relations.KeysSecret: secret}
	u.memory, u.seen.Installed, u.seen.Current = supervisor.Memory{}, map[string]string{}, ""
	u.in.Status = supervisor.Status{WorkerKey: "ssh-rsa OWN", VolumeID: "v1"}
	return u.with(changes...)
}

func at(leads bool) unit {
	app := map[string]string{
		relations.TargetVersion: old, relations.ActiveVersion: old, relations.ConfigVersion: old,
		relations.WebUnit: "ci/9", relations.TSAHost: "10.0.0.9:2222", relations.TSAPublicKey: hostKey, relations.KeysSecret: "secret:keys",
	}
	u := unit{
		in: plan.Input{
			Juju: juju.Snapshot{
				Event: juju.Event{Unit: "ci/0", Model: "model"}, Leader: leads, Address: "10.0.0.1",
				Peers: &juju.Relation{App: app, Self: map[string]string{}, Units: map[string]map[string]string{
					"ci/9": {relations.WebIP: "10.0.0.9", relations.RunningWorkers: "ci-0 ci-8", relations.ConcourseVersion: old},
				}},
				Secrets: map[string]map[string]string{},
			},
			Config: plan.Config{
				Mode: "auto", Version: old, ReleaseURL: "https://example.com/o/r", SharedStorage: "lxc",
				WebPort: 8080, InitialAdminUsername: "admin", LogLevel: "info", MaxUnavailable: 1,
			},
			Hostname: "juju-1-0", Volume: "/var/lib/concourse",
			Status: supervisor.Status{WorkerKey: "ssh-rsa OWN", VolumeID: "v1", Current: old, Installed: old, Run: old, Answering: "10.0.0.9:8080"},
		},
		seen: supervisor.Seen{Current: old, CurrentBy: "ci/0", Installed: map[string]string{old: "sha256:old"},
			WorkDir: "/var/lib/concourse/worker/ci-0", Running: map[string]bool{}},
		memory: supervisor.Memory{Running: old, Started: map[string]supervisor.Started{}},
	}
	if leads { // and serves
		app[relations.WebUnit], app[relations.TSAHost] = "ci/0", "10.0.0.1:2222"
		u.in.Juju.Peers.Units, u.in.Status.Answering, u.in.Status.Workers = map[string]map[string]string{}, "10.0.0.1:8080", "ci-0"
		u.relate()
	}
	return u
}

// relate lets the unit read what a web server needs.
func (u *unit) relate() {
	u.in.Juju.Database = &juju.Relation{ID: "db:1", RemoteApp: map[string]string{
		"endpoints": "10.0.0.9:5432", "username": "u", "password": "p",
	}}
	u.in.Juju.Secrets["secret:keys"] = keys.Content()
}

func (u *unit) app() map[string]string { return u.in.Juju.Peers.App }

// obey does what the plan and the supervisor want, and returns what was done. Services
// that are started do not answer yet.
func (u *unit) obey(answer plan.Plan) string {
	if answer.Spec != nil {
		u.in.Before = *answer.Spec
		u.memory = u.memory.Note(u.in.Before)
	}
	if worker := u.in.Before.Worker; worker != nil && worker.LocalDir != "" {
		u.seen.WorkDir = worker.LocalDir + "/ci-0"
	}
	var did []string
	for range 5 {
		due := supervisor.Next(concourse.Paths{Volume: u.in.Volume, State: "/var/lib/state"}, u.in.Before, u.seen, u.memory)
		u.in.Status.Run = due.Run
		done := u.do(due)
		if due.TSA != "" {
			u.seen.TSA = due.TSA
			continue
		}
		if len(done) == 0 {
			break
		}
		did = append(did, done...)
	}
	return strings.Join(did, ", ")
}

func (u *unit) do(due supervisor.Due) (did []string) {
	if due.Activate != "" {
		did = append(did, "activate "+due.Activate)
		u.seen.Current, u.seen.CurrentBy = due.Activate, u.in.Juju.Unit
		u.in.Status.Current = due.Activate
	}
	if due.Pin != "" {
		did = append(did, "pin "+due.Pin)
		u.memory.Running = due.Pin
	}
	for _, task := range []supervisor.Task{due.Web, due.Worker} {
		if task.Verb == "" {
			continue
		}
		name := strings.TrimSuffix(strings.TrimPrefix(task.Service.Unit, "concourse-"), ".service")
		u.memory = u.memory.Did(task, u.in.Before)
		u.seen.Running[task.Service.Unit] = task.Verb != supervisor.Stop
		answer := &u.in.Status.Worker
		if name == "server" {
			answer = &u.in.Status.Web
		}
		switch task.Verb {
		case supervisor.Start:
			did = append(did, "start "+name+" "+u.memory.Running)
			*answer = supervisor.Answer{Is: task.Is}
		case supervisor.Stop:
			did = append(did, "stop "+name)
			*answer = supervisor.Answer{}
		default:
			did = append(did, "reload "+name)
		}
	}
	return did
}

// settle is what becomes of the unit when nothing happens: its services answer.
func (u *unit) settle() {
	for range 2 {
		answer := plan.Make(u.in)
		u.obey(answer)
		maps.Copy(u.app(), answer.Changes.App)
		for _, a := range []*supervisor.Answer{&u.in.Status.Web, &u.in.Status.Worker} {
			if a.Is != "" {
				a.Version = u.memory.Running
			}
		}
	}
}

func (u unit) with(changes ...func(*unit)) unit {
	for _, change := range changes {
		change(&u)
	}
	return u
}

func config(change func(*plan.Config)) func(*unit) {
	return func(u *unit) { change(&u.in.Config) }
}

func app(name, value string) func(*unit) {
	return func(u *unit) { u.app()[name] = value }
}

func installed(versions ...string) func(*unit) {
	return func(u *unit) {
		u.seen.Installed = map[string]string{}
		for _, v := range versions {
			u.seen.Installed[v] = "sha256:" + v
		}
		if _, there := u.seen.Installed[u.in.Status.Installed]; !there {
			u.in.Status.Installed = ""
		}
	}
}

// unread is a unit that runs the web server and cannot read the leader's keys.
func unread(mode string) unit {
	return leader(config(func(c *plan.Config) { c.Mode = mode }), func(u *unit) {
		u.settle()
		u.in.Juju.Leader, u.in.Juju.Early = false, true
		delete(u.in.Juju.Secrets, "secret:keys")
		u.app()[relations.TSAHost] = "10.0.0.2:2222"
	})
}

// stopped is a unit whose services were never started.
func stopped(u *unit) {
	u.memory = supervisor.Memory{}
	clear(u.seen.Running)
	u.in.Status.Run, u.in.Status.Web, u.in.Status.Worker = "", supervisor.Answer{}, supervisor.Answer{}
}

func status(change func(*supervisor.Status)) func(*unit) {
	return func(u *unit) { change(&u.in.Status) }
}

func fault(f supervisor.Fault) func(*unit) {
	return func(u *unit) {
		u.in.Status.Fault, u.in.Status.Detail, u.in.Status.Installed = f, "disk is on fire", ""
		u.seen.Fault, u.seen.Installed, u.seen.Current, u.seen.WorkDir = f, nil, "", ""
	}
}

// mild is a fault with which the volume can still be used.
func mild(f supervisor.Fault) func(*unit) {
	return func(u *unit) {
		u.in.Status.Fault, u.in.Status.Detail, u.seen.Fault = f, "disk is on fire", f
	}
}

func TestMake(t *testing.T) {
	for _, test := range []struct {
		name   string
		unit   unit
		status string // level and message
		steps  string
		want   string            // version that the supervisor is to install
		app    map[string]string // settings, among others, that the leader leaves
	}{{
		name: "leader at rest", unit: leader(),
		status: "active Web server ready (v7.14.2)", want: old,
	}, {
		name: "follower at rest", unit: follower(),
		status: "active Worker ready (v7.14.2)", want: old,
	}, {
		name: "both roles", unit: leader(config(func(c *plan.Config) { c.Mode = "all" }),
			func(u *unit) { u.settle() }),
		status: "active Ready (v7.14.2)", want: old,
	}, {
		name: "before the peer relation", unit: leader(func(u *unit) { u.in.Juju.Peers = nil }),
		status: "maintenance Preparing unit",
	},
		// What operators get wrong: nothing that runs is touched.
		{
			name: "unknown mode", unit: leader(config(func(c *plan.Config) { c.Mode = "cluster" })),
			status: `blocked Unknown mode "cluster": set mode to one of auto, web, all`,
		}, {
			name: "unknown storage", unit: leader(config(func(c *plan.Config) { c.SharedStorage = "nfs" })),
			status: `blocked Unknown shared-storage "nfs": set shared-storage to one of none, lxc`,
		}, {
			name: "port of the TSA", unit: leader(config(func(c *plan.Config) { c.WebPort = 2222 })),
			status: "blocked Unusable web-port 2222: set web-port to a free port between 1 and 65535 other than 2222",
		}, {
			name: "admin name with a colon", unit: leader(config(func(c *plan.Config) { c.InitialAdminUsername = "a:b" })),
			status: `blocked Unusable initial-admin-username "a:b": use letters, digits, dots, dashes and @`,
		}, {
			name: "release URL without a scheme", unit: leader(config(func(c *plan.Config) { c.ReleaseURL = "example.com" })),
			status: `blocked Malformed release-url "example.com": use the form https://github.com/concourse/concourse`,
		}, {
			name: "state of the worker on the system's disk", unit: follower(config(func(c *plan.Config) { c.WorkerWorkDir = "/etc/ci" })),
			status: `blocked Unusable worker-work-dir "/etc/ci": use an absolute path such as /mnt/fast, of plain names, ` +
				`outside of the system's directories and of /var/lib/concourse`,
		}, {
			name: "state of the worker where it cannot be", unit: follower(status(func(f *supervisor.Status) {
				f.Stuck = "cannot make /mnt/fast/ci-0: mkdir /mnt/fast: not a directory"
			})),
			status: "blocked Cannot make /mnt/fast/ci-0: mkdir /mnt/fast: not a directory; it is tried again, see journalctl -u " + supervisor.Unit,
			want:   old,
		}, {
			name: "all that is wrong at once", unit: leader(config(func(c *plan.Config) {
				c.Mode, c.Version, c.LogLevel, c.ExternalURL, c.WorkerWorkDir = "cluster", "latest", "warn", "ci.example.com", "/"
			})),
			status: `blocked Unknown mode "cluster": set mode to one of auto, web, all; ` +
				`Malformed external-url "ci.example.com": use the form https://ci.example.com; ` +
				`Unknown log-level "warn": set log-level to one of debug, info, error, fatal; ` +
				`Unusable worker-work-dir "/": use an absolute path such as /mnt/fast, of plain names, outside of the system's directories and of /var/lib/concourse; ` +
				`Malformed version "latest": use the form 7.14.3`,
		}, {
			name: "malformed version", unit: leader(config(func(c *plan.Config) { c.Version = "latest" })),
			status: `blocked Malformed version "latest": use the form 7.14.3`, want: old,
		}, {
			name: "malformed version at first", unit: fresh(config(func(c *plan.Config) { c.Version = "7.14" })),
			status: `blocked Malformed version "7.14": use the form 7.14.3`,
		},
		// First deployment.
		{
			name: "no database", unit: fresh(func(u *unit) { u.in.Juju.Database = nil }),
			status: "blocked PostgreSQL database required", want: old,
		}, {
			name: "database without data", unit: fresh(func(u *unit) { u.in.Juju.Database.RemoteApp = nil }),
			status: "waiting Waiting for PostgreSQL database...", want: old,
		}, {
			name: "newest is unknown", unit: fresh(config(func(c *plan.Config) { c.Version = "" })),
			status: "waiting Waiting for the version to run...",
		}, {
			name: "newest cannot be known", unit: fresh(config(func(c *plan.Config) { c.Version = "" }),
				status(func(f *supervisor.Status) { f.NewestFailure = "no route\nto host" })),
			status: "blocked Cannot find the newest Concourse release: no route to host; set version, or release-url",
		}, {
			name: "newest is known", unit: fresh(config(func(c *plan.Config) { c.Version = "" }),
				status(func(f *supervisor.Status) { f.Newest = next })),
			status: "maintenance Waiting for binaries v7.14.3...", want: next,
			app: map[string]string{relations.TargetVersion: next, relations.ConfigVersion: relations.Newest},
		}, {
			name: "this unit downloads", unit: fresh(status(func(f *supervisor.Status) {
				f.Trying, f.Holder, f.Percent = old, "ci/0", 42
			})),
			status: "maintenance Downloading Concourse CI 7.14.2... 42%", want: old,
		}, {
			name: "another unit downloads", unit: fresh(status(func(f *supervisor.Status) {
				f.Trying, f.Holder = old, "ci/1"
			})),
			status: "maintenance Waiting for binaries v7.14.2...", want: old,
		}, {
			name: "cannot install", unit: fresh(status(func(f *supervisor.Status) {
				f.Trying, f.Failure = old, "release not found"
			})),
			status: "blocked Cannot install Concourse v7.14.2: release not found", want: old,
		}, {
			name: "installed", unit: fresh(installed(old)),
			status: "maintenance Starting Concourse v7.14.2...", want: old,
			steps: "activate 7.14.2, pin 7.14.2, start server 7.14.2",
		}, {
			name: "web answered for the first time", unit: leader(app(relations.ActiveVersion, "")),
			status: "active Web server ready (v7.14.2)", want: old,
			app: map[string]string{relations.ActiveVersion: old, relations.TSAHost: "10.0.0.1:2222", relations.WebUnit: "ci/0"},
		}, {
			name: "worker waits for the web server", unit: follower(app(relations.ActiveVersion, ""),
				app(relations.TSAHost, ""), stopped),
			status: "waiting Waiting for TSA connection info...", want: old,
		}, {
			name: "worker joins", unit: follower(stopped),
			status: "maintenance Starting Concourse v7.14.2...", want: old,
			steps: "pin 7.14.2, start worker 7.14.2",
		}, {
			name: "without shared storage each unit activates", want: old,
			unit: follower(config(func(c *plan.Config) { c.SharedStorage = "none" }),
				func(u *unit) { u.seen.Current = "" }),
			status: "active Worker ready (v7.14.2)", steps: "activate 7.14.2",
		},
		// The volume.
		{
			name: "volume never seen", unit: fresh(fault(supervisor.NotMounted)),
			status: "blocked Shared storage unavailable - attach it with `lxc config device add juju-1-0 concourse-data disk pool=POOL source=VOLUME path=/var/lib/concourse`", want: old,
		}, {
			name: "web lost its volume", unit: leader(fault(supervisor.NotMounted)), want: old,
			status: "blocked Shared storage unavailable - attach it with `lxc config device add juju-1-0 concourse-data disk pool=POOL source=VOLUME path=/var/lib/concourse`",
		}, {
			name: "worker lost its volume", unit: follower(fault(supervisor.NotMounted)), want: old,
			status: "blocked Shared storage unavailable - attach it with `lxc config device add juju-1-0 concourse-data disk pool=POOL source=VOLUME path=/var/lib/concourse`",
			steps:  "stop worker",
		}, {
			name: "unmarked volume", unit: follower(fault(supervisor.Unmarked), func(u *unit) { u.in.Status.Detail = "it has no marker: touch it" }), want: old,
			status: "blocked Shared storage unavailable - it has no marker: touch it",
			steps:  "stop worker",
		}, {
			name: "another volume", unit: follower(fault(supervisor.Foreign)), want: old,
			status: "blocked Shared storage unavailable - another volume is mounted: detach it and attach the one with id v1 at /var/lib/concourse, or run accept-volume on the leader if that one is lost",
			steps:  "stop worker",
		}, {
			name: "volume fails", unit: leader(fault(supervisor.Broken)), want: old,
			status: "blocked Storage unavailable - disk is on fire",
		},
		{
			name: "the volume of another model", unit: follower(fault(supervisor.OtherModel)), want: old,
			status: "blocked Shared storage unavailable - the volume belongs to another model: detach it and attach one of this model, or run accept-volume on the leader",
			steps:  "stop worker",
		}, {
			name: "the volume of a newer charm", unit: follower(fault(supervisor.Newer)), want: old,
			status: "blocked Shared storage unavailable - a newer charm has used the volume: run juju refresh",
			steps:  "stop worker",
		}, {
			name: "worker can only read its volume", unit: follower(fault(supervisor.ReadOnly)), want: old,
			status: "blocked Shared storage unavailable - it is mounted read-only at /var/lib/concourse: mount it read-write",
			steps:  "stop worker",
		}, {
			name: "web can only read its volume", unit: leader(fault(supervisor.ReadOnly)), want: old,
			status: "blocked Shared storage unavailable - it is mounted read-only at /var/lib/concourse: mount it read-write",
		}, {
			name: "worker can start no program", unit: follower(fault(supervisor.NoExec)), want: old,
			status: "blocked Shared storage unavailable - it is mounted noexec at /var/lib/concourse: mount it without noexec",
			steps:  "stop worker",
		}, {
			name: "web can start no program", unit: leader(fault(supervisor.NoExec)), want: old,
			status: "blocked Shared storage unavailable - it is mounted noexec at /var/lib/concourse: mount it without noexec",
		}, {
			name: "noexec on the unit's own disk", want: old,
			unit:   leader(config(func(c *plan.Config) { c.SharedStorage = "none" }), fault(supervisor.NoExec)),
			status: "blocked Storage unavailable - it is mounted noexec at /var/lib/concourse: mount it without noexec",
		}, {
			name: "worker's volume hangs", unit: follower(fault(supervisor.Hung)), want: old,
			status: "blocked Shared storage unavailable - /var/lib/concourse does not answer: check the file server and the network to it",
			steps:  "stop worker",
		}, {
			name: "web's volume hangs", unit: leader(fault(supervisor.Hung)), want: old,
			status: "blocked Shared storage unavailable - /var/lib/concourse does not answer: check the file server and the network to it",
		}, {
			name: "the web server's user is shut out", unit: leader(mild(supervisor.NoAccess)), want: old,
			status: "blocked Shared storage unavailable - the user concourse cannot start the web server: disk is on fire",
		}, {
			name: "and its web server has ended", want: old,
			unit:   leader(mild(supervisor.NoAccess), func(u *unit) { clear(u.seen.Running); u.in.Status.Web.Version = "" }),
			status: "blocked Shared storage unavailable - the user concourse cannot start the web server: disk is on fire",
		}, {
			name: "a worker is root", unit: follower(mild(supervisor.NoAccess), stopped), want: old,
			status: "blocked Shared storage unavailable - the user concourse cannot start the web server: disk is on fire",
			steps:  "pin 7.14.2, start worker 7.14.2",
		}, {
			name: "a full volume stops nothing", unit: follower(mild(supervisor.Full)), want: old,
			status: "blocked Shared storage is full - disk is on fire: enlarge the volume or remove what is not needed",
		}, {
			name: "nor keeps anything from being started", unit: follower(mild(supervisor.Full), stopped), want: old,
			status: "blocked Shared storage is full - disk is on fire: enlarge the volume or remove what is not needed",
			steps:  "pin 7.14.2, start worker 7.14.2",
		}, {
			name: "what a full volume has no room for comes first", want: next,
			unit: leader(app(relations.TargetVersion, next), mild(supervisor.Full), status(func(f *supervisor.Status) {
				f.Trying, f.Failure = next, "not enough space on the volume"
			})),
			status: "blocked Cannot install Concourse v7.14.3: not enough space on the volume",
		}, {
			name: "what a full volume kept from being done comes first", want: old,
			unit: leader(mild(supervisor.Full), status(func(f *supervisor.Status) {
				f.Stuck = "cannot pin Concourse 7.14.2: not enough space on the volume: no inode is free"
			})),
			status: "blocked Cannot pin Concourse 7.14.2: not enough space on the volume: no inode is free; " +
				"it is tried again, see journalctl -u concourse-ci-supervisor.service",
		}, {
			name: "worker's directory fails", want: old,
			unit:   follower(fault(supervisor.Broken)),
			status: "blocked Storage unavailable - disk is on fire", steps: "stop worker",
		}, {
			name: "release of the web server is damaged", want: old,
			unit: leader(installed(), status(func(f *supervisor.Status) {
				f.Trying, f.Failure = old, "release source is unreachable"
			})),
			status: "blocked Cannot install Concourse v7.14.2: release source is unreachable",
		}, {
			name: "release of the worker is damaged", unit: follower(installed()), want: old,
			status: "maintenance Waiting for binaries v7.14.2...",
		}, {
			name: "release is damaged and the database is gone", want: old,
			unit:   leader(installed(), func(u *unit) { u.in.Juju.Database = nil }),
			status: "blocked PostgreSQL database required", steps: "stop server",
		}, {
			name: "another application activated its version", want: old,
			unit:   leader(func(u *unit) { u.seen.Current, u.seen.CurrentBy = next, "other/0" }),
			status: "active Web server ready (v7.14.2)",
		}, {
			name: "upgrade beside another application", want: next,
			unit: leader(app(relations.TargetVersion, next), installed(old, next),
				func(u *unit) { u.seen.CurrentBy = "other/0" }),
			status: "maintenance Upgrading to v7.14.3...", steps: "activate 7.14.3, pin 7.14.3, start server 7.14.3",
		}, {
			name: "an activation that was lost", want: old,
			unit:   leader(func(u *unit) { u.seen.Current, u.seen.CurrentBy, u.in.Status.Current = next, "ci/7", next }),
			status: "active Web server ready (v7.14.2)", steps: "activate 7.14.2",
		},
		// Changes to what runs.
		{
			name: "option changed", unit: leader(config(func(c *plan.Config) { c.LogLevel = "debug" })), want: old,
			status: "maintenance Starting Concourse v7.14.2...", steps: "start server 7.14.2",
		}, {
			name: "password rotated", unit: leader(func(u *unit) {
				u.in.Juju.Database.RemoteApp["password"] = "rotated"
			}), want: old,
			status: "maintenance Starting Concourse v7.14.2...", steps: "start server 7.14.2",
		}, {
			name: "worker key arrived", unit: leader(func(u *unit) {
				u.in.Juju.Peers.Units["ci/1"] = map[string]string{relations.WorkerPublicKey: "ssh-rsa ONE"}
			}), want: old,
			status: "active Web server ready (v7.14.2)", steps: "reload server",
		}, {
			name: "server died", unit: leader(func(u *unit) { clear(u.seen.Running); u.in.Status.Web.Version = "" }), want: old,
			status: "maintenance Starting Concourse v7.14.2...", steps: "start server 7.14.2",
		}, {
			name: "database settings incomplete", want: old,
			unit:   leader(func(u *unit) { u.in.Juju.Database.RemoteApp = nil }),
			status: "waiting Waiting for PostgreSQL database...",
		}, {
			name: "database relation removed", want: old,
			unit:   leader(func(u *unit) { u.in.Juju.Database = nil }),
			status: "blocked PostgreSQL database required", steps: "stop server",
		}, {
			name: "worker becomes leader", want: old,
			unit: follower(func(u *unit) {
				u.in.Juju.Leader = true
				u.relate()
			}),
			status: "active Worker ready (v7.14.2)",
		}, {
			name: "leader is a worker, and its web server elsewhere is upgraded", want: next,
			unit: follower(app(relations.TargetVersion, next), installed(old, next), func(u *unit) {
				u.in.Juju.Leader = true
				u.relate()
				u.in.Juju.Peers.Units["ci/9"][relations.ConcourseVersion] = next
			}),
			status: "maintenance Starting Concourse v7.14.3...", steps: "pin 7.14.3, start worker 7.14.3",
			app: map[string]string{relations.ActiveVersion: next},
		}, {
			name: "leader is a worker, and its web server elsewhere is late", want: old,
			unit: follower(app(relations.TargetVersion, next), installed(old, next), func(u *unit) {
				u.in.Juju.Leader = true
				u.relate()
				u.in.Juju.Peers.Units["ci/9"][relations.OverdueVersion] = next
			}),
			status: "blocked Upgrade to v7.14.3 failed: the web server did not answer in time; see journalctl -u concourse-server.service, then run upgrade again",
		}, {
			name: "worker is not listed as running", want: old,
			unit:   follower(func(u *unit) { u.in.Juju.Peers.Units["ci/9"][relations.RunningWorkers] = "ci-8" }),
			status: "waiting Waiting for the web server to list this worker as running...",
		}, {
			name: "web server does not answer to a worker", want: old,
			unit:   follower(status(func(s *supervisor.Status) { s.Answering = "" })),
			status: "waiting Waiting for the web server at 10.0.0.9:8080 to answer...",
		}, {
			name: "both roles, and the worker is not listed", want: old,
			unit: leader(config(func(c *plan.Config) { c.Mode = "all" }), func(u *unit) { u.settle() },
				status(func(s *supervisor.Status) { s.Workers = "ci-8" })),
			status: "waiting Waiting for the web server to list this worker as running...",
		}, {
			name: "worker lands", unit: leader(status(func(s *supervisor.Status) { s.Landing = true })), want: old,
			status: "active Web server ready (v7.14.2), the unit's worker ends with its builds",
		}, {
			name: "the leader tells what a release consists of", want: old,
			unit:   leader(status(func(s *supervisor.Status) { s.Contents = "sha256:c" }), func(u *unit) { u.seen.Contents = map[string]string{old: "sha256:c"} }),
			status: "active Web server ready (v7.14.2)", app: map[string]string{relations.Contents: "7.14.2=sha256:c"},
		}, {
			name: "what was told stays", want: old,
			unit: leader(app(relations.Contents, "7.14.1=sha256:a 7.14.2=sha256:b"), status(func(s *supervisor.Status) { s.Contents = "sha256:c" }),
				func(u *unit) { u.seen.Contents = map[string]string{old: "sha256:b"} }),
			status: "active Web server ready (v7.14.2)", app: map[string]string{relations.Contents: "7.14.2=sha256:b"},
		}, {
			name: "a release was changed", want: old,
			unit:   follower(status(func(s *supervisor.Status) { s.Changed = old })),
			status: "blocked Release v7.14.2 on the volume is not what the leader has installed: find out who has changed it; `rm` its link in releases/ has it installed anew",
		}, {
			name: "option version is emptied", want: old,
			unit:   leader(config(func(c *plan.Config) { c.Version = "" }), status(func(s *supervisor.Status) { s.Newest = next })),
			status: "active Web server ready (v7.14.2)",
			app:    map[string]string{relations.TargetVersion: old, relations.ConfigVersion: relations.Newest},
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
			name: "option asks for an upgrade", unit: leader(config(func(c *plan.Config) { c.Version = "v" + next })),
			status: "maintenance Upgrading to v7.14.3...", want: next,
			app: map[string]string{relations.TargetVersion: next, relations.ConfigVersion: next},
		}, {
			name: "action asks for an upgrade", unit: leader(func(u *unit) {
				u.in.Juju.Peers.Units["ci/1"] = map[string]string{relations.UpgradeRequest: "17 " + next}
			}),
			status: "maintenance Upgrading to v7.14.3...", want: next,
			app:   map[string]string{relations.TargetVersion: next, relations.Handled("ci/1"): "17 " + next},
			steps: "",
		}, {
			name: "an action is heard before the newest version is known",
			unit: fresh(config(func(c *plan.Config) { c.Version = "" }), func(u *unit) {
				u.in.Juju.Peers.Self[relations.UpgradeRequest] = "17 " + old
			}),
			status: "maintenance Waiting for binaries v7.14.2...", want: old,
			app: map[string]string{relations.TargetVersion: old, relations.ConfigVersion: relations.Newest},
		}, {
			name: "an action that was heard stays quiet", unit: leader(app(relations.Handled("ci/1"), "17 "+next), func(u *unit) {
				u.in.Juju.Peers.Units["ci/1"] = map[string]string{relations.UpgradeRequest: "17 " + next}
			}),
			status: "active Web server ready (v7.14.2)", want: old,
		}, {
			name: "target cannot be installed", unit: leader(app(relations.TargetVersion, next), status(func(f *supervisor.Status) {
				f.Trying, f.Failure = next, "not enough space on the volume"
			})),
			status: "blocked Cannot install Concourse v7.14.3: not enough space on the volume", want: next,
		}, {
			name: "web goes first", unit: leader(app(relations.TargetVersion, next), installed(old, next)),
			status: "maintenance Upgrading to v7.14.3...", want: next,
			steps: "activate 7.14.3, pin 7.14.3, start server 7.14.3",
		}, {
			name: "worker waits for web", unit: follower(app(relations.TargetVersion, next), installed(old, next)),
			status: "maintenance Upgrading to v7.14.3...", want: next,
		}, {
			name: "worker follows", want: next,
			unit:   follower(app(relations.TargetVersion, next), app(relations.ActiveVersion, next), installed(old, next)),
			status: "maintenance Starting Concourse v7.14.3...", steps: "pin 7.14.3, start worker 7.14.3",
		}, {
			name: "web does not answer in time",
			unit: leader(app(relations.TargetVersion, next), installed(old, next), func(u *unit) {
				u.obey(plan.Make(u.in))
				u.in.Status.Overdue = next
			}),
			status: "blocked Upgrade to v7.14.3 failed: the web server did not answer in time; see journalctl -u concourse-server.service, then run upgrade again",
			steps:  "activate 7.14.2, pin 7.14.2, start server 7.14.2", want: old,
			app: map[string]string{relations.TargetVersion: old},
		}, {
			name: "a failed upgrade is asked for again",
			unit: leader(app(relations.FailedUpgrade, "Upgrade to v7.14.3 failed"), func(u *unit) {
				u.in.Juju.Peers.Self[relations.UpgradeRequest] = "18 " + next
			}),
			status: "maintenance Upgrading to v7.14.3...", want: next,
			app: map[string]string{relations.TargetVersion: next, relations.FailedUpgrade: ""},
		}, {
			name: "a web server that hangs later is not taken back",
			unit: leader(status(func(f *supervisor.Status) { f.Web.Version, f.Overdue = "", old })), want: old,
			status: "maintenance Starting Concourse v7.14.2...",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			u := test.unit
			answer := plan.Make(u.in)
			require.Equal(t, test.steps, u.obey(answer))
			if test.want == "" {
				require.True(t, answer.Spec == nil || answer.Spec.Fetch == "", "%+v", answer.Spec)
			} else {
				require.Equal(t, test.want, answer.Spec.Fetch)
				require.False(t, answer.Spec.Newest, "a version is chosen")
			}
			for name, value := range test.app {
				require.Equal(t, value, answer.Changes.App[name], name)
			}
			if !u.in.Juju.Leader {
				require.Empty(t, answer.Changes.App, "only the leader speaks for the application")
			}
			// The next hook has nothing more to do, and says how the unit is now.
			if u.in.Juju.Peers != nil {
				maps.Copy(u.app(), answer.Changes.App)
			}
			answer = plan.Make(u.in)
			require.Equal(t, test.status, string(answer.Changes.Status.Level)+" "+answer.Changes.Status.Message)
			require.Empty(t, u.obey(answer), "again")
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
	u := fresh(status(func(f *supervisor.Status) { f.Trying, f.Failure = old, failure }))
	status := plan.Make(u.in).Changes.Status
	require.Equal(t, juju.Blocked, status.Level)
	require.True(t, strings.HasPrefix(status.Message, "Cannot install Concourse v7.14.2: "+url+": digest mismatch: "), status.Message)
	require.Contains(t, status.Message, "found out by concourse-ci/2")
	require.True(t, strings.HasSuffix(status.Message, "check the option release-digest, the mirror and the proxy between"), status.Message)
	require.Less(t, len(status.Message), 500)
}

// What a service answered before it was described anew says nothing of what is to come.
func TestAnswersOfAnotherDescription(t *testing.T) {
	for _, u := range []unit{leader(), follower()} {
		require.Equal(t, juju.Active, plan.Make(u.in).Changes.Status.Level)
		u.in.Config.LogLevel = "debug"
		require.Equal(t, "maintenance", string(plan.Make(u.in).Changes.Status.Level))
	}
}

// An address that is published brings workers there, and a version all units.
func TestOnlyWhatAnswersIsPublished(t *testing.T) {
	u := leader(status(func(s *supervisor.Status) { s.Web.Version = "" }))
	answer := plan.Make(u.in)
	require.NotContains(t, answer.Changes.App, relations.ActiveVersion)
	require.NotContains(t, answer.Changes.Self, relations.ConcourseVersion)
	require.Empty(t, answer.Changes.Version)
}

func TestStuck(t *testing.T) {
	u := leader(status(func(s *supervisor.Status) { s.Stuck = "systemctl restart\nconcourse: is on strike" }))
	require.Equal(t, "Systemctl restart concourse: is on strike; it is tried again, see journalctl -u concourse-ci-supervisor.service",
		plan.Make(u.in).Changes.Status.Message)
}

func TestCollectsWhenAllUnitsRunTheTarget(t *testing.T) {
	u := leader(app(relations.TargetVersion, next), app(relations.ActiveVersion, next), installed(old, next), func(u *unit) {
		u.settle()
		u.in.Juju.Peers.Units["ci/1"] = map[string]string{relations.ConcourseVersion: old}
	})
	require.False(t, plan.Make(u.in).Spec.Collect)
	u.in.Juju.Peers.Units["ci/1"][relations.ConcourseVersion] = next
	require.True(t, plan.Make(u.in).Spec.Collect)
	u.in.Status.Web.Version = ""
	require.False(t, plan.Make(u.in).Spec.Collect)
	require.False(t, plan.Make(follower().in).Spec.Collect)
}

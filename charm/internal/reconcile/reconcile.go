// Package reconcile decides what a unit does next. It is pure: desired state
// and observed state in, steps, settings and a status out. Every hook asks it
// the same question, so that no event is ever lost for having been missed.
package reconcile

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/concourse"
	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/relations"
	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/watcher"
	"github.com/concourse-ci-machine/concourse-ci-machine/charm/product"
)

// Config is the charm's configuration, named as its users know it.
type Config struct {
	Mode                 string `json:"mode"`
	Version              string `json:"version"`
	ReleaseURL           string `json:"release-url"`
	ReleaseDigest        string `json:"release-digest"`
	SharedStorage        string `json:"shared-storage"`
	WebPort              int    `json:"web-port"`
	ExternalURL          string `json:"external-url"`
	InitialAdminUsername string `json:"initial-admin-username"`
	LogLevel             string `json:"log-level"`
}

// Shared tells whether the volume has to be one that others mount as well.
func (c Config) Shared() bool { return c.SharedStorage == "lxc" }

// Desired is what people and other units ask of this unit.
type Desired struct {
	Unit      string
	Model     string // its UUID
	Address   string
	Leader    bool
	Config    Config
	Paths     concourse.Paths
	Peers     *relations.Peers // nil before the relation exists
	Keys      *concourse.Keys  // nil where this unit does not need them yet
	WorkerKey string           // public half of this unit's own key
	Database  relations.Reply
	Again     bool // something cannot be read yet: come back soon
}

// Fault says what is wrong with a volume.
type Fault int

const (
	Healthy Fault = iota
	NotMounted
	Unmarked // mounted, and not marked as shared
	Foreign  // another volume than before
	Broken   // any other error
)

// Volume is the state of the unit's volume.
type Volume struct {
	Fault     Fault
	Detail    string // of the fault
	ID        string
	SeenID    string   // the shared volume this unit has used before
	Current   string   // active release
	CurrentBy string   // unit that activated it
	Installed []string // releases that passed the quick check
	WorkDir   string   // this unit's own directory
}

// Observed is how the unit is.
type Observed struct {
	Hostname string
	Volume   Volume
	Found    watcher.Found
	// Running is the version that the services were last started from.
	Running string
	// Applied are the digests that the services were last started with, and
	// the authorized keys that the web server has read.
	Applied map[string]string
	// Active are the services that systemd runs.
	Active map[string]bool
}

// Verb is a kind of Step.
type Verb string

const (
	Activate Verb = "activate" // make Step.Version current on the volume
	Pin      Verb = "pin"      // keep Step.Version from being collected
	Restart  Verb = "restart"  // write the files of Step.Unit and start it anew
	Reload   Verb = "reload"   // have Step.Unit read its files again
	Stop     Verb = "stop"     // and remove Step.Unit
)

// Step changes one thing on the unit.
type Step struct {
	Verb    Verb
	Unit    string
	Version string
}

// Level is a Juju status.
type Level string

const (
	Active      Level = "active"
	Waiting     Level = "waiting"
	Maintenance Level = "maintenance"
	Blocked     Level = "blocked"
)

// Status is what the unit tells its operator.
type Status struct {
	Level   Level
	Message string
}

// Plan is the answer.
type Plan struct {
	Steps    []Step
	Services map[string]concourse.Service // what Restart writes
	// AuthorizedKeys is written for the web server, HostPublicKey for the worker.
	AuthorizedKeys string
	HostPublicKey  string
	TSAHost        string            // where the worker registers
	Want           *watcher.Want     // nil leaves the watcher as it is
	Keys           *concourse.Keys   // written for the web server
	App, Self      map[string]string // settings for the peers; App on the leader only
	Ports          []int
	Version        string // that this unit serves, once it does
	Status         Status
}

// AuthorizedKeysApplied is the place in Observed.Applied of the authorized keys.
const AuthorizedKeysApplied = "authorized-keys"

// Make plans. Each part adds to the plan; the first complaint becomes the status.
func Make(d Desired, o Observed) Plan {
	m := maker{d: d, o: o, plan: Plan{
		App: map[string]string{}, Self: map[string]string{}, Services: map[string]concourse.Service{},
	}}
	m.make()
	return m.plan
}

type maker struct {
	d    Desired
	o    Observed
	plan Plan

	web, worker bool
	target      string // where all units are to get
	active      string // what the web server has proven
	newest      bool   // the target is still to be found
	run         string // what this unit's services start from now
	damaged     bool   // what they were started from is not sound any more
}

// say sets the status unless an earlier part had something to say: parts
// speak in the order in which an operator has to act.
func (m *maker) say(level Level, format string, args ...any) {
	if m.plan.Status.Level == "" {
		m.plan.Status = Status{level, fmt.Sprintf(format, args...)}
	}
}

func (m *maker) make() {
	if !m.checkConfig() {
		return
	}
	if m.d.Peers == nil {
		m.say(Maintenance, "Preparing unit")
		return
	}
	m.chooseTarget()
	m.checkVolume()
	m.checkDatabase()
	m.chooseRun()
	m.planServer()
	m.planWorker()
	m.tellWatcher()
	m.tellPeers()
	m.explain()
}

var (
	adminForm  = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._@-]*$`)
	digestForm = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)
)

// checkConfig refuses to act on options that cannot be meant: what runs keeps running.
func (m *maker) checkConfig() bool {
	c := m.d.Config
	switch c.Mode {
	case "auto":
		m.web, m.worker = m.d.Leader, !m.d.Leader
	case "web":
		m.web = true
	case "all":
		m.web, m.worker = true, true
	default:
		m.say(Blocked, "Unknown mode %q: set mode to one of auto, web, all", c.Mode)
		return false
	}
	switch {
	case c.SharedStorage != "none" && c.SharedStorage != "lxc":
		m.say(Blocked, "Unknown shared-storage %q: set shared-storage to one of none, lxc", c.SharedStorage)
	case c.WebPort < 1 || c.WebPort > 65535 || c.WebPort == concourse.TSAPort:
		m.say(Blocked, "Unusable web-port %d: set web-port to a free port between 1 and 65535 other than %d", c.WebPort, concourse.TSAPort)
	case !adminForm.MatchString(c.InitialAdminUsername):
		m.say(Blocked, "Unusable initial-admin-username %q: use letters, digits, dots, dashes and @", c.InitialAdminUsername)
	case !slices.Contains([]string{"debug", "info", "error", "fatal"}, c.LogLevel):
		m.say(Blocked, "Unknown log-level %q: set log-level to one of debug, info, error, fatal", c.LogLevel)
	case c.ReleaseDigest != "" && !digestForm.MatchString(c.ReleaseDigest):
		m.say(Blocked, "Malformed release-digest %q: use the form sha256:HEX", c.ReleaseDigest)
	case !strings.HasPrefix(c.ReleaseURL, "http://") && !strings.HasPrefix(c.ReleaseURL, "https://"):
		m.say(Blocked, "Malformed release-url %q: use the form %s", c.ReleaseURL, product.Source)
	}
	return m.plan.Status.Level == ""
}

// chooseTarget has the leader weigh the option, requests of actions and an
// upgrade that failed. The last to speak wins, so what was heard is remembered.
func (m *maker) chooseTarget() {
	app := m.d.Peers.App
	m.target, m.active = app[relations.TargetVersion], app[relations.ActiveVersion]
	option := relations.Newest
	if given := strings.TrimSpace(m.d.Config.Version); given != "" {
		var err error
		if option, err = product.ParseVersion(given); err != nil {
			m.say(Blocked, "Malformed version %q: use the form 7.14.3", given)
			option = app[relations.ConfigVersion] // as if nothing had been said
		}
	}
	if !m.d.Leader {
		return
	}
	failed := app[relations.FailedUpgrade]
	if option != app[relations.ConfigVersion] {
		version := option
		if option == relations.Newest {
			version = m.o.Found.Newest
		}
		m.newest = version == ""
		if !m.newest {
			m.target, failed = version, ""
			m.plan.App[relations.ConfigVersion] = option
		}
	}
	units := []string{m.d.Unit}
	for unit := range m.d.Peers.Units {
		units = append(units, unit)
	}
	slices.Sort(units)
	for _, unit := range units {
		settings := m.d.Peers.Units[unit]
		if unit == m.d.Unit {
			settings = m.d.Peers.Self
		}
		request := settings[relations.UpgradeRequest]
		handled := relations.Handled + strings.ReplaceAll(unit, "/", "-")
		if request == "" || request == app[handled] {
			continue
		}
		m.plan.App[handled] = request
		if _, version, ok := strings.Cut(request, " "); ok {
			m.target, failed, m.newest = version, "", false
			if option != "" {
				m.plan.App[relations.ConfigVersion] = option
			}
		}
	}
	if m.active != "" && m.target != m.active && m.o.Found.Overdue == m.target {
		failed = fmt.Sprintf("Upgrade to v%s failed: the web server did not answer in time; see journalctl -u %s, then run upgrade again",
			m.target, concourse.ServerUnit)
		m.target = m.active
	}
	m.plan.App[relations.TargetVersion] = m.target
	m.plan.App[relations.FailedUpgrade] = failed
	if failed != "" {
		m.say(Blocked, "%s", failed)
	}
}

func (m *maker) checkVolume() {
	v := m.o.Volume
	switch v.Fault {
	case NotMounted:
		m.say(Blocked, "Shared storage unavailable - attach it with `lxc config device add %s concourse-data disk pool=POOL source=VOLUME path=%s`",
			m.o.Hostname, m.d.Paths.Volume)
	case Unmarked:
		m.say(Blocked, "Shared storage unavailable - %s", v.Detail)
	case Foreign:
		if v.SeenID == "" {
			m.say(Blocked, "Shared storage unavailable - %s", v.Detail)
			return
		}
		m.say(Blocked, "Shared storage unavailable - another volume is mounted: detach it and attach the one with id %s at %s",
			v.SeenID, m.d.Paths.Volume)
	case Broken:
		m.say(Blocked, "Storage unavailable - %s", v.Detail)
	}
}

func (m *maker) checkDatabase() {
	switch {
	case !m.web || m.d.Database.Database != nil:
	case !m.d.Database.Related:
		m.say(Blocked, "PostgreSQL database required")
	default:
		m.say(Waiting, "Waiting for PostgreSQL database...")
	}
}

// chooseRun lets the leader go first; the others follow a web server that has
// answered with the version. Until theirs is installed, all stay on the old one.
func (m *maker) chooseRun() {
	candidate := m.active
	if m.d.Leader {
		candidate = m.target
	}
	for _, version := range []string{candidate, m.o.Running} {
		if version != "" && slices.Contains(m.o.Volume.Installed, version) {
			m.run = version
			break
		}
	}
	if m.run == "" {
		m.damaged = m.o.Running != ""
		return
	}
	// On a shared volume only the leader says what is current. Of two that lead
	// applications on one volume the last to change its version has said it.
	v := m.o.Volume
	other := v.Current != "" && application(v.CurrentBy) != application(m.d.Unit)
	if m.run != v.Current && (m.d.Leader || !m.d.Config.Shared()) && (!other || m.run != m.o.Running) {
		m.plan.Steps = append(m.plan.Steps, Step{Verb: Activate, Version: m.run})
	}
	if m.run != m.o.Running {
		m.plan.Steps = append(m.plan.Steps, Step{Verb: Pin, Version: m.run})
	}
}

func application(unit string) string {
	name, _, _ := strings.Cut(unit, "/")
	return name
}

// planServer leaves a running web server alone when the volume went away, as
// it writes nothing there and users keep their pages, while its release is
// repaired, and when the database's settings or the keys cannot be read, as may
// be for a moment while they change.
func (m *maker) planServer() {
	unread := m.d.Keys == nil && m.d.Peers.App[relations.KeysSecret] != ""
	unready := m.d.Database.Database == nil || unread || m.damaged
	if m.web {
		m.plan.Ports = []int{m.d.Config.WebPort, concourse.TSAPort}
		if m.d.Keys == nil {
			m.say(Waiting, "Waiting for the leader's keys...")
		}
	}
	if m.web && (m.o.Volume.Fault != Healthy || m.d.Database.Related && unready) {
		return
	}
	if !m.web || m.d.Database.Database == nil || m.d.Keys == nil || m.run == "" {
		m.stop(concourse.ServerUnit)
		return
	}
	c := m.d.Config
	service := concourse.Web{
		Version: m.run, Port: c.WebPort, Address: m.d.Address, ExternalURL: c.ExternalURL,
		AdminUser: c.InitialAdminUsername, AdminPassword: m.d.Keys.AdminPassword,
		LogLevel: c.LogLevel, Database: *m.d.Database.Database,
	}.Service(m.d.Paths)
	m.plan.AuthorizedKeys = strings.Join(m.d.Peers.WorkerKeys(m.d.WorkerKey), "\n") + "\n"
	m.plan.Keys = m.d.Keys
	if !m.start(service) && m.o.Applied[AuthorizedKeysApplied] != m.plan.AuthorizedKeys {
		m.plan.Steps = append(m.plan.Steps, Step{Verb: Reload, Unit: service.Unit})
	}
}

// planWorker stops a worker whose volume went away: it would fill the
// directory underneath. Otherwise one that runs stays while its release is
// repaired, and with the web server it knows while the keys cannot be read.
func (m *maker) planWorker() {
	if !m.worker || m.o.Volume.Fault != Healthy {
		m.stop(concourse.WorkerUnit)
		return
	}
	if m.o.Active[concourse.WorkerUnit] && (m.damaged || m.web && m.d.Keys == nil) {
		return
	}
	app := m.d.Peers.App
	host, key := app[relations.TSAHost], app[relations.TSAPublicKey]
	if m.web && m.d.Keys != nil {
		// A unit that is both registers with its own web server.
		host, key = fmt.Sprintf("%s:%d", m.d.Address, concourse.TSAPort), m.hostPublicKey()
	}
	if host == "" || key == "" || m.run == "" {
		m.stop(concourse.WorkerUnit)
		return
	}
	m.plan.HostPublicKey, m.plan.TSAHost = key+"\n", host
	m.start(concourse.Worker{
		Version: m.run, Name: concourse.WorkerName(m.d.Unit), WorkDir: m.o.Volume.WorkDir,
		TSAHost: host, LogLevel: m.d.Config.LogLevel,
	}.Service(m.d.Paths))
}

func (m *maker) start(s concourse.Service) bool {
	m.plan.Services[s.Unit] = s
	if m.o.Active[s.Unit] && m.o.Applied[s.Unit] == s.Digest() {
		return false
	}
	m.plan.Steps = append(m.plan.Steps, Step{Verb: Restart, Unit: s.Unit, Version: m.run})
	return true
}

func (m *maker) stop(unit string) {
	if m.o.Active[unit] || m.o.Applied[unit] != "" {
		m.plan.Steps = append(m.plan.Steps, Step{Verb: Stop, Unit: unit})
	}
}

func (m *maker) tellWatcher() {
	c := m.d.Config
	want := watcher.Want{
		Unit: m.d.Unit, Root: m.d.Paths.Volume, Shared: c.Shared(),
		Source: c.ReleaseURL, Digest: c.ReleaseDigest, Version: m.target, Newest: m.newest,
		Collect: m.settled(),
	}
	if c.Shared() {
		want.VolumeID, want.Owner = m.o.Volume.SeenID, m.d.Model
		if m.o.Volume.Fault == Healthy {
			want.VolumeID = m.o.Volume.ID
		}
	}
	if s, ok := m.plan.Services[concourse.ServerUnit]; ok {
		want.WebPort, want.WebVersion, want.WebService = c.WebPort, m.run, s.Digest()
	}
	if s, ok := m.plan.Services[concourse.WorkerUnit]; ok {
		want.WorkerPort, want.WorkerVersion, want.WorkerService = concourse.WorkerHealthPort, m.run, s.Digest()
	}
	// A service that answers at once again is no news to the watcher.
	want.Again = m.d.Again || slices.ContainsFunc(m.plan.Steps, func(s Step) bool { return s.Verb == Restart })
	m.plan.Want = &want
}

func (m *maker) tellPeers() {
	m.plan.Self[relations.WorkerPublicKey] = m.d.WorkerKey
	m.plan.Self[relations.WebIP] = m.d.Address
	if m.serves() {
		m.plan.Version = m.run
		m.plan.Self[relations.ConcourseVersion] = m.run
	}
	if !m.d.Leader {
		return
	}
	if m.serves() && m.run == m.target {
		m.plan.App[relations.ActiveVersion] = m.run
		m.active = m.run
	}
	if m.d.Keys == nil {
		return
	}
	m.plan.App[relations.TSAPublicKey] = m.hostPublicKey()
	m.plan.App[relations.TSAHost] = fmt.Sprintf("%s:%d", m.d.Address, concourse.TSAPort)
	m.plan.App[relations.WebUnit] = m.d.Unit
}

// settled tells whether releases can be collected: this unit's volume holds no
// version that a unit has yet to leave. Only one unit collects a shared volume.
func (m *maker) settled() bool {
	if !m.serves() || m.run != m.target || m.active != m.target {
		return false
	}
	if !m.d.Config.Shared() {
		return true
	}
	for _, settings := range m.d.Peers.Units {
		if settings[relations.ConcourseVersion] != m.target {
			return false
		}
	}
	return m.d.Leader
}

// hostPublicKey is empty for a key that cannot be parsed, which the web server
// itself will refuse with a better message.
func (m *maker) hostPublicKey() string {
	public, err := concourse.PublicKey(m.d.Keys.HostKey)
	if err != nil {
		return ""
	}
	return public
}

// serves tells whether every service of this unit answers with the version it
// should, in the watcher's last look.
func (m *maker) serves() bool {
	restarted := func(unit string) bool {
		return slices.ContainsFunc(m.plan.Steps, func(s Step) bool { return s.Verb == Restart && s.Unit == unit })
	}
	if m.run == "" {
		return false
	}
	if m.web && (m.o.Found.Web != m.run || restarted(concourse.ServerUnit)) {
		return false
	}
	return !m.worker || m.o.Found.Worker == m.run && !restarted(concourse.WorkerUnit)
}

// explain says how far the unit is, when nothing worse was said before.
func (m *maker) explain() {
	found := m.o.Found
	switch {
	case m.target == "" && found.NewestFailure != "":
		m.say(Blocked, "Cannot find the newest Concourse release: %s; set version, or release-url", oneLine(found.NewestFailure))
	case m.target == "":
		m.say(Waiting, "Waiting for the version to run...")
	case found.Failure != "" && found.Trying == m.target && m.run != m.target:
		reason := strings.TrimPrefix(found.Failure, fmt.Sprintf("cannot install %s %s: ", product.Concourse.Name, m.target))
		m.say(Blocked, "Cannot install Concourse v%s: %s", m.target, oneLine(reason))
	case m.run != "" && (m.run != m.target || m.d.Leader && m.active != "" && m.active != m.target):
		m.say(Maintenance, "Upgrading to v%s...", m.target)
	case m.run == "" && found.Trying == m.target && found.Holder == m.d.Unit:
		m.say(Maintenance, "Downloading Concourse CI %s... %d%%", m.target, found.Percent)
	case m.run == "" && !slices.Contains(m.o.Volume.Installed, m.target):
		m.say(Maintenance, "Waiting for binaries v%s...", m.target)
	case m.worker && m.plan.HostPublicKey == "":
		m.say(Waiting, "Waiting for TSA connection info...")
	case !m.serves():
		m.say(Maintenance, "Starting Concourse v%s...", m.run)
	case m.web && m.worker:
		m.say(Active, "Ready (v%s)", m.run)
	case m.web:
		m.say(Active, "Web server ready (v%s)", m.run)
	default:
		m.say(Active, "Worker ready (v%s)", m.run)
	}
}

// longest holds a URL, two digests and what to do.
const longest = 400

// oneLine keeps a status readable in a table. What is too long loses its middle: what is
// wrong comes first, and what to do last.
func oneLine(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	if len(s) <= longest {
		return s
	}
	return strings.ToValidUTF8(s[:longest/2]+" ... "+s[len(s)-longest/2:], "")
}

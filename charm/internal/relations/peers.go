// Package relations knows what the settings of the charm's relations mean, one file an
// endpoint. It is pure: settings in and out are plain maps.
package relations

import (
	"slices"
	"strings"
)

// Settings that units of one application leave for each other. The first group
// belongs to the application and is written by its leader.
const (
	TargetVersion = "target-version" // all units should come to run this one
	ConfigVersion = "config-version" // value of the option version that target-version took into account
	ActiveVersion = "active-version" // the web server has answered with this one
	UpgradeTry    = "upgrade-try"    // a number: how often a version was asked for
	FailedUpgrade = "failed-upgrade" // why the last upgrade was taken back
	Contents      = "contents"       // "VERSION=DIGEST ...": what releases consist of, as the leader has found them
	WebUnit       = "web-unit"       // has answered, and keeps the web server in mode auto
	NextWebUnit   = "next-web-unit"  // is to have it once it answers
	TSAHost       = "tsa-host"       // of WebUnit
	NextTSAHost   = "next-tsa-host"  // of NextWebUnit
	TSAPublicKey  = "tsa-public-key"
	KeysSecret    = "keys-secret"
	// AcceptedVolume is the state of a volume that an action has accepted.
	AcceptedVolume = "accepted-volume"

	// Migration is who changes the schema of the database, and SchemaBefore to what it may be
	// taken down: see Grant and Before.
	Migration    = "migration"
	SchemaBefore = "schema-before"

	// Turns are the units that may land their workers, as UNIT=PROCESS, or None. A leader that
	// knows no turns does not set it.
	Turns = "turns"

	WorkerPublicKey  = "worker-public-key"
	ConcourseVersion = "concourse-version" // what the unit runs
	WebIP            = "web-ip"
	OverdueVersion   = "overdue-version" // with which its web server has not answered in time
	RunningWorkers   = "running-workers" // names of those that its web server lists as running
	UpgradeRequest   = "upgrade-request" // "NONCE VERSION": an action asked for it on this unit

	// Of a change of the schema.
	SchemaDue = "schema-due" // "VERSION DATABASE SUPPORTED": the schema is to become that of a release
	WebHalted = "web-halted" // the migration for which its web server does not run
	Migrated  = "migrated"   // "ID" of one that it has made, or "ID REASON" for which it fails

	// Of turns, see package turns.
	WorkerDue      = "worker-due"      // version that its worker has to become, also if it runs that with other options
	WorkerProcess  = "worker-process"  // names the process of the worker: when it was started, in seconds
	WorkerSettings = "worker-settings" // digest of the options with which its worker runs
	WorkersBegan   = "workers-began"   // "WORKER=SECONDS": when the processes of RunningWorkers began
	MissingWorkers = "missing-workers" // that its web server has not listed for long
	// MayLand are workers that its web server waits for while they land, or None. A unit that
	// knows no turns does not set it.
	MayLand = "may-land"
	// WorkerPause is how far a unit is whose worker is to stay out: Pausing or Paused.
	WorkerPause = "worker-pause"
	// LandedWorkers have landed, says its web server, or have no builds any more: each as in
	// WorkersBegan.
	LandedWorkers = "landed-workers"
)

// PeersEndpoint is the name of the peer relation.
const PeersEndpoint = "peers"

// None is an empty list: settings have no empty values.
const None = "none"

// Values of WorkerPause.
const (
	Pausing = "pausing" // its worker ends with its builds
	Paused  = "paused"
)

// Newest is the ConfigVersion of an empty option: settings have no empty values.
const Newest = "newest"

// Handled names the setting with a unit's last UpgradeRequest that was heard.
func Handled(unit string) string { return "handled-" + strings.ReplaceAll(unit, "/", "-") }

// Peers is the peer relation as one unit sees it.
type Peers struct {
	App   map[string]string
	Self  map[string]string
	Units map[string]map[string]string // the other units; without settings where this unit has no use for them
}

// ReleaseContents returns the digests of Contents by version.
func (p Peers) ReleaseContents() map[string]string {
	contents := map[string]string{}
	for _, entry := range strings.Fields(p.App[Contents]) {
		if version, digest, ok := strings.Cut(entry, "="); ok {
			contents[version] = digest
		}
	}
	return contents
}

// Has tells whether a unit belongs to the application. Own is the name of this unit.
func (p Peers) Has(unit, own string) bool {
	_, other := p.Units[unit]
	return unit == own || other
}

// WorkerKeys are the public keys of all units, sorted: each may register.
func (p Peers) WorkerKeys(own string) []string {
	keys := []string{own}
	for _, settings := range p.Units {
		if key := settings[WorkerPublicKey]; key != "" {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return slices.Compact(keys)
}

// Request is an upgrade that an action has asked for.
type Request struct {
	Unit    string
	Value   string // of the setting, which tells it from earlier ones
	Version string
}

// Requests are those that were not heard yet, by the unit's name. Own is the name of
// this unit.
func (p Peers) Requests(own string) []Request {
	all := map[string]map[string]string{own: p.Self}
	for unit, settings := range p.Units {
		all[unit] = settings
	}
	var requests []Request
	for unit, settings := range all {
		value := settings[UpgradeRequest]
		_, version, ok := strings.Cut(value, " ")
		if ok && value != p.App[Handled(unit)] {
			requests = append(requests, Request{unit, value, version})
		}
	}
	slices.SortFunc(requests, func(a, b Request) int { return strings.Compare(a.Unit, b.Unit) })
	return requests
}

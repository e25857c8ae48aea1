// Package concourse knows how Concourse is run on a unit: its keys, the
// environment of its processes, the systemd units they run in, and how to tell
// whether they answer.
package concourse

import (
	"path/filepath"
	"strings"
)

const (
	// ServerUnit is the systemd unit of `concourse web`.
	ServerUnit = "concourse-server.service"
	// WorkerUnit is the systemd unit of `concourse worker`.
	WorkerUnit = "concourse-worker.service"
	// MigrationUnit is the systemd unit of `concourse migrate`. It goes on whatever becomes of
	// who has started it.
	MigrationUnit = "concourse-migration.service"
	// User runs the web server. The worker needs root for its containers.
	User = "concourse"
	// TSAPort is where workers register.
	TSAPort = 2222
	// TSAName is the TSA's name on every machine: a web server that moves changes what it
	// means, and restarts no worker. The domain is one for private use (ICANN, 2024).
	TSAName = "tsa.concourse-ci.internal"
	// WorkerHealthPort answers 200 while the worker's runtime and volume
	// manager do. It is bound to the loopback address.
	WorkerHealthPort = 8888
)

// WorkerName is the name under which a unit's worker registers, and that of
// its directory on the volume.
func WorkerName(unit string) string { return strings.ReplaceAll(unit, "/", "-") }

// Paths are the places of one unit's files. Nothing below State is ever on a
// shared volume.
type Paths struct {
	Volume string // releases and worker state, possibly shared
	State  string // keys, environment files and the charm's own notes
}

// Release is the directory of an installed version.
func (p Paths) Release(version string) string {
	return filepath.Join(p.Volume, "releases", version)
}

// VersionOf returns the version of the release that a program is part of; empty for any
// other program. What runs keeps its files, though another download of its version may
// have taken their place: releases are store/VERSION.GENERATION, or releases/VERSION
// itself on a volume of the first layout.
func VersionOf(executable string) string {
	release, ok := strings.CutSuffix(strings.TrimSuffix(executable, " (deleted)"), "/bin/concourse")
	name := filepath.Base(release)
	switch dot := strings.LastIndexByte(name, '.'); {
	case !ok:
	case filepath.Base(filepath.Dir(release)) == "releases":
		return name
	case filepath.Base(filepath.Dir(release)) == "store" && dot > 0:
		return name[:dot]
	}
	return ""
}

// WebDir holds what the web server reads; it belongs to User.
func (p Paths) WebDir() string { return filepath.Join(p.State, "web") }

// WorkerDir holds what the worker reads; it belongs to root.
func (p Paths) WorkerDir() string { return filepath.Join(p.State, "worker") }

// HostKey is the private key by which workers know the web server.
func (p Paths) HostKey() string { return filepath.Join(p.WebDir(), "tsa_host_key") }

// SigningKey signs the sessions of users.
func (p Paths) SigningKey() string { return filepath.Join(p.WebDir(), "session_signing_key") }

// AuthorizedKeys lists the workers that may register.
func (p Paths) AuthorizedKeys() string { return filepath.Join(p.WebDir(), "authorized_worker_keys") }

// WorkerKey is this unit's private key; it never leaves the unit.
func (p Paths) WorkerKey() string { return filepath.Join(p.WorkerDir(), "worker_key") }

// HostPublicKey is what the worker expects the web server to show.
func (p Paths) HostPublicKey() string { return filepath.Join(p.WorkerDir(), "tsa_host_key.pub") }

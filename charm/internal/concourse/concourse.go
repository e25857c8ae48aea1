// Package concourse knows how Concourse is run on a unit: its keys, the
// environment of its processes, the systemd units they run in, and how to tell
// whether they answer.
package concourse

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

const (
	// ServerUnit is the systemd unit of `concourse web`.
	ServerUnit = "concourse-server.service"
	// WorkerUnit is the systemd unit of `concourse worker`.
	WorkerUnit = "concourse-worker.service"
	// User runs the web server. The worker needs root for its containers.
	User = "concourse"
	// TSAPort is where workers register.
	TSAPort = 2222
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

// Database is where the web server keeps everything.
type Database struct {
	Host, Port     string
	Name           string
	User, Password string
	TLS            bool
}

// Web describes a web server.
type Web struct {
	Version       string
	Port          int
	Address       string // of this unit, reachable by the other units
	ExternalURL   string // empty derives it from Address and Port
	AdminUser     string
	AdminPassword string
	LogLevel      string
	Database      Database
}

// Worker describes a worker.
type Worker struct {
	Version  string
	Name     string
	WorkDir  string
	TSAHost  string // host:port
	LogLevel string
}

// Service is a systemd unit with the environment file that belongs to it.
type Service struct {
	Unit        string // name, such as ServerUnit
	Definition  string // the unit file
	Environment string // content of EnvironmentFile, secrets included
	EnvPath     string
}

// Digest changes whenever the service has to be restarted to be as described.
func (s Service) Digest() string {
	sum := sha256.Sum256([]byte(s.Definition + "\x00" + s.Environment))
	return hex.EncodeToString(sum[:])
}

// Service renders the unit that runs the web server.
func (w Web) Service(p Paths) Service {
	external := w.ExternalURL
	if external == "" {
		external = fmt.Sprintf("http://%s:%d", w.Address, w.Port)
	}
	sslmode := "disable"
	if w.Database.TLS {
		sslmode = "require"
	}
	env := map[string]string{
		"CONCOURSE_BIND_PORT":            strconv.Itoa(w.Port),
		"CONCOURSE_EXTERNAL_URL":         external,
		"CONCOURSE_PEER_ADDRESS":         w.Address,
		"CONCOURSE_TSA_BIND_PORT":        strconv.Itoa(TSAPort),
		"CONCOURSE_TSA_HOST_KEY":         p.HostKey(),
		"CONCOURSE_TSA_AUTHORIZED_KEYS":  p.AuthorizedKeys(),
		"CONCOURSE_SESSION_SIGNING_KEY":  p.SigningKey(),
		"CONCOURSE_ADD_LOCAL_USER":       w.AdminUser + ":" + w.AdminPassword,
		"CONCOURSE_MAIN_TEAM_LOCAL_USER": w.AdminUser,
		"CONCOURSE_LOG_LEVEL":            w.LogLevel,
		"CONCOURSE_TSA_LOG_LEVEL":        w.LogLevel,
		"CONCOURSE_POSTGRES_HOST":        w.Database.Host,
		"CONCOURSE_POSTGRES_PORT":        w.Database.Port,
		"CONCOURSE_POSTGRES_DATABASE":    w.Database.Name,
		"CONCOURSE_POSTGRES_USER":        w.Database.User,
		"CONCOURSE_POSTGRES_PASSWORD":    w.Database.Password,
		"CONCOURSE_POSTGRES_SSLMODE":     sslmode,
	}
	capabilities := ""
	if w.Port < 1024 {
		capabilities = "AmbientCapabilities=CAP_NET_BIND_SERVICE\n"
	}
	return render(p, ServerUnit, "Concourse CI web server", w.Version, "web", env,
		"User="+User+"\nGroup="+User+"\n"+capabilities+
			// Concourse reads the authorized worker keys again on SIGHUP.
			"ExecReload=/bin/kill -HUP $MAINPID\nTimeoutStopSec=30\n")
}

// Service renders the unit that runs the worker.
func (w Worker) Service(p Paths) Service {
	bin := filepath.Join(p.Release(w.Version), "bin")
	env := map[string]string{
		"CONCOURSE_NAME":                       w.Name,
		"CONCOURSE_WORK_DIR":                   w.WorkDir,
		"CONCOURSE_TSA_HOST":                   w.TSAHost,
		"CONCOURSE_TSA_PUBLIC_KEY":             p.HostPublicKey(),
		"CONCOURSE_TSA_WORKER_PRIVATE_KEY":     p.WorkerKey(),
		"CONCOURSE_RESOURCE_TYPES":             filepath.Join(p.Release(w.Version), "resource-types"),
		"CONCOURSE_RUNTIME":                    "containerd",
		"CONCOURSE_CONTAINERD_BIN":             filepath.Join(bin, "containerd"),
		"CONCOURSE_CONTAINERD_INIT_BIN":        filepath.Join(bin, "init"),
		"CONCOURSE_CONTAINERD_CNI_PLUGINS_DIR": bin,
		// A system container may mount neither a btrfs subvolume nor an overlay
		// with trusted attributes; plain copies work on every file system.
		"CONCOURSE_BAGGAGECLAIM_DRIVER":   "naive",
		"CONCOURSE_HEALTHCHECK_BIND_IP":   "127.0.0.1",
		"CONCOURSE_HEALTHCHECK_BIND_PORT": strconv.Itoa(WorkerHealthPort),
		"CONCOURSE_LOG_LEVEL":             w.LogLevel,
	}
	return render(p, WorkerUnit, "Concourse CI worker", w.Version, "worker", env,
		"Delegate=yes\nTasksMax=infinity\nTimeoutStopSec=60\n")
}

// render builds the unit from what both services share. The executable is on
// the volume: a service whose volume is away cannot start and so cannot write
// into the directory underneath; systemd tries until the volume is back.
func render(p Paths, unit, description, version, command string, env map[string]string, extra string) Service {
	release := p.Release(version)
	envPath := filepath.Join(p.State, strings.TrimSuffix(unit, ".service")+".env")
	return Service{
		Unit:        unit,
		EnvPath:     envPath,
		Environment: environment(env),
		Definition: "[Unit]\n" +
			"Description=" + description + " " + version + "\n" +
			"After=network-online.target\nWants=network-online.target\nStartLimitIntervalSec=0\n\n" +
			"[Service]\n" +
			"EnvironmentFile=" + envPath + "\n" +
			"Environment=PATH=" + release + "/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n" +
			"ExecStart=" + release + "/bin/concourse " + command + "\n" +
			"Restart=on-failure\nRestartSec=5\nLimitNOFILE=1048576\n" + extra + "\n" +
			"[Install]\nWantedBy=multi-user.target\n",
	}
}

// environment renders what systemd reads with EnvironmentFile=: double quotes
// keep everything but the four characters escaped here.
func environment(env map[string]string) string {
	quote := strings.NewReplacer(`\`, `\\`, `"`, `\"`, "`", "\\`", `$`, `\$`)
	lines := make([]string, 0, len(env))
	for name, value := range env {
		lines = append(lines, name+`="`+quote.Replace(value)+"\"\n")
	}
	slices.Sort(lines)
	return strings.Join(lines, "")
}

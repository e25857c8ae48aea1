package concourse

import (
	"path/filepath"
	"strconv"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/options"
)

// Worker describes a worker.
type Worker struct {
	Name          string `json:"name"`
	WorkDir       string `json:"work_dir,omitempty"`
	LocalDir      string `json:"local_dir,omitempty"` // of the machine, below which WorkDir is to be; empty for the volume
	TSAHost       string `json:"tsa_host"`            // host:port
	HostPublicKey string `json:"host_public_key"`     // of the web server, an authorized_keys line
	LogLevel      string `json:"log_level"`
	Options       string `json:"options,omitempty"` // variables, a line NAME=VALUE each
	// What the machine has for the containers, which who describes the worker does not know:
	// name servers, with commas between them, and the directory of the certificates that
	// the containers of resources trust. Empty leaves both to Concourse.
	NameServers  string `json:"name_servers,omitempty"`
	Certificates string `json:"certificates,omitempty"`
}

// dnsProxy has the worker answer its containers itself.
const dnsProxy = "CONCOURSE_CONTAINERD_DNS_PROXY_ENABLE"

// Service is the service that runs the worker from a version.
func (w Worker) Service(p Paths, version string) Service {
	bin := filepath.Join(p.Release(version), "bin")
	env := map[string]string{
		"CONCOURSE_NAME":                       w.Name,
		"CONCOURSE_WORK_DIR":                   w.WorkDir,
		"CONCOURSE_TSA_HOST":                   w.TSAHost,
		"CONCOURSE_TSA_PUBLIC_KEY":             p.HostPublicKey(),
		"CONCOURSE_TSA_WORKER_PRIVATE_KEY":     p.WorkerKey(),
		"CONCOURSE_RESOURCE_TYPES":             filepath.Join(p.Release(version), "resource-types"),
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
	if given, _ := options.Known(w.Options, version); w.NameServers != "" && given[dnsProxy] == "" {
		env["CONCOURSE_CONTAINERD_DNS_SERVER"] = w.NameServers // an option prevails
	}
	if w.Certificates != "" {
		env["CONCOURSE_CERTS_DIR"] = w.Certificates
	}
	return newService(p, WorkerUnit, "Concourse CI worker", version, "worker", env, w.Options,
		"Delegate=yes\nTasksMax=infinity\nTimeoutStopSec=60\n",
		File{Path: p.HostPublicKey(), Content: w.HostPublicKey + "\n"})
}

// Identity changes whenever the worker has to be restarted for what it is told here,
// whichever version it runs, wherever on the volume it keeps its state, and whatever its
// machine has.
func (w Worker) Identity() string {
	w.WorkDir, w.NameServers, w.Certificates = w.LocalDir, "", ""
	return w.Service(Paths{}, "").RestartDigest()
}

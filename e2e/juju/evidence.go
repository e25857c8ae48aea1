package juju

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	lxd "github.com/canonical/lxd/client"
	"github.com/canonical/lxd/shared/api"
	"golang.org/x/sync/errgroup"
)

// machineEvidence is what is asked of every machine, by file name: shell commands whose
// complaints about what is not there belong to the evidence.
var machineEvidence = map[string]string{
	"journal.log":    "journalctl --boot --no-pager --lines=3000",
	"services.txt":   "systemctl --no-pager --full status concourse-server.service concourse-worker.service concourse-ci-supervisor.service",
	"juju.log":       "tail -n 3000 /var/log/juju/unit-*.log",
	"agent.log":      "tail -n 3000 /var/log/juju/machine-*.log",
	"cloud-init.log": "cloud-init status --long; tail -n 500 /var/log/cloud-init-output.log",
	"volume.txt":     "findmnt --target /var/lib/concourse; df -h /var/lib/concourse; find /var/lib/concourse -maxdepth 4 -not -path '/var/lib/concourse/worker/*/*' -ls",
	"markers.txt":    "cd /var/lib/concourse && tail -n +1 .installed_version .install.lock .download_in_progress volume.json claims/*/* activations/* failures/*",
	"private.txt":    "find /var/lib/concourse-ci-machine -ls",
	"processes.txt":  "ps -ef",
}

const (
	// askPatience is how long each question to Juju and LXD may take, and each to a
	// machine: one that hangs must not cost the evidence of the others.
	askPatience = 20 * time.Second
	// logPatience is how long the model's log may take.
	logPatience = time.Minute
	// machinesAtOnce is how many machines are asked at the same time.
	machinesAtOnce = 4
)

// evidence is a directory that is filled. Its methods may be called concurrently.
type evidence struct {
	dir     string
	secrets *redactor

	mu       sync.Mutex
	problems []error
}

// save writes a file without any secret. What went wrong is at its end.
func (e *evidence) save(name string, content []byte, err error) {
	var problems []error
	if err != nil {
		problems = append(problems, fmt.Errorf("%s: %w", name, err))
		content = fmt.Appendf(content, "\n%v\n", err)
	}
	path := filepath.Join(e.dir, name)
	err = os.MkdirAll(filepath.Dir(path), 0o755)
	if err == nil {
		err = os.WriteFile(path, e.secrets.redact(content), 0o644)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.problems = append(e.problems, append(problems, err)...)
}

func (e *evidence) saveJSON(name string, value any, err error) {
	raw, invalid := json.MarshalIndent(value, "", "  ")
	e.save(name, raw, errors.Join(err, invalid))
}

// Collect writes Juju's status and log, every machine's own logs and volume listing, and
// LXD's view. What cannot be had is named in the error; the rest is written nevertheless,
// also when Juju is gone. A machine's folder is named after its unit, or its container
// where Juju does not say which unit that is.
func (c *Cluster) Collect(ctx context.Context, dir string) error {
	e := &evidence{dir: dir, secrets: &c.secrets}
	c.collectFromJuju(ctx, e)
	c.collectFromMachines(ctx, e)
	c.collectFromLXD(ctx, e)
	return errors.Join(e.problems...)
}

func (c *Cluster) collectFromJuju(ctx context.Context, e *evidence) {
	asking, cancel := context.WithTimeout(ctx, askPatience)
	status, err := c.Status(asking)
	cancel()
	e.save("status.txt", []byte(status.String()+"\n"), err)
	e.saveJSON("status.json", status, err)

	asking, cancel = context.WithTimeout(ctx, logPatience)
	lines, err := c.DebugLog(asking)
	cancel()
	var log bytes.Buffer
	for _, l := range lines {
		fmt.Fprintf(&log, "%s %s %s %s %s\n", l.Time.UTC().Format("15:04:05.000"), l.Unit, l.Level, l.Module, l.Message)
	}
	e.save("debug-log.txt", log.Bytes(), err)
}

func (c *Cluster) collectFromMachines(ctx context.Context, e *evidence) {
	asking, cancel := context.WithTimeout(ctx, askPatience)
	defer cancel()
	instances, err := c.containers(asking)
	if err != nil {
		e.save("machines.txt", nil, err)
		return
	}
	var machines errgroup.Group
	machines.SetLimit(machinesAtOnce)
	for _, i := range instances {
		folder := c.folder(i.Name)
		if i.StatusCode != api.Running {
			e.save(filepath.Join(folder, "machine.txt"), []byte(i.Status+"\n"), nil)
			continue
		}
		machines.Go(func() error {
			for file, command := range machineEvidence {
				asking, cancel := context.WithTimeout(ctx, askPatience)
				out, err := c.lxd.exec(asking, i.Name, nil, "sh", "-c", "exec 2>&1; "+command+"; true")
				cancel()
				e.save(filepath.Join(folder, file), out, err)
			}
			return nil
		})
	}
	machines.Wait()
}

// folder is named after the unit that is in a container, as far as it was ever seen.
func (c *Cluster) folder(instance string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	for unit, name := range c.instanceNames {
		if name == instance {
			return strings.ReplaceAll(unit, "/", "-")
		}
	}
	return instance
}

func (c *Cluster) collectFromLXD(ctx context.Context, e *evidence) {
	asking, cancel := context.WithTimeout(ctx, askPatience)
	defer cancel()
	instances, err := askLXD(asking, c.lxd, func(client lxd.InstanceServer) ([]api.InstanceFull, error) {
		return client.GetInstancesFull(api.InstanceTypeAny)
	})
	own := []api.InstanceFull{}
	for _, i := range instances {
		if c.modelUUID == "" || !strings.HasPrefix(i.Name, containerPrefix(c.modelUUID)) {
			continue
		}
		// What cloud-init is told has the passwords of Juju's agents in it, packed.
		delete(i.Config, "user.user-data")
		delete(i.Config, "cloud-init.user-data")
		delete(i.ExpandedConfig, "user.user-data")
		delete(i.ExpandedConfig, "cloud-init.user-data")
		own = append(own, i)
	}
	e.saveJSON("lxd-instances.json", own, err)
	volumes, err := c.volumesOfModel(asking)
	e.saveJSON("lxd-volumes.json", volumes, err)
}

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
	"time"

	"github.com/canonical/lxd/shared/api"
)

// unitEvidence is what is asked of every unit's machine, by file name: shell
// commands whose complaints about what is not there belong to the evidence.
var unitEvidence = map[string]string{
	"journal.log":   "journalctl --boot --no-pager --lines=3000",
	"services.txt":  "systemctl --no-pager --full status concourse-server.service concourse-worker.service concourse-ci-watcher.service",
	"juju.log":      "tail -n 3000 /var/log/juju/unit-*.log",
	"volume.txt":    "findmnt --target /var/lib/concourse; df -h /var/lib/concourse; find /var/lib/concourse -maxdepth 4 -not -path '/var/lib/concourse/worker/*/*' -ls",
	"markers.txt":   "cd /var/lib/concourse && tail -n +1 .installed_version .install.lock .download_in_progress volume.json claims/*/* activations/* failures/*",
	"private.txt":   "find /var/lib/concourse-ci-machine -ls",
	"processes.txt": "ps -ef",
}

// Collect writes Juju's status and log, every unit's own logs and volume
// listing, and LXD's view. What cannot be had is named in the error; the rest
// is written nevertheless.
func (c *Cluster) Collect(ctx context.Context, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("cannot collect evidence: %w", err)
	}
	var problems []error
	save := func(name string, content []byte, err error) {
		if err != nil {
			problems = append(problems, fmt.Errorf("%s: %w", name, err))
			content = append(content, []byte("\n"+err.Error()+"\n")...)
		}
		path := filepath.Join(dir, name)
		err = os.MkdirAll(filepath.Dir(path), 0o755)
		if err == nil {
			err = os.WriteFile(path, content, 0o644)
		}
		if err != nil {
			problems = append(problems, err)
		}
	}

	status, err := c.Status(ctx)
	save("status.txt", []byte(status.String()+"\n"), err)
	raw, err := json.MarshalIndent(status, "", "  ")
	save("status.json", raw, err)

	logCtx, cancel := context.WithTimeout(ctx, time.Minute)
	lines, err := c.DebugLog(logCtx)
	cancel()
	var log bytes.Buffer
	for _, l := range lines {
		fmt.Fprintf(&log, "%s %s %s %s %s\n", l.Time.UTC().Format("15:04:05.000"), l.Unit, l.Level, l.Module, l.Message)
	}
	save("debug-log.txt", log.Bytes(), err)

	for app := range status.Apps {
		for _, u := range status.Units(app) {
			folder := strings.ReplaceAll(u.Name, "/", "-")
			for file, command := range unitEvidence {
				// One unit that hangs must not cost the evidence of the others.
				ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
				out, err := c.Exec(ctx, u.Name, "sh", "-c", "exec 2>&1; "+command+"; true")
				cancel()
				save(filepath.Join(folder, file), []byte(out), err)
			}
		}
	}

	instances, err := c.lxd.GetInstancesFull(api.InstanceTypeAny)
	own := instances[:0]
	for _, i := range instances {
		if strings.HasPrefix(i.Name, c.containerPrefix()) {
			own = append(own, i)
		}
	}
	raw, _ = json.MarshalIndent(own, "", "  ")
	save("lxd-instances.json", raw, err)
	volume, _, err := c.lxd.GetStoragePoolVolume(c.options.Pool, "custom", c.name)
	raw, _ = json.MarshalIndent(volume, "", "  ")
	save("lxd-volume.json", raw, err)
	return errors.Join(problems...)
}

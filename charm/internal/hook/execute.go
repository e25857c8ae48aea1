package hook

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/gruyaume/goops"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/concourse"
	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/reconcile"
	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator"
)

// notes are what the charm remembers of this unit from hook to hook.
type notes struct {
	VolumeID string            `json:"volume_id,omitempty"` // of the shared volume
	Running  string            `json:"running,omitempty"`
	Applied  map[string]string `json:"applied"`
	TSAHost  string            `json:"tsa_host,omitempty"` // where the worker registers
	Leaving  bool              `json:"leaving,omitempty"`
	Retire   bool              `json:"retire,omitempty"` // the worker that ran here before the web server did
}

func (c Charm) notesPath() string { return filepath.Join(c.Paths.State, "notes.json") }

func (c Charm) readNotes() (notes, error) {
	n := notes{}
	data, err := os.ReadFile(c.notesPath())
	if err == nil {
		err = json.Unmarshal(data, &n)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return n, fmt.Errorf("read notes of earlier hooks: %w", err)
	}
	if n.Applied == nil {
		n.Applied = map[string]string{}
	}
	return n, nil
}

func (c Charm) writeNotes(n notes) error {
	data, err := json.MarshalIndent(n, "", "\t")
	if err != nil {
		return fmt.Errorf("write notes: %w", err)
	}
	return concourse.WriteFile(c.notesPath(), string(data)+"\n", 0o600)
}

// execute takes the steps in order and notes each that succeeded, so that the
// next hook goes on where this one failed.
func (c Charm) execute(ctx context.Context, volume Volume, plan reconcile.Plan, n *notes) error {
	if plan.Want != nil && plan.Want.VolumeID != "" {
		n.VolumeID = plan.Want.VolumeID
	}
	var err error
	for _, step := range plan.Steps {
		if err = c.take(ctx, volume, plan, step, n); err != nil {
			break
		}
	}
	return errors.Join(err, c.writeNotes(*n))
}

func (c Charm) take(ctx context.Context, volume Volume, plan reconcile.Plan, step reconcile.Step, n *notes) error {
	switch step.Verb {
	case reconcile.Activate:
		ctx, cancel := context.WithTimeout(ctx, volumeLimit)
		defer cancel()
		_, err := volume.Activate(ctx, step.Version)
		if errors.Is(err, coordinator.ErrOvertaken) {
			// By the leader of another application. The watcher has seen it, too, and
			// the hook that it wakes decides anew.
			goops.LogInfof("Not activated: %v", err)
			return nil
		}
		return err
	case reconcile.Pin:
		ctx, cancel := context.WithTimeout(ctx, volumeLimit)
		defer cancel()
		if _, err := volume.Pin(ctx, step.Version); err != nil {
			return err
		}
		n.Running = step.Version
		return nil
	case reconcile.Restart:
		service := plan.Services[step.Unit]
		if err := c.writeFiles(ctx, plan, step.Unit); err != nil {
			return err
		}
		if err := concourse.WriteFile(service.EnvPath, service.Environment, 0o600); err != nil {
			return err
		}
		if _, err := c.System.Define(ctx, service.Unit, service.Definition); err != nil {
			return err
		}
		goops.LogInfof("Starting %s from Concourse v%s", step.Unit, step.Version)
		if err := c.System.Restart(ctx, step.Unit); err != nil {
			return err
		}
		n.Applied[step.Unit] = service.Digest()
		if step.Unit == concourse.WorkerUnit {
			n.TSAHost, n.Retire = plan.TSAHost, false
		}
	case reconcile.Reload:
		if err := c.writeFiles(ctx, plan, step.Unit); err != nil {
			return err
		}
		if err := c.System.Reload(ctx, step.Unit); err != nil {
			return err
		}
	case reconcile.Stop:
		if err := c.System.Remove(ctx, step.Unit); err != nil {
			return err
		}
		delete(n.Applied, step.Unit)
		if _, serves := plan.Services[concourse.ServerUnit]; serves && step.Unit == concourse.WorkerUnit {
			n.Retire = true
		}
	}
	if step.Unit == concourse.ServerUnit {
		n.Applied[reconcile.AuthorizedKeysApplied] = plan.AuthorizedKeys
	}
	return nil
}

// writeFiles writes what a service reads besides its environment.
func (c Charm) writeFiles(ctx context.Context, plan reconcile.Plan, unit string) error {
	if unit == concourse.WorkerUnit {
		return concourse.WriteFile(c.Paths.HostPublicKey(), plan.HostPublicKey, 0o600)
	}
	uid, gid, err := c.System.Account(ctx, concourse.User)
	if err != nil {
		return err
	}
	for path, content := range map[string]string{
		c.Paths.AuthorizedKeys(): plan.AuthorizedKeys,
		c.Paths.HostKey():        plan.Keys.HostKey,
		c.Paths.SigningKey():     plan.Keys.SigningKey,
	} {
		if err := concourse.WriteFile(path, content, 0o600); err != nil {
			return err
		}
		if err := chown(path, uid, gid); err != nil {
			return err
		}
	}
	return nil
}

package hook

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/gruyaume/goops"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/concourse"
	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/reconcile"
	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/relations"
	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/watcher"
)

// retireLimit bounds how long a hook waits for a web server to let a worker go.
const retireLimit = 20 * time.Second

// leave takes the unit out of the cluster for good. It runs at the first sign
// of departure, while the web server still knows this worker's key, and again
// in each later hook: every part of it may have been done before.
func (c Charm) leave(ctx context.Context, unit string, n notes) error {
	if _, err := os.Stat(c.Paths.State); err != nil {
		return nil // removed before it ever ran
	}
	if err := goops.SetUnitStatus(goops.StatusMaintenance, "Leaving the cluster"); err != nil {
		return err
	}
	if n.Applied[concourse.WorkerUnit] != "" && !n.Leaving {
		if err := c.retire(ctx, n.Running, unit, n.TSAHost); err != nil {
			goops.LogWarningf("Worker was not retired, the web server will do it: %v", err)
		}
	}
	n.Leaving = true
	if err := c.writeNotes(n); err != nil {
		return err
	}
	for _, service := range []string{watcher.Unit, concourse.WorkerUnit, concourse.ServerUnit} {
		if err := c.System.Remove(ctx, service); err != nil {
			return err
		}
		delete(n.Applied, service)
	}
	if err := c.writeNotes(n); err != nil {
		return err
	}
	if err := c.leaveVolume(ctx); err != nil {
		return err
	}
	if goops.ReadEnv().HookName != "remove" {
		return nil
	}
	if err := os.RemoveAll(c.Paths.State); err != nil {
		return fmt.Errorf("remove the unit's own files: %w", err)
	}
	return nil
}

// leaveLimit bounds how long a hook removes what a worker has left on the volume.
const leaveLimit = 5 * time.Minute

// leaveVolume removes this unit's directory and pin. A volume that is away, or
// hangs, must not keep a unit from being removed.
func (c Charm) leaveVolume(ctx context.Context) error {
	want, err := watcher.Files(c.Paths.State).Want()
	if err != nil || want.Unit == "" {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, leaveLimit)
	defer cancel()
	volume, err := c.Open(ctx, want.Root, want.Options(nil, nil))
	if err == nil {
		err = volume.Leave(ctx)
	}
	if err != nil {
		// What it leaves behind takes room, and does no harm.
		goops.LogWarningf("Left %s behind: %v", filepath.Join(want.Root, "worker", concourse.WorkerName(want.Unit)), err)
		return nil
	}
	return nil
}

// retirePeer takes a departing worker off the web server's list, also one
// whose machine is lost. The departing unit tries as well; whichever comes
// second finds nothing to do.
func (c Charm) retirePeer(ctx context.Context, d reconcile.Desired, version, peer string) {
	key := d.Peers.App[relations.TSAPublicKey]
	if version == "" || key == "" {
		return
	}
	err := concourse.WriteFile(c.Paths.HostPublicKey(), key+"\n", 0o600)
	if err == nil {
		err = c.retire(ctx, version, peer, fmt.Sprintf("%s:%d", d.Address, concourse.TSAPort))
	}
	if err != nil {
		goops.LogInfof("Worker of %s was not retired here: %v", peer, err)
	}
}

// retire asks the web server at host to forget a unit's worker. Any key that
// is authorized may ask for any worker.
func (c Charm) retire(ctx context.Context, version, unit, host string) error {
	ctx, cancel := context.WithTimeout(ctx, retireLimit)
	defer cancel()
	return c.System.Execute(ctx, filepath.Join(c.Paths.Release(version), "bin", "concourse"), "retire-worker",
		"--name="+concourse.WorkerName(unit), "--tsa-host="+host,
		"--tsa-public-key="+c.Paths.HostPublicKey(), "--tsa-worker-private-key="+c.Paths.WorkerKey())
}

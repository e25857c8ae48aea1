package supervisor

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/concourse"
)

// Install has the supervisor of this charm run. It runs from a copy of the program, so
// that a refresh of the charm replaces it when a hook says so and not under its feet.
func Install(ctx context.Context, system concourse.System, state, executable, unit string) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("install supervisor: %w", err)
		}
	}()
	source, err := os.Stat(executable)
	if err != nil {
		return err
	}
	path := filepath.Join(state, "bin", "supervisor")
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	installed, err := os.Stat(path)
	fresh := err == nil && installed.Size() == source.Size() && installed.ModTime().Equal(source.ModTime())
	if !fresh {
		program, err := os.ReadFile(executable)
		if err != nil {
			return err
		}
		if err := concourse.WriteFile(path, string(program), 0o700); err != nil {
			return err
		}
	}
	changed, err := system.Define(ctx, Unit, "[Unit]\n"+
		"Description=Makes this unit of Concourse CI what its charm wants\n"+
		"After=network-online.target\nWants=network-online.target\nStartLimitIntervalSec=0\n\n"+
		"[Service]\nExecStart="+path+" supervise "+unit+"\nRestart=always\nRestartSec=2\n\n"+
		"[Install]\nWantedBy=multi-user.target\n")
	if err != nil {
		return err
	}
	now, err := system.State(ctx, Unit)
	if err != nil {
		return err
	}
	if fresh && !changed && now.Running {
		return nil
	}
	if err := system.Remove(ctx, formerUnit); err != nil {
		return err
	}
	if err := system.StartAtBoot(ctx, Unit, true); err != nil {
		return err
	}
	if err := system.Restart(ctx, Unit); err != nil {
		return err
	}
	// Until it has the time of its source, the next hook begins anew.
	return os.Chtimes(path, source.ModTime(), source.ModTime())
}

// Remove stops the supervisor and leaves none of its files. Services that it could not
// stop in time go, too.
func Remove(ctx context.Context, system concourse.System, state, hosts string) error {
	for _, unit := range []string{Unit, concourse.WorkerUnit, concourse.ServerUnit, concourse.MigrationUnit} {
		if err := system.Remove(ctx, unit); err != nil {
			return fmt.Errorf("remove supervisor: %w", err)
		}
	}
	if err := writeHosts(hosts, ""); err != nil {
		return err
	}
	if err := os.RemoveAll(state); err != nil {
		return fmt.Errorf("remove the unit's own files: %w", err)
	}
	return nil
}

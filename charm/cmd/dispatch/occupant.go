package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/concourse"
	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/supervisor"
)

// A machine has one unit of this charm: two would have the same state directory and the
// same services. The first one to come writes its name into occupantFile. Juju runs one
// hook at a time on a machine.
const occupantFile = "unit"

// otherUnit returns the unit that has this machine, if another one does. What is left of
// a unit that Juju has removed from the machine goes.
func (c charm) otherUnit(ctx context.Context, own string) (string, error) {
	data, err := os.ReadFile(filepath.Join(c.paths.State, occupantFile))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("find the unit of this machine: %w", err)
	}
	spec, err := c.files().Spec() // of a charm that wrote no such file
	if err != nil {
		return "", err
	}
	other := cmp.Or(strings.TrimSpace(string(data)), spec.Unit)
	if other == "" || other == own {
		return "", nil
	}
	_, err = os.Stat(filepath.Join(c.agents, "unit-"+concourse.WorkerName(other)))
	if errors.Is(err, fs.ErrNotExist) {
		return "", supervisor.Remove(ctx, c.system, c.paths.State, c.hosts)
	}
	return other, err
}

// occupy is for a unit that has the machine.
func (c charm) occupy(own string) error {
	if err := os.Mkdir(c.paths.State, 0o700); err != nil && !os.IsExist(err) {
		return fmt.Errorf("make state directory: %w", err)
	}
	path := filepath.Join(c.paths.State, occupantFile)
	if _, err := os.Stat(path); err == nil {
		return nil // its name was read before
	}
	return concourse.WriteFile(path, own+"\n", 0o600)
}

package juju

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/cluster"
)

// machine is a unit's container.
type machine struct {
	cluster *Cluster
	unit    string
}

var _ cluster.Machine = (*machine)(nil)

// Machine is the container that a unit is in.
func (c *Cluster) Machine(unit string) cluster.Machine { return &machine{c, unit} }

// Unit is whose machine it is.
func (m *machine) Unit() string { return m.unit }

// Exec runs a command in the unit's container. It is killed when ctx ends.
func (m *machine) Exec(ctx context.Context, argv ...string) (string, error) {
	instance, err := m.cluster.instance(ctx, m.unit)
	if err != nil {
		return "", err
	}
	out, err := m.cluster.lxd.exec(ctx, instance, nil, argv...)
	if err != nil {
		return string(out), fmt.Errorf("cannot run %q on %s: %w", argv, m.unit, err)
	}
	return string(out), nil
}

// Run runs a program of this host in the unit's container. It is killed when ctx ends.
// The output is also that of a program which failed; what it complained about is in
// the error.
func (m *machine) Run(ctx context.Context, program string, args ...string) ([]byte, error) {
	instance, err := m.cluster.instance(ctx, m.unit)
	if err != nil {
		return nil, err
	}
	out, err := m.cluster.runProgram(ctx, instance, program, args...)
	if err != nil {
		return out, fmt.Errorf("cannot run %s on %s: %w", filepath.Base(program), m.unit, err)
	}
	return out, nil
}

func (c *Cluster) runProgram(ctx context.Context, instance, program string, args ...string) ([]byte, error) {
	sum, err := c.programs.sum(program)
	if err != nil {
		return nil, err
	}
	// What is there does not outlive the machine's next boot, so that it is asked for
	// each time.
	path := pushedPath(program, sum)
	_, err = c.lxd.exec(ctx, instance, nil, "test", "-x", path)
	if failed := (*exitError)(nil); errors.As(err, &failed) {
		err = c.pushProgram(ctx, instance, program, sum)
	}
	if err != nil {
		return nil, err
	}
	return c.lxd.exec(ctx, instance, nil, append([]string{path}, args...)...)
}

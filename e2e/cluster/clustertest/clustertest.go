// Package clustertest has a cluster for tests of what uses clusters. It has no machines:
// it answers what the test says, and writes down what it is asked for.
package clustertest

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/cluster"
)

// Cluster is a cluster.Cluster. Its fields are set before it is used.
type Cluster struct {
	// Now is what Status answers; nil is an empty status.
	Now func() (cluster.Status, error)
	// Log is what DebugLog answers.
	Log []cluster.LogLine
	// Results are what actions return, by the action's name.
	Results map[string]map[string]string
	// Evidence is called by Collect, if it is set.
	Evidence func(ctx context.Context, dir string) error

	mu    sync.Mutex
	calls []string
}

var _ cluster.Cluster = (*Cluster)(nil)

// Calls returns what the cluster was asked for, one line a call.
func (c *Cluster) Calls() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.calls)
}

func (c *Cluster) call(words ...any) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.calls = append(c.calls, strings.TrimSpace(fmt.Sprintln(words...)))
	return nil
}

func (c *Cluster) Name() string { return "test" }

func (c *Cluster) Deploy(_ context.Context, app cluster.App) error {
	if _, ok := app.Volume.(*Volume); app.Volume != nil && !ok {
		return fmt.Errorf("cannot deploy %s: its volume is a %T, which this cluster did not make", app.Name, app.Volume)
	}
	return c.call("deploy", app.Name)
}

func (c *Cluster) AddUnits(_ context.Context, app string, n int) ([]string, error) {
	return nil, c.call("add", n, "to", app)
}

func (c *Cluster) AddUnitWithStorage(_ context.Context, app, storage string) (string, error) {
	return "", c.call("add a unit with", storage, "to", app)
}

func (c *Cluster) Storage(_ context.Context, unit string) (cluster.Storage, error) {
	return cluster.Storage{Volume: &Volume{c}, ID: "data/0"}, c.call("storage of", unit)
}

func (c *Cluster) Shell(_ context.Context, script string, _ map[string]string, _ func(string)) error {
	return c.call("shell", script)
}

func (c *Cluster) RemoveStorage(_ context.Context, id string) error {
	return c.call("remove storage", id)
}

func (c *Cluster) RemoveUnit(_ context.Context, unit string) error { return c.call("remove", unit) }

func (c *Cluster) RemoveLostUnit(_ context.Context, unit string) error {
	return c.call("remove lost", unit)
}
func (c *Cluster) RemoveApp(_ context.Context, app string) error { return c.call("remove", app) }

func (c *Cluster) Refresh(_ context.Context, app, charm string) error {
	return c.call("refresh", app, charm)
}

func (c *Cluster) Configure(_ context.Context, app string, options map[string]string) error {
	return c.call("configure", app, slices.Sorted(maps.Keys(options)))
}

func (c *Cluster) Integrate(_ context.Context, a, b string) error { return c.call("integrate", a, b) }
func (c *Cluster) Disintegrate(_ context.Context, a, b string) error {
	return c.call("disintegrate", a, b)
}
func (c *Cluster) Resolve(_ context.Context, unit string) error { return c.call("resolve", unit) }

func (c *Cluster) RunAction(_ context.Context, unit, action string, _ map[string]any) (map[string]string, error) {
	return c.Results[action], c.call("run", action, "on", unit)
}

func (c *Cluster) Machine(unit string) cluster.Machine { return machine{c, unit} }

func (c *Cluster) NewVolume(_ context.Context, size string) (cluster.Volume, error) {
	return &Volume{c}, c.call("new volume", size)
}

func (c *Cluster) Status(ctx context.Context) (cluster.Status, error) {
	if ctx.Err() != nil {
		return cluster.Status{}, context.Cause(ctx)
	}
	if c.Now == nil {
		return cluster.Status{}, nil
	}
	return c.Now()
}

func (c *Cluster) DebugLog(context.Context) ([]cluster.LogLine, error) { return c.Log, nil }

func (c *Cluster) Collect(ctx context.Context, dir string) error {
	if c.Evidence != nil {
		if err := c.Evidence(ctx, dir); err != nil {
			return err
		}
	}
	return c.call("collect")
}

func (c *Cluster) Destroy(context.Context) error { return c.call("destroy") }

// fault is one that does nothing but be written down.
func (c *Cluster) fault(healed bool, unit, name string) cluster.Fault {
	f := cluster.Fault{
		Name:   name,
		Inject: func(context.Context) error { return c.call("inject", name) },
	}
	if unit != "" {
		f.Units = []string{unit}
	}
	if healed {
		f.Heal = func(context.Context) error { return c.call("heal", name) }
	}
	return f
}

type machine struct {
	c    *Cluster
	unit string
}

func (m machine) Unit() string { return m.unit }

func (m machine) Run(_ context.Context, program string, args ...string) ([]byte, error) {
	return nil, m.c.call("run", program, args, "on", m.unit)
}

func (m machine) Exec(_ context.Context, argv ...string) (string, error) {
	return "", m.c.call("exec", argv, "on", m.unit)
}

func (m machine) Kill(service string) cluster.Fault {
	return m.c.fault(false, m.unit, service+" of "+m.unit+" killed")
}

func (m machine) Stop() cluster.Fault {
	return m.c.fault(true, m.unit, "machine of "+m.unit+" stopped")
}
func (m machine) Freeze() cluster.Fault {
	return m.c.fault(true, m.unit, "machine of "+m.unit+" frozen")
}
func (m machine) CutOff() cluster.Fault {
	return m.c.fault(true, m.unit, "machine of "+m.unit+" cut off")
}
func (m machine) BlockPort(port int) cluster.Fault {
	return m.c.fault(true, m.unit, fmt.Sprintf("port %d kept from %s", port, m.unit))
}
func (m machine) LockTable(database, table string) cluster.Fault {
	return m.c.fault(true, m.unit, "table "+table+" of "+database+" on "+m.unit+" locked")
}
func (m machine) FreezeAgent() cluster.Fault {
	return m.c.fault(true, m.unit, "agent of "+m.unit+" frozen")
}
func (m machine) StopAgent() cluster.Fault {
	return m.c.fault(true, m.unit, "agent of "+m.unit+" stopped")
}

// Volume is a volume that a Cluster has made.
type Volume struct{ c *Cluster }

func (v *Volume) Name() string { return "volume" }

func (v *Volume) Attach(_ context.Context, unit string, how ...cluster.Attachment) error {
	return v.c.call("attach to", unit, how)
}

func (v *Volume) Detach(_ context.Context, unit string) error { return v.c.call("detach from", unit) }
func (v *Volume) Lost(unit string) cluster.Fault {
	return v.c.fault(true, unit, "volume of "+unit+" lost")
}
func (v *Volume) ReadOnly(unit string) cluster.Fault {
	return v.c.fault(true, unit, "volume of "+unit+" read-only")
}
func (v *Volume) Full(int64) cluster.Fault { return v.c.fault(true, "", "volume full") }

func (v *Volume) Change(_ context.Context, path string, _ func([]byte) []byte) error {
	return v.c.call("change", path)
}

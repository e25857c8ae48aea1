package record

import (
	"context"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/cluster"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/observation"
)

// Cluster returns the recorder's cluster, as scenarios use it: what is done to it, its
// machines and its volumes is recorded.
func (r *Recorder) Cluster() cluster.Cluster { return recorded{r.o.Cluster, r} }

// Mirror returns the recorder's mirror, as scenarios use it.
func (r *Recorder) Mirror() cluster.Mirror { return recordedMirror{r.o.Mirror, r} }

// Act records that the scenario does something by other means than its cluster and its
// mirror.
func (r *Recorder) Act(format string, args ...any) {
	act := observation.Act{Name: fmt.Sprintf(format, args...), Time: time.Now().UTC()}
	r.mu.Lock()
	r.record.Acts = append(r.record.Acts, act)
	r.mu.Unlock()
	r.o.T.Logf("%s", act.Name)
}

// recorded is a cluster whose acts are recorded. An act that fails is recorded as well:
// it may have had its effect.
type recorded struct {
	cluster.Cluster
	r *Recorder
}

func (c recorded) Deploy(ctx context.Context, app cluster.App) error {
	if v, ok := app.Volume.(recordedVolume); ok {
		app.Volume = v.Volume // The cluster knows only those that it has made.
	}
	c.r.Deploys(app)
	c.r.Act("deploy %s: %d units%s%s", app.Name, app.Units, settings(app.Config), settings(app.Storage))
	return c.Cluster.Deploy(ctx, app)
}

// Deploys takes note of an application whose machines are to be looked at, and that the
// scenario deploys by other means than its cluster. The first is the one that the record is
// about.
func (r *Recorder) Deploys(app cluster.App) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if slices.Contains(r.o.Others, app.Name) || slices.Contains(r.apps, app.Name) {
		return
	}
	if len(r.apps) == 0 {
		r.record.App = app.Name
		r.record.Shared = app.Config["shared-storage"] == "lxc"
	}
	r.apps = append(r.apps, app.Name)
}

func (c recorded) AddUnits(ctx context.Context, app string, n int) ([]string, error) {
	c.r.Act("add %d units to %s", n, app)
	return c.Cluster.AddUnits(ctx, app, n)
}

func (c recorded) AddUnitWithStorage(ctx context.Context, app, storage string) (string, error) {
	c.r.Act("add a unit with the storage %s to %s", storage, app)
	return c.Cluster.AddUnitWithStorage(ctx, app, storage)
}

func (c recorded) Storage(ctx context.Context, unit string) (cluster.Storage, error) {
	s, err := c.Cluster.Storage(ctx, unit)
	if err != nil {
		return s, err
	}
	s.Volume = recordedVolume{s.Volume, c.r}
	return s, nil
}

func (c recorded) RemoveStorage(ctx context.Context, id string) error {
	c.r.Act("remove the storage %s", id)
	return c.Cluster.RemoveStorage(ctx, id)
}

func (c recorded) RemoveUnit(ctx context.Context, unit string) error {
	c.r.Act("remove %s", unit)
	return c.Cluster.RemoveUnit(ctx, unit)
}

func (c recorded) RemoveLostUnit(ctx context.Context, unit string) error {
	c.r.Act("remove %s by force", unit)
	return c.Cluster.RemoveLostUnit(ctx, unit)
}

func (c recorded) RemoveApp(ctx context.Context, app string) error {
	c.r.Act("remove the application %s", app)
	return c.Cluster.RemoveApp(ctx, app)
}

func (c recorded) Refresh(ctx context.Context, app, charm string) error {
	c.r.Act("refresh %s", app)
	return c.Cluster.Refresh(ctx, app, charm)
}

func (c recorded) Shell(ctx context.Context, script string, variables map[string]string, line func(string)) error {
	c.r.Act("run a script")
	return c.Cluster.Shell(ctx, script, variables, line)
}

func (c recorded) Configure(ctx context.Context, app string, options map[string]string) error {
	c.r.Act("configure %s%s", app, settings(options))
	return c.Cluster.Configure(ctx, app, options)
}

func (c recorded) Integrate(ctx context.Context, a, b string) error {
	c.r.Act("relate %s with %s", a, b)
	return c.Cluster.Integrate(ctx, a, b)
}

func (c recorded) Disintegrate(ctx context.Context, a, b string) error {
	c.r.Act("take the relation of %s with %s away", a, b)
	return c.Cluster.Disintegrate(ctx, a, b)
}

func (c recorded) Resolve(ctx context.Context, unit string) error {
	c.r.Act("resolve %s", unit)
	return c.Cluster.Resolve(ctx, unit)
}

// RunAction records the action, and what of its results is secret.
func (c recorded) RunAction(ctx context.Context, unit, action string, params map[string]any) (map[string]string, error) {
	texts := map[string]string{}
	for name, value := range params {
		texts[name] = fmt.Sprint(value)
	}
	c.r.Act("run %s on %s%s", action, unit, settings(texts))
	results, err := c.Cluster.RunAction(ctx, unit, action, params)
	for name, value := range results {
		// Short ones are found everywhere.
		if secretName.MatchString(name) && len(value) >= 8 {
			c.r.Secret(action+": "+name, value)
		}
	}
	return results, err
}

func (c recorded) Machine(unit string) cluster.Machine {
	return recordedMachine{c.Cluster.Machine(unit), c.r}
}

func (c recorded) NewVolume(ctx context.Context, size string) (cluster.Volume, error) {
	v, err := c.Cluster.NewVolume(ctx, size)
	if err != nil {
		return nil, err
	}
	return recordedVolume{v, c.r}, nil
}

// recordedMirror is a mirror whose faults are acts.
type recordedMirror struct {
	cluster.Mirror
	r *Recorder
}

func (m recordedMirror) Break(version string, fault cluster.MirrorFault) {
	m.r.Act("break the mirror for %s: %s", version, fault)
	m.Mirror.Break(version, fault)
}

func (m recordedMirror) Repair(version string) {
	m.r.Act("repair the mirror for %s", version)
	m.Mirror.Repair(version)
}

// secretName matches names of options, parameters and results with secret values.
var secretName = regexp.MustCompile(`(?i)password|secret|token|credential|private|local-user`)

// settings lists names with their values, but for those that are secret.
func settings(values map[string]string) string {
	var list []string
	for _, name := range slices.Sorted(maps.Keys(values)) {
		value := values[name]
		if secretName.MatchString(name) {
			value = "…"
		}
		list = append(list, name+"="+value)
	}
	if len(list) == 0 {
		return ""
	}
	return ", " + strings.Join(list, " ")
}

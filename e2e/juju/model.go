package juju

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/juju/juju/api"
	"github.com/juju/juju/api/client/action"
	"github.com/juju/juju/api/client/application"
	"github.com/juju/juju/api/client/charms"
	"github.com/juju/juju/api/client/client"
	"github.com/juju/juju/api/client/modelmanager"
	apicommon "github.com/juju/juju/api/common"
	apicharm "github.com/juju/juju/api/common/charm"
	corebase "github.com/juju/juju/core/base"
	corecharm "github.com/juju/juju/core/charm"
	"github.com/juju/juju/rpc/params"
	"github.com/juju/loggo/v3"
	"github.com/juju/names/v6"
	"gopkg.in/yaml.v3"

	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/cluster"
)

// base is what the charms support and what the environment has an image of.
const base = "ubuntu@24.04"

// modelPatience is how long a controller may take to forget a destroyed model.
const modelPatience = 2 * time.Minute

// Deploy deploys a charm of Charmhub, or one that it uploads.
func (c *Cluster) Deploy(ctx context.Context, app cluster.App) error {
	conn, err := c.connection()
	if err != nil {
		return err
	}
	if name, ok := strings.CutPrefix(app.Charm, "ch:"); ok {
		err = deployFromCharmhub(ctx, conn, name, app)
	} else {
		err = deployFromFile(ctx, conn, app)
	}
	if err != nil {
		return err
	}
	if app.Shared {
		c.mu.Lock()
		c.shared[app.Name] = true
		c.mu.Unlock()
		for i := range app.Units {
			c.attachLater(fmt.Sprintf("%s/%d", app.Name, i))
		}
	}
	return nil
}

func deployFromCharmhub(ctx context.Context, conn api.Connection, charm string, app cluster.App) error {
	on, err := corebase.ParseBaseFromString(base)
	if err != nil {
		return fmt.Errorf("cannot deploy on %s: %w", base, err)
	}
	config, err := yaml.Marshal(map[string]map[string]string{app.Name: app.Config})
	if err != nil {
		return fmt.Errorf("cannot configure %s: %w", app.Name, err)
	}
	_, _, errs := application.NewClient(conn).DeployFromRepository(ctx, application.DeployFromRepositoryArg{
		CharmName:       charm,
		Channel:         &app.Channel,
		ApplicationName: app.Name,
		Base:            &on,
		NumUnits:        &app.Units,
		ConfigYAML:      string(config),
	})
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("cannot deploy %s from Charmhub's %s, channel %s (does the controller reach the internet?): %w", app.Name, charm, app.Channel, err)
	}
	return nil
}

func deployFromFile(ctx context.Context, conn api.Connection, app cluster.App) error {
	archive, url, err := corecharm.NewCharmAtPath(app.Charm)
	if err != nil {
		return fmt.Errorf("cannot read charm %s: %w", app.Charm, err)
	}
	uploader, err := charms.NewLocalCharmClient(conn)
	if err != nil {
		return fmt.Errorf("cannot upload charm %s: %w", app.Charm, err)
	}
	version, _ := conn.ServerVersion()
	url, err = uploader.AddLocalCharm(url, archive, false, version)
	if err != nil {
		return fmt.Errorf("cannot upload charm %s: %w", app.Charm, err)
	}
	on, err := corebase.ParseBaseFromString(base)
	if err != nil {
		return fmt.Errorf("cannot deploy on %s: %w", base, err)
	}
	origin := apicharm.Origin{
		Source:       apicharm.OriginLocal,
		Architecture: "amd64",
		Base:         on,
		Revision:     &url.Revision,
	}
	err = application.NewClient(conn).Deploy(ctx, application.DeployArgs{
		CharmID:         application.CharmID{URL: url.String(), Origin: origin},
		CharmOrigin:     origin,
		ApplicationName: app.Name,
		NumUnits:        app.Units,
		Config:          app.Config,
	})
	if err != nil {
		return fmt.Errorf("cannot deploy %s: %w", app.Name, err)
	}
	return nil
}

// AddUnits asks for more units, each on a new machine.
func (c *Cluster) AddUnits(ctx context.Context, app string, n int) ([]string, error) {
	conn, err := c.connection()
	if err != nil {
		return nil, err
	}
	units, err := application.NewClient(conn).AddUnits(ctx, application.AddUnitsParams{ApplicationName: app, NumUnits: n})
	if err != nil {
		return nil, fmt.Errorf("cannot add %d units to %s: %w", n, app, err)
	}
	c.mu.Lock()
	shared := c.shared[app]
	c.mu.Unlock()
	if shared {
		for _, unit := range units {
			c.attachLater(unit)
		}
	}
	return units, nil
}

// RemoveUnit asks Juju to remove a unit in the orderly way, its hooks included.
func (c *Cluster) RemoveUnit(ctx context.Context, unit string) error {
	conn, err := c.connection()
	if err != nil {
		return err
	}
	results, err := application.NewClient(conn).DestroyUnits(ctx, application.DestroyUnitsParams{Units: []string{unit}, DestroyStorage: true})
	if err == nil && len(results) == 1 && results[0].Error != nil {
		err = results[0].Error
	}
	if err != nil {
		return fmt.Errorf("cannot remove unit %s: %w", unit, err)
	}
	return nil
}

// Configure sets options of an application.
func (c *Cluster) Configure(ctx context.Context, app string, options map[string]string) error {
	conn, err := c.connection()
	if err != nil {
		return err
	}
	if err := application.NewClient(conn).SetConfig(ctx, app, "", options); err != nil {
		return fmt.Errorf("cannot configure %s: %w", app, err)
	}
	return nil
}

// Integrate relates two endpoints.
func (c *Cluster) Integrate(ctx context.Context, a, b string) error {
	conn, err := c.connection()
	if err != nil {
		return err
	}
	if _, err := application.NewClient(conn).AddRelation(ctx, []string{a, b}, nil); err != nil {
		return fmt.Errorf("cannot integrate %s with %s: %w", a, b, err)
	}
	return nil
}

// RunAction runs an action and waits until it has ended.
func (c *Cluster) RunAction(ctx context.Context, unit, name string, args map[string]any) (map[string]string, error) {
	conn, err := c.connection()
	if err != nil {
		return nil, err
	}
	actions := action.NewClient(conn)
	queued, err := actions.EnqueueOperation(ctx, []action.Action{{
		Receiver:   names.NewUnitTag(unit).String(),
		Name:       name,
		Parameters: args,
	}})
	if err != nil {
		return nil, fmt.Errorf("cannot run action %s on %s: %w", name, unit, err)
	}
	if len(queued.Actions) != 1 {
		return nil, fmt.Errorf("cannot run action %s on %s: %d tasks were queued", name, unit, len(queued.Actions))
	}
	if err := queued.Actions[0].Error; err != nil {
		return nil, fmt.Errorf("cannot run action %s on %s: %w", name, unit, err)
	}
	id := queued.Actions[0].Action.ID
	for {
		results, err := actions.Actions(ctx, []string{id})
		if err == nil && len(results) == 1 && results[0].Error != nil {
			err = results[0].Error
		}
		if err != nil {
			return nil, fmt.Errorf("cannot read the result of action %s on %s: %w", name, unit, err)
		}
		switch r := results[0]; r.Status {
		case params.ActionPending, params.ActionRunning, params.ActionAborting:
		case params.ActionCompleted:
			return flatten("", r.Output), nil
		default:
			return flatten("", r.Output), fmt.Errorf("%w: %s on %s: %s: %s", cluster.ErrAction, name, unit, r.Status, r.Message)
		}
		if err := sleep(ctx, 500*time.Millisecond); err != nil {
			return nil, fmt.Errorf("waiting for action %s on %s: %w", name, unit, err)
		}
	}
}

// flatten makes one level of an action's results, whose dotted keys Juju
// delivers as nested maps.
func flatten(prefix string, in map[string]any) map[string]string {
	out := map[string]string{}
	for k, v := range in {
		if nested, ok := v.(map[string]any); ok {
			maps.Copy(out, flatten(prefix+k+".", nested))
			continue
		}
		out[prefix+k] = fmt.Sprint(v)
	}
	return out
}

// Status reads the model's status. A unit whose volume could not be attached
// shows as a failed machine, so that waits end at once.
func (c *Cluster) Status(ctx context.Context) (cluster.Status, error) {
	conn, err := c.connection()
	if err != nil {
		return cluster.Status{}, err
	}
	full, err := client.NewClient(conn, nil).Status(ctx, nil)
	if err != nil {
		return cluster.Status{}, fmt.Errorf("cannot read status of model %s: %w", c.name, err)
	}
	s := typed(full)
	c.mu.Lock()
	defer c.mu.Unlock()
	for unit, err := range c.attachErrors {
		if u, ok := s.Unit(unit); ok {
			s.Machines[u.Machine] = cluster.MachineStatus{Instance: "error", Message: err.Error()}
		}
	}
	return s, nil
}

func typed(full *params.FullStatus) cluster.Status {
	s := cluster.Status{Apps: map[string]cluster.AppStatus{}, Machines: map[string]cluster.MachineStatus{}}
	for id, m := range full.Machines {
		s.Machines[id] = cluster.MachineStatus{
			Agent:    m.AgentStatus.Status,
			Instance: m.InstanceStatus.Status,
			// While an instance is made the text counts percents: noise for
			// who compares readings.
			Message: failureOnly(m.InstanceStatus),
		}
	}
	for name, app := range full.Applications {
		a := cluster.AppStatus{Workload: app.Status.Status, Message: app.Status.Info, Units: map[string]cluster.UnitStatus{}}
		for unit, u := range app.Units {
			status := cluster.UnitStatus{
				Name:     unit,
				Workload: u.WorkloadStatus.Status,
				Message:  u.WorkloadStatus.Info,
				Agent:    u.AgentStatus.Status,
				Leader:   u.Leader,
				Machine:  u.Machine,
				Instance: string(full.Machines[u.Machine].InstanceId),
				Address:  u.PublicAddress,
			}
			if u.WorkloadStatus.Since != nil {
				status.Since = *u.WorkloadStatus.Since
			}
			// Juju names an instance "pending" until the provider has made it.
			if status.Instance == "pending" {
				status.Instance = ""
			}
			a.Units[unit] = status
		}
		s.Apps[name] = a
	}
	return s
}

func failureOnly(s params.DetailedStatus) string {
	if strings.Contains(s.Status, "error") {
		return s.Info
	}
	return ""
}

// DebugLog replays the model's log. A line that Juju delivers more than once
// is returned once.
func (c *Cluster) DebugLog(ctx context.Context) ([]cluster.LogLine, error) {
	conn, err := c.connection()
	if err != nil {
		return nil, err
	}
	messages, err := apicommon.StreamDebugLog(ctx, conn, apicommon.DebugLogParams{
		Replay: true, NoTail: true, Level: loggo.INFO,
	})
	if err != nil {
		return nil, fmt.Errorf("cannot read the log of model %s: %w", c.name, err)
	}
	type identity struct {
		at            int64
		unit, message string
	}
	seen := map[identity]bool{}
	var lines []cluster.LogLine
	for {
		select {
		case <-ctx.Done():
			return lines, fmt.Errorf("reading the log of model %s: %w", c.name, context.Cause(ctx))
		case m, ok := <-messages:
			if !ok {
				return lines, nil
			}
			line := cluster.LogLine{Time: m.Timestamp, Unit: entityName(m.Entity), Level: m.Severity, Module: m.Module, Message: m.Message}
			id := identity{m.Timestamp.UnixNano(), line.Unit, m.Message}
			if !seen[id] {
				seen[id] = true
				lines = append(lines, line)
			}
		}
	}
}

func entityName(entity string) string {
	tag, err := names.ParseUnitTag(entity)
	if err != nil {
		return entity
	}
	return tag.Id()
}

func (c *Cluster) destroyModel(ctx context.Context) error {
	conn, _, _, err := c.connect(ctx, "")
	if err != nil {
		return err
	}
	defer conn.Close()
	yes, now := true, time.Duration(0)
	err = modelmanager.NewClient(conn).DestroyModel(ctx, names.NewModelTag(c.modelUUID), &yes, &yes, &now, nil)
	if err != nil && !params.IsCodeNotFound(err) && !params.IsCodeModelNotFound(err) {
		return fmt.Errorf("cannot destroy model %s: %w", c.name, err)
	}
	return nil
}

func (c *Cluster) awaitModelGone(ctx context.Context) error {
	conn, user, _, err := c.connect(ctx, "")
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, modelPatience)
	defer cancel()
	for {
		models, err := modelmanager.NewClient(conn).ListModels(ctx, user)
		if err != nil {
			return fmt.Errorf("cannot see whether model %s is gone: %w", c.name, err)
		}
		there := false
		for _, m := range models {
			there = there || m.UUID == c.modelUUID
		}
		if !there {
			return nil
		}
		if err := sleep(ctx, time.Second); err != nil {
			return fmt.Errorf("model %s is still being destroyed after %s; `juju models` shows when it is gone", c.name, modelPatience)
		}
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(d):
		return nil
	}
}

package juju

import (
	"context"
	"fmt"
	"strings"

	"github.com/juju/juju/api"
	"github.com/juju/juju/api/client/client"
	"github.com/juju/juju/rpc/params"

	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/cluster"
)

// Status reads the model's status. A unit whose volume could not be attached
// shows as a failed machine, so that waits end at once.
func (c *Cluster) Status(ctx context.Context) (cluster.Status, error) {
	full, err := ask(ctx, c, func(conn api.Connection) (*params.FullStatus, error) {
		return client.NewClient(conn, nil).Status(ctx, nil)
	})
	if err != nil {
		return cluster.Status{}, fmt.Errorf("cannot read status of model %s: %w", c.name, err)
	}
	s := typed(full)
	c.mu.Lock()
	defer c.mu.Unlock()
	for app := range s.Apps {
		for _, u := range s.Units(app) {
			if u.Instance != "" {
				c.instanceNames[u.Name] = u.Instance
			}
			if err := c.attachErrors[u.Name]; err != nil {
				s.Machines[u.Machine] = cluster.MachineStatus{Instance: "error", Message: err.Error()}
			}
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

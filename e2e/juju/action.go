package juju

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/juju/juju/api"
	"github.com/juju/juju/api/client/action"
	"github.com/juju/juju/rpc/params"
	"github.com/juju/names/v6"

	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/cluster"
)

// actionPatience is how long an action may take.
const actionPatience = 15 * time.Minute

// RunAction runs an action and waits until it has ended.
func (c *Cluster) RunAction(ctx context.Context, unit, name string, args map[string]any) (map[string]string, error) {
	id, err := ask(ctx, c, func(conn api.Connection) (string, error) {
		queued, err := action.NewClient(conn).EnqueueOperation(ctx, []action.Action{{
			Receiver:   names.NewUnitTag(unit).String(),
			Name:       name,
			Parameters: args,
		}})
		switch {
		case err != nil:
			return "", err
		case len(queued.Actions) != 1:
			return "", fmt.Errorf("%d tasks were queued", len(queued.Actions))
		case queued.Actions[0].Error != nil:
			return "", queued.Actions[0].Error
		}
		return queued.Actions[0].Action.ID, nil
	})
	if err != nil {
		return nil, fmt.Errorf("cannot run action %s on %s: %w", name, unit, err)
	}
	var r action.ActionResult
	err = cluster.Poll(ctx, fmt.Sprintf("action %s on %s", name, unit), 500*time.Millisecond, actionPatience, func(ctx context.Context) (bool, error) {
		var err error
		r, err = ask(ctx, c, func(conn api.Connection) (r action.ActionResult, err error) {
			results, err := action.NewClient(conn).Actions(ctx, []string{id})
			switch {
			case err != nil:
				return r, err
			case len(results) != 1:
				return r, errors.New("no such task")
			case results[0].Error != nil:
				return r, results[0].Error
			}
			return results[0], nil
		})
		running := r.Status == params.ActionPending || r.Status == params.ActionRunning || r.Status == params.ActionAborting
		return !running || err != nil, err
	})
	if err != nil {
		return nil, err
	}
	if r.Status != params.ActionCompleted {
		return flatten("", r.Output), fmt.Errorf("%w: %s on %s: %s: %s", cluster.ErrAction, name, unit, r.Status, r.Message)
	}
	return flatten("", r.Output), nil
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

package juju

import (
	"context"
	"fmt"

	"github.com/juju/juju/api"
	apicommon "github.com/juju/juju/api/common"
	"github.com/juju/loggo/v3"
	"github.com/juju/names/v6"

	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/cluster"
)

// DebugLog replays the model's log. A line that Juju delivers more than once
// is returned once. When ctx ends first, it returns what it has.
func (c *Cluster) DebugLog(ctx context.Context) ([]cluster.LogLine, error) {
	messages, err := ask(ctx, c, func(conn api.Connection) (<-chan apicommon.LogMessage, error) {
		return apicommon.StreamDebugLog(ctx, conn, apicommon.DebugLogParams{
			Replay: true, NoTail: true, Level: loggo.DEBUG,
		})
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
			// The stream's goroutine looks at the context between two lines only.
			go func() {
				for range messages {
				}
			}()
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

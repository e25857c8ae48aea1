package scenarios

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/sim"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/cluster"
)

func TestJudgeByLog(t *testing.T) {
	base := time.Unix(1000, 0)
	line := func(second int, unit, message string) cluster.LogLine {
		return cluster.LogLine{Time: base.Add(time.Duration(second) * time.Second), Unit: unit, Message: message}
	}
	hook := func(second int, unit, event string) sim.Record {
		begin := time.Duration(second) * time.Second
		return sim.Record{Unit: unit, Life: 1, Event: event, Begin: begin, End: begin + time.Second, OK: true}
	}
	history := []sim.Record{
		hook(10, "p/0", "config-changed"), hook(10, "p/1", "config-changed"),
		hook(20, "p/0", "update-status"), hook(40, "p/0", "config-changed"),
	}
	judgeByLog(history, base, []cluster.LogLine{
		line(1, "p/0", `unit "p/0" started`),
		line(12, "p/0", `hook "config-changed" (via hook dispatching script: dispatch) failed: context canceled`),
		line(15, "p/0", `unit "p/0" started`),
		line(22, "p/0", `hook "config-changed" (via hook dispatching script: dispatch) failed: context canceled`),
	})
	var oks []bool
	var lives []int
	for _, r := range history {
		oks, lives = append(oks, r.OK), append(lives, r.Life)
	}
	require.Equal(t, []bool{false, true, true, true}, oks, "only that hook, soon after it")
	require.Equal(t, []int{2, 1, 3, 3}, lives)
}

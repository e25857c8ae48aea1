package coordinator

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/stretchr/testify/require"

	past "github.com/concourse-ci-machine/concourse-ci-machine/coordinator/history"
)

// operation of a unit: what it did, and what came of it.
type operation struct {
	Kind       string // acquire, release, die, publish; activate, look
	Version    string
	Generation int
}

// holds is what claims and releases must look like from outside: one holder at
// a time, who alone publishes, each release once.
type holds struct {
	holder    int // generation, 0 for nobody
	last      int
	published string // versions, each with a comma
}

var holdsModel = porcupine.Model{
	// Each version has claims of its own.
	Partition: func(all []porcupine.Operation) [][]porcupine.Operation {
		by := map[string][]porcupine.Operation{}
		for _, op := range all {
			version := op.Input.(operation).Version
			by[version] = append(by[version], op)
		}
		return slices.Collect(maps.Values(by))
	},
	Init: func() any { return holds{} },
	Step: func(state, input, _ any) (bool, any) {
		s, op := state.(holds), input.(operation)
		switch op.Kind {
		case "acquire":
			ok := s.holder == 0 && op.Generation > s.last
			s.holder, s.last = op.Generation, op.Generation
			return ok, s
		case "release", "die":
			ok := s.holder == op.Generation
			s.holder = 0
			return ok, s
		case "publish":
			ok := s.holder == op.Generation && !strings.Contains(s.published, op.Version+",")
			s.published += op.Version + ","
			return ok, s
		}
		return false, s
	},
	DescribeOperation: func(input, _ any) string { return fmt.Sprintf("%+v", input) },
}

// activationsModel is a log that grows by one, and whose last entry is read.
var activationsModel = porcupine.Model{
	Init: func() any { return Activation{} },
	Step: func(state, input, _ any) (bool, any) {
		s, op := state.(Activation), input.(operation)
		if op.Kind == "activate" {
			return op.Generation == s.Generation+1 && op.Version != s.Version,
				Activation{Generation: op.Generation, Version: op.Version}
		}
		return op.Generation == s.Generation && op.Version == s.Version, s
	},
	DescribeOperation: func(input, _ any) string { return fmt.Sprintf("%+v", input) },
}

// histories turns a trace into operations: what begins with one event of a unit
// ends with another one.
func histories(t *testing.T, trace string) (claims, activations []porcupine.Operation) {
	f, err := os.Open(trace)
	require.NoError(t, err)
	defer f.Close()
	ends := map[string]struct{ begin, kind string }{
		"claimed":   {"claim", "acquire"},
		"released":  {"release", "release"},
		"published": {"fenced", "publish"},
		"activated": {"activate", "activate"},
		"looked":    {"look", "look"},
	}
	last := map[string]event{} // by unit and point
	clients := map[string]int{}
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var e event
		require.NoError(t, json.Unmarshal(lines.Bytes(), &e))
		if _, ok := clients[e.Unit]; !ok {
			clients[e.Unit] = len(clients)
		}
		last[e.Unit+" "+e.Point] = e
		op := porcupine.Operation{ClientId: clients[e.Unit], Return: e.At}
		switch end, ok := ends[e.Point]; {
		case ok:
			op.Call = last[e.Unit+" "+end.begin].At
			op.Input = operation{end.kind, e.Version, e.Generation}
		case e.Point == "killed" && e.Generation != 0:
			op.Call, op.Return = e.At, math.MaxInt64
			op.Input = operation{"die", e.Version, e.Generation}
		default:
			continue
		}
		if e.Point == "activated" || e.Point == "looked" {
			activations = append(activations, op)
		} else {
			claims = append(claims, op)
		}
	}
	return claims, activations
}

// watch replays what the volume shows, until enough is called.
func watch(t *testing.T, root string) (enough func()) {
	stop, stopped := make(chan struct{}), make(chan struct{})
	looks := 0
	go func() {
		defer close(stopped)
		var r past.Replay
		for ; ; looks++ {
			v, err := past.Look(root)
			if err == nil {
				err = errors.Join(r.Next(v)...)
			}
			if err != nil {
				t.Errorf("look %d: %v\n%+v", looks, err, v)
				return
			}
			select {
			case <-stop:
				return
			case <-time.After(rand.N(20 * time.Millisecond)):
			}
		}
	}()
	return func() {
		close(stop)
		<-stopped
		t.Logf("looked %d times", looks)
	}
}

// Eight processes install and activate four releases in different orders; four
// of them are killed while they hold the claim, and come back.
func TestHistories(t *testing.T) {
	versions := []string{"7.14.0", "7.14.1", "7.14.2", "7.14.3"}
	for _, flock := range []bool{true, false} {
		t.Run(fmt.Sprintf("flock %v", flock), func(t *testing.T) {
			t.Parallel()
			src := newSource(t)
			for _, v := range versions {
				src.publish(v, releaseArchive(v, 1<<18))
			}
			root := t.TempDir()
			if !flock {
				withoutFlock(t, root)
			}
			trace := filepath.Join(t.TempDir(), "trace")
			require.NoError(t, os.WriteFile(trace, nil, 0o644))
			deaths := t.TempDir()
			for _, point := range []string{"claimed", "staged", "fenced", "published"} {
				require.NoError(t, os.WriteFile(filepath.Join(deaths, point), nil, 0o644))
			}
			enough := watch(t, root)
			const units = 8
			start := func(i int) (*exec.Cmd, *bytes.Buffer) {
				mine := append(append([]string{}, versions[i%4:]...), versions[:i%4]...)
				output := &bytes.Buffer{}
				cmd := unitProcess(t, root, fmt.Sprintf("concourse-ci/%d", i), src.URL, strings.Join(mine, ","), output)
				ordered(t, cmd, orders{Lease: time.Second, Trace: trace, Deaths: deaths})
				require.NoError(t, cmd.Start())
				return cmd, output
			}
			var cmds [units]*exec.Cmd
			var outputs [units]*bytes.Buffer
			for i := range units {
				cmds[i], outputs[i] = start(i)
			}
			killed := 0
			for i := range units {
				for err := cmds[i].Wait(); err != nil; err = cmds[i].Wait() {
					require.ErrorContains(t, err, "killed", outputs[i].String())
					killed++
					cmds[i], outputs[i] = start(i)
				}
			}
			enough()
			claims, activations := histories(t, trace)
			t.Logf("%d killed, %d operations on claims, %d on the log of activations", killed, len(claims), len(activations))
			require.Equal(t, 4, killed)
			require.Equal(t, porcupine.Ok, porcupine.CheckOperationsTimeout(holdsModel, claims, 20*time.Second))
			require.Equal(t, porcupine.Ok, porcupine.CheckOperationsTimeout(activationsModel, activations, 20*time.Second))
		})
	}
}

// What the checker must not let pass.
func TestHistoriesThatAreWrong(t *testing.T) {
	type step = porcupine.Operation
	op := func(client int, kind string, generation int, call, ret int64) step {
		return step{ClientId: client, Input: operation{kind, "7.14.3", generation}, Call: call, Return: ret}
	}
	for name, history := range map[string][]step{
		"two holders":       {op(0, "acquire", 1, 0, 1), op(1, "acquire", 2, 2, 3), op(0, "release", 1, 4, 5), op(1, "release", 2, 6, 7)},
		"one number twice":  {op(0, "acquire", 1, 0, 1), op(0, "release", 1, 2, 3), op(1, "acquire", 1, 4, 5)},
		"published twice":   {op(0, "acquire", 1, 0, 1), op(0, "publish", 1, 2, 3), op(0, "publish", 1, 4, 5)},
		"lost the claim":    {op(0, "acquire", 1, 0, 1), op(0, "die", 1, 2, 3), op(1, "acquire", 2, 4, 5), op(0, "publish", 1, 6, 7)},
		"before the murder": {op(1, "acquire", 2, 0, 1), op(0, "acquire", 3, 2, 3), op(1, "die", 2, 4, math.MaxInt64)},
	} {
		require.False(t, porcupine.CheckOperations(holdsModel, history), name)
	}
	require.True(t, porcupine.CheckOperations(holdsModel, []step{op(0, "acquire", 1, 0, 1), op(0, "publish", 1, 2, 3), op(0, "release", 1, 4, 5)}))
	require.False(t, porcupine.CheckOperations(activationsModel, []step{op(0, "activate", 1, 0, 1), op(1, "look", 0, 2, 3)}))
}

package sim

import (
	"bytes"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// What the model does is what the checker accepts, and it comes through a file.
func TestModelIsAccepted(t *testing.T) {
	seeds := uint64(40)
	if testing.Short() {
		seeds = 10
	}
	for seed := range seeds {
		w := newWorld(seed, Product())
		w.log = &[]Record{}
		w.run()
		var file bytes.Buffer
		require.NoError(t, WriteHistory(&file, *w.log))
		history, err := ReadHistory(&file)
		require.NoError(t, err)
		require.Equal(t, len(*w.log), len(history))
		require.NoError(t, Accept(history), "seed %d", seed)
	}
}

// second is the time of a record: hooks begin at full seconds and take half of one.
func at(second int, r Record) Record {
	r.Begin = time.Duration(second) * time.Second
	r.End, r.OK = r.Begin+time.Second/2, true
	if r.Units != nil {
		r.Read = r.Begin + time.Second/4
	}
	return r
}

// plain is the life of a unit that joins another one.
func plain() []Record {
	hook := func(second int, event, remote string) Record {
		return at(second, Record{Unit: "ci/0", Event: event, Remote: remote})
	}
	return []Record{
		hook(1, "install", ""),
		hook(2, "peers-relation-created", ""),
		at(3, Record{Unit: "ci/0", Event: "leader-elected", Leader: true, Units: map[string]int{}, Self: 1, Wrote: 2, WroteApp: 1}),
		at(3, Record{Unit: "ci/1", Event: "install"}),
		hook(4, "config-changed", ""),
		at(4, Record{Unit: "ci/1", Event: "peers-relation-created", Units: map[string]int{}, Self: 1, App: 1, Wrote: 2}),
		hook(5, "start", ""),
		at(8, Record{Unit: "ci/0", Event: "peers-relation-joined", Remote: "ci/1", Leader: true, Units: map[string]int{"ci/1": 2}, Self: 2, App: 1}),
		at(9, Record{Unit: "ci/0", Event: Command, Leader: true, Units: map[string]int{"ci/1": 2}, Self: 2, App: 1}),
		at(10, Record{Unit: "ci/0", Event: "peers-relation-changed", Remote: "ci/1", Leader: true, Units: map[string]int{"ci/1": 2}, Self: 2, App: 1}),
		at(11, Record{Unit: "ci/1", Event: "config-changed", Units: map[string]int{}, Self: 2, App: 1, Wrote: 3}),
		at(12, Record{Unit: "ci/0", Event: "update-status", Leader: true, Units: map[string]int{"ci/1": 2}, Self: 2, App: 1}),
		at(13, Record{Unit: "ci/1", Event: "update-status", Units: map[string]int{}, Self: 3, App: 1}),
		at(14, Record{Unit: "ci/0", Event: "peers-relation-changed", Remote: "ci/1", Leader: true, Units: map[string]int{"ci/1": 3}, Self: 2, App: 1}),
		hook(15, "peers-relation-departed", "ci/1"),
		hook(16, "stop", ""),
		hook(17, "remove", ""),
	}
}

func TestBrokenHistories(t *testing.T) {
	require.NoError(t, Accept(plain()))
	find := func(h []Record, event, remote string) int {
		i := slices.IndexFunc(h, func(r Record) bool { return r.Unit == "ci/0" && r.Event == event && r.Remote == remote })
		require.GreaterOrEqual(t, i, 0)
		return i
	}
	for _, test := range []struct {
		name   string
		breaks func(h []Record) []Record
		says   string
	}{
		{"a hook before install", func(h []Record) []Record { return h[1:] }, "not installed"},
		{"installed twice", func(h []Record) []Record {
			return append(h, at(18, Record{Unit: "ci/1", Event: "install"}))
		}, "it is installed"},
		{"two at once", func(h []Record) []Record { h[0].End = h[1].Begin + 1; return h }, "overlaps"},
		{"start before config-changed", func(h []Record) []Record {
			i := find(h, "config-changed", "")
			return slices.Delete(h, i, i+1)
		}, "follows config-changed"},
		{"a failed hook is forgotten", func(h []Record) []Record { h[1].OK = false; return h }, "not tried again"},
		{"elected without leading", func(h []Record) []Record { h[2].Leader = false; return h }, "does not lead"},
		{"changed without joined", func(h []Record) []Record {
			i := find(h, "peers-relation-joined", "ci/1")
			return slices.Delete(h, i, i+1)
		}, "has not joined"},
		{"joined without created", func(h []Record) []Record { return slices.Delete(h, 1, 2) }, "no relation was created"},
		{"joined twice", func(h []Record) []Record {
			again := h[find(h, "peers-relation-joined", "ci/1")]
			return append(h, at(13, Record{Unit: again.Unit, Event: again.Event, Remote: "ci/1"}))
		}, "has joined"},
		{"changed does not follow joined", func(h []Record) []Record {
			h[find(h, "peers-relation-changed", "ci/1")].Event = "peers-relation-departed"
			return h
		}, "must follow"},
		{"removed without having stopped", func(h []Record) []Record {
			i := find(h, "stop", "")
			return slices.Delete(h, i, i+1)
		}, "not stopped"},
		{"a hook after remove", func(h []Record) []Record {
			return append(h, at(18, Record{Unit: "ci/0", Event: "update-status"}))
		}, "has been removed"},
		{"settings of a hook that failed", func(h []Record) []Record {
			i := slices.IndexFunc(h, func(r Record) bool { return r.Unit == "ci/1" && r.Wrote == 3 })
			h[i].OK = false
			return slices.Delete(h, i+2, i+3) // what ran later
		}, "no hook had ended with"},
		{"settings before the hook has ended", func(h []Record) []Record {
			i := slices.IndexFunc(h, func(r Record) bool { return r.Unit == "ci/1" && r.Wrote == 3 })
			h[i].Begin, h[i].End = h[i].Begin+2*time.Second, h[i].End+8*time.Second
			return slices.Delete(h, i+2, i+3) // what ran meanwhile
		}, "no hook had ended with"},
		{"new settings without a hook about them", func(h []Record) []Record {
			h[find(h, "update-status", "")].Units = map[string]int{"ci/1": 3}
			return h
		}, "no hook about it between"},
		{"old settings in a hook about them", func(h []Record) []Record {
			i := slices.IndexFunc(h, func(r Record) bool { return r.Begin == 14*time.Second })
			h[i].Units = map[string]int{"ci/1": 2}
			return h
		}, "older than 3"},
		{"old settings of the application", func(h []Record) []Record {
			h[find(h, "update-status", "")].App = 0
			return h
		}, "older than 1"},
		{"settings of the application that nobody wrote", func(h []Record) []Record {
			h[find(h, "update-status", "")].App = 7
			return h
		}, "no hook had ended with"},
		{"other settings of its own", func(h []Record) []Record {
			h[find(h, "update-status", "")].Self = 5
			return h
		}, "of itself"},
	} {
		t.Run(test.name, func(t *testing.T) {
			require.ErrorContains(t, Accept(test.breaks(plain())), test.says)
		})
	}
}

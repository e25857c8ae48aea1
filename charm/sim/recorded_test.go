package sim

import (
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// recorded is a history of the probe on real Juju, see package probe.
func recorded(t *testing.T) []Record {
	t.Helper()
	file, err := os.Open("testdata/juju-4.1-beta2.jsonl")
	require.NoError(t, err)
	defer file.Close()
	history, err := ReadHistory(file)
	require.NoError(t, err)
	return history
}

// What real Juju did is what the checker accepts.
func TestRealJujuIsAccepted(t *testing.T) {
	require.NoError(t, Accept(recorded(t)))
}

// A recording is worth what happens in it.
func TestRecordingHasItAll(t *testing.T) {
	history := recorded(t)
	for what, is := range map[string]func(r Record) bool{
		"a hook that failed":                        func(r Record) bool { return !r.OK && r.End > 0 && r.WroteApp == 0 },
		"a hook that was cut off":                   func(r Record) bool { return r.End == 0 && r.Read > 0 },
		"settings that a former leader was refused": func(r Record) bool { return !r.OK && r.End > 0 && r.WroteApp > 0 },
		"another life":                              func(r Record) bool { return r.Life > history[0].Life+1 },
		"an action":                                 func(r Record) bool { return r.Event == Action && len(r.Units) > 1 },
		"a command":                                 func(r Record) bool { return r.Event == Command && len(r.Units) > 1 },
		"another charm":                             func(r Record) bool { return r.Event == "upgrade-charm" },
		"a unit removed":                            func(r Record) bool { return r.Event == "remove" && r.OK },
		"its departure":                             func(r Record) bool { return r.Event == "peers-relation-departed" && r.Departing == r.Remote },
		"the departures of others to it":            func(r Record) bool { return r.Event == "peers-relation-departed" && r.Departing == r.Unit },
		"the end of a relation":                     func(r Record) bool { return r.Event == "database-relation-broken" },
		"settings of the application":               func(r Record) bool { return r.Event == "peers-relation-changed" && r.Remote == "" && r.App > 1 },
		"time for update-status":                    func(r Record) bool { return r.Event == "update-status" },
		"a start after a reboot": func(r Record) bool {
			return r.Event == "start" && slices.ContainsFunc(history, func(o Record) bool { return o.Unit == r.Unit && o.Event == "start" && o.OK && o.Begin < r.Begin })
		},
		"a second leader": func(r Record) bool {
			return r.Event == "leader-elected" && slices.ContainsFunc(history, func(o Record) bool {
				return o.application() == r.application() && o.Unit != r.Unit && o.Event == r.Event && o.Begin < r.Begin
			})
		},
	} {
		require.True(t, slices.ContainsFunc(history, is), what)
	}
}

// mutations are what real Juju does not do. Each returns, for a record of a history, that
// history with the mutation there; nil if it cannot be there.
var mutations = []struct {
	name string
	at   func(h []Record, i int) []Record
	says string
}{
	{"no install", func(h []Record, i int) []Record {
		if h[i].Event != "install" {
			return nil
		}
		return slices.Delete(h, i, i+1)
	}, "not installed"},
	{"start before config-changed", func(h []Record, i int) []Record {
		next := following(h, i)
		if h[i].Event != "config-changed" || next < 0 || h[next].Event != "start" || before(h, next, "start") {
			return nil
		}
		return exchange(h, i, next)
	}, "follows config-changed"},
	{"changed before joined", func(h []Record, i int) []Record {
		next := following(h, i)
		if !strings.HasSuffix(h[i].Event, "-joined") || next < 0 || h[next].Remote != h[i].Remote {
			return nil
		}
		return exchange(h, i, next)
	}, "has not joined"},
	{"joined and then something else of that relation", func(h []Record, i int) []Record {
		next := following(h, i)
		if !strings.HasSuffix(h[i].Event, "-joined") || next < 0 || h[next].Remote != h[i].Remote {
			return nil
		}
		h[next].Remote = ""
		return h
	}, "must follow"},
	{"a failed hook is not tried again", func(h []Record, i int) []Record {
		next := following(h, i)
		if !isHook(h[i]) || h[i].OK || next < 0 {
			return nil
		}
		h[next].Event = "update-status"
		h[next].Remote = ""
		return h
	}, "not tried again"},
	{"settings of a hook that runs", func(h []Record, i int) []Record {
		w, r := h[i], reader(h, h[i], func(r Record) bool { return r.Read > h[i].Begin && r.Read < h[i].End })
		if w.Wrote == 0 || r < 0 {
			return nil
		}
		h[r].Units[w.Unit] = w.Wrote
		return h
	}, "it sees"},
	{"settings of a hook that failed", func(h []Record, i int) []Record {
		w, r := h[i], reader(h, h[i], func(r Record) bool { return r.Begin > h[i].End })
		if w.Wrote == 0 || w.OK || r < 0 {
			return nil
		}
		h[r].Units[w.Unit] = w.Wrote
		return h
	}, "it sees"},
	{"a hook that failed has written", func(h []Record, i int) []Record {
		if h[i].Wrote == 0 || !h[i].OK || reader(h, h[i], func(r Record) bool { return r.Units[h[i].Unit] == h[i].Wrote }) < 0 {
			return nil
		}
		h[i].OK = false
		return h
	}, ""},
	{"settings older than those that were seen", func(h []Record, i int) []Record {
		if len(h[i].Units) == 0 || strings.Contains(h[i].Event, "-relation-") {
			return nil
		}
		name := sortedKeys(h[i].Units)[0]
		for j := range i {
			if h[j].Unit == h[i].Unit && h[j].Life == h[i].Life && h[j].Units[name] != 0 && h[j].Units[name] != h[i].Units[name] {
				h[i].Units[name] = h[j].Units[name]
				return h
			}
		}
		return nil
	}, "no hook about it between"},
	{"a number of the application that the leader has not written", func(h []Record, i int) []Record {
		if h[i].Read == 0 {
			return nil
		}
		h[i].App++
		return h
	}, "no hook had ended with"},
	{"what a former leader was refused", func(h []Record, i int) []Record {
		if h[i].WroteApp == 0 || h[i].OK {
			return nil
		}
		for j := i + 1; j < len(h); j++ {
			if h[j].Read > 0 && h[j].application() == h[i].application() {
				h[j].App = h[i].WroteApp
				return h
			}
		}
		return nil
	}, "no hook had ended with"},
	{"settings of its own that it has not written", func(h []Record, i int) []Record {
		if h[i].Self <= initial {
			return nil
		}
		h[i].Self--
		return h
	}, "of itself"},
	{"two at once", func(h []Record, i int) []Record {
		next := following(h, i)
		if next < 0 {
			return nil
		}
		h[i].End = h[next].Begin + time.Millisecond
		return h
	}, ""},
	{"removed without having stopped", func(h []Record, i int) []Record {
		if h[i].Event != "stop" {
			return nil
		}
		h[i].Event = "update-status"
		return h
	}, "not stopped"},
	{"upgrade-charm without config-changed", func(h []Record, i int) []Record {
		if h[i].Event != "upgrade-charm" {
			return nil
		}
		h[following(h, i)].Event = "update-status"
		return h
	}, "follows upgrade-charm"},
	{"a hook after stop", func(h []Record, i int) []Record {
		if h[i].Event != "stop" {
			return nil
		}
		h[following(h, i)].Event = "config-changed"
		return h
	}, "has stopped"},
	{"departed with a third unit", func(h []Record, i int) []Record {
		if h[i].Departing == "" {
			return nil
		}
		h[i].Departing = "other/7"
		return h
	}, "does not depart"},
}

// manyPlaces is how many of those where a mutation can be are tried.
const manyPlaces = 20

// Real Juju's history is refused with a mutation, wherever that is.
func TestMutationsAreRefused(t *testing.T) {
	for _, m := range mutations {
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			places := 0
			history := recorded(t)
			for _, i := range rand.New(rand.NewPCG(1, 0)).Perm(len(history)) {
				mutated := m.at(deepClone(history), i)
				if mutated == nil {
					continue
				}
				if places++; places > manyPlaces {
					break
				}
				require.ErrorContains(t, Accept(mutated), m.says, "at %v", history[i])
			}
			require.Positive(t, places)
			t.Logf("%d places", places)
		})
	}
}

func deepClone(h []Record) []Record {
	h = slices.Clone(h)
	for i := range h {
		h[i].Units = maps.Clone(h[i].Units)
	}
	return h
}

func isHook(r Record) bool { return r.Event != Action && r.Event != Command }

// following is the next hook of the same unit, -1 if there is none.
func following(h []Record, i int) int {
	for j := i + 1; j < len(h); j++ {
		if h[j].Unit == h[i].Unit && isHook(h[j]) {
			return j
		}
	}
	return -1
}

// before tells whether the unit has had such an event.
func before(h []Record, i int, event string) bool {
	return slices.ContainsFunc(h[:i], func(r Record) bool { return r.Unit == h[i].Unit && r.Event == event })
}

// exchange has two hooks run at each other's times, with what was read at these.
func exchange(h []Record, i, j int) []Record {
	h[i].Event, h[j].Event = h[j].Event, h[i].Event
	h[i].Remote, h[j].Remote = h[j].Remote, h[i].Remote
	return h
}

// reader is the first record of another unit that reads the settings of the writer's, and
// for which more is true; -1 if there is none.
func reader(h []Record, writer Record, is func(Record) bool) int {
	return slices.IndexFunc(h, func(r Record) bool { return r.Units[writer.Unit] != 0 && is(r) })
}

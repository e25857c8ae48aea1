package sim

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"time"
)

// world is all that there is: Juju, machines, a volume, a mirror, Concourse and its
// database. Whatever happens in it follows from its seed.
type world struct {
	clock
	seed     uint64
	rand     *rand.Rand
	protocol Protocol

	juju     *controller
	ci       *cluster
	volume   *volume             // the shared one
	machines map[string]*machine // by address
	units    []*unit             // all that there ever were
	mirror   struct{ down bool }
	coming   int // changes that are still to be made

	judge judge
	trace *[]string // nil where nobody will read it
	log   *[]Record // what hooks saw, nil where nobody will read it
}

func newWorld(seed uint64, p Protocol) *world {
	w := &world{seed: seed, rand: rand.New(rand.NewPCG(seed, 0)), protocol: p, machines: map[string]*machine{}}
	w.juju, w.ci, w.volume = newController(w), newCluster(w), newVolume(w)
	w.judge = judge{world: w, away: map[*unit]bool{}, out: map[*unit]bool{}, untrue: map[*unit]time.Duration{}, proven: map[string]bool{},
		wanted: map[string]time.Duration{}, fetched: map[*volume]map[string]int{}}
	return w
}

// say adds a line to the trace.
func (w *world) say(who, format string, args ...any) {
	if w.trace == nil {
		return
	}
	*w.trace = append(*w.trace, fmt.Sprintf("%9.3f  %-10s %s", w.now.Seconds(), who, fmt.Sprintf(format, args...)))
}

// between is a duration that the seed chooses. One of twenty takes much longer than
// expected: orders that are rare in the field are to be common here.
func (w *world) between(least, most time.Duration) time.Duration {
	d := least + time.Duration(w.rand.Int64N(int64(most-least)+1))
	if w.rand.IntN(20) == 0 {
		d += 3 * (most - least)
	}
	return d
}

func (w *world) soon(least, most time.Duration, do func()) { w.after(w.between(least, most), do) }

func (w *world) chance(percent int) bool { return w.rand.IntN(100) < percent }

// pick chooses one, and returns the zero value of none.
func pick[T any](w *world, from []T) (chosen T) {
	if len(from) == 0 {
		return chosen
	}
	return from[w.rand.IntN(len(from))]
}

// members are the units that Juju has, dying ones among them.
func (w *world) members() []*unit {
	return slices.DeleteFunc(slices.Clone(w.units), func(u *unit) bool { return u.life == dead })
}

// reaches tells whether one machine can talk to another.
func (w *world) reaches(from, to *machine) bool {
	return from != nil && to != nil && from.on && to.on && (from == to || !from.cut && !to.cut)
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

package sim

import (
	"errors"
	"maps"
	"slices"
	"time"
)

// volume is one that units share, or a unit's own disk. It stands for the coordinator,
// which is explored elsewhere: one unit downloads a release, the others wait.
type volume struct {
	*world
	installed   map[string]bool
	partly      map[string]time.Duration // how much of a release is there, as the time that it took
	claims      map[string]*claim
	activations []activation
	pins        map[string]string // version, by unit
	full        bool
}

type claim struct {
	unit    string
	renewed time.Duration
}

type activation struct {
	version, unit string
	generation    int
}

// lease is how long a silent holder is waited for: claim.DefaultLease.
const lease = 20 * time.Second

func newVolume(w *world) *volume {
	return &volume{
		world: w, installed: map[string]bool{}, partly: map[string]time.Duration{}, claims: map[string]*claim{},
		pins: map[string]string{},
	}
}

func (v *volume) current() activation {
	if len(v.activations) == 0 {
		return activation{}
	}
	return v.activations[len(v.activations)-1]
}

var (
	errFull      = errors.New("no space left")
	errMirror    = errors.New("the mirror does not answer")
	errCancelled = errors.New("cancelled")
)

// ensure downloads a release, or waits for the unit that does. Progress says who that is,
// and how far it is.
func (m *mount) ensure(f *flight, unit, version string, progress func(holder string, percent int)) {
	const step = 500 * time.Millisecond
	v, took := m.volume, m.machine.between(5*time.Second, 40*time.Second)
	var try func()
	try = func() {
		if f.dead() { // the claim stays, and gets stale
			return
		}
		err, c := m.check(), v.claims[version]
		mine := c != nil && c.unit == unit
		if f.cancelled {
			err = errCancelled
		}
		switch {
		case err != nil:
		case v.installed[version]:
			f.end(nil)
			return
		case c == nil || !mine && v.now-c.renewed > lease:
			v.claims[version] = &claim{unit, v.now}
			if _, resumed := v.partly[version]; !resumed {
				v.partly[version] = 0
				v.say(unit, "downloads %s", version)
				v.judge.downloads(v, version)
			}
		case !mine:
			progress(c.unit, 0)
		case v.mirror.down || m.machine.cut:
			err = errMirror
		case v.full:
			err = errFull
		default:
			c.renewed = v.now
			v.partly[version] += step
			progress(unit, int(100*v.partly[version]/took))
			if v.partly[version] >= took {
				v.installed[version] = true
				delete(v.claims, version)
				delete(v.partly, version)
				v.say(unit, "has installed %s", version)
				f.end(nil)
				return
			}
		}
		if err != nil {
			if mine && !m.missing {
				delete(v.claims, version)
			}
			f.end(err)
			return
		}
		v.after(step, try)
	}
	try()
}

// activate makes a version current, unless another one was made so meanwhile.
func (v *volume) activate(unit, version string, decidedOn activation) {
	if v.current() != decidedOn || v.current().version == version {
		return
	}
	v.activations = append(v.activations, activation{version, unit, len(v.activations) + 1})
	v.say(unit, "%s is current", version)
	v.judge.activates(v, unit, version)
}

// collect removes what no unit needs: current, previous and pinned releases stay.
func (v *volume) collect() {
	keep := slices.Collect(maps.Values(v.pins))
	for _, a := range v.activations[max(0, len(v.activations)-2):] {
		keep = append(keep, a.version)
	}
	for _, version := range sortedKeys(v.installed) {
		if !slices.Contains(keep, version) {
			delete(v.installed, version)
			v.say("volume", "%s is collected", version)
		}
	}
}

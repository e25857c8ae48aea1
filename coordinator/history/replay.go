package history

import (
	"fmt"
	"maps"
	"slices"

	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/model"
)

// stays is how many generations stay in a log of claims at least: an older one may be gone,
// and whoever slept since before may take its number for the next one, and give it up at
// once.
const stays = 8

// Replay takes looks at one volume, each begun when the one before had ended. The zero
// value is ready.
type Replay struct {
	before *Volume
	// over are generations of which nothing could come any more at some look: it was known
	// that they are not the newest, and their holders had nothing staged.
	over        map[entry]bool
	links       map[string]string // where each release led when it was last there
	claims      map[entry]Claim   // as they were first seen
	activations map[int]Activation
}

// Next returns the rules of the protocol that the volume breaks as it is now, or must have
// broken since the last look.
func (r *Replay) Next(v Volume) []error {
	if r.before == nil {
		*r = Replay{over: map[entry]bool{}, links: map[string]string{}, claims: map[entry]Claim{}, activations: map[int]Activation{}}
	}
	var b broken
	r.checkClaims(v, &b)
	r.checkActivations(v, &b)
	r.checkEntries(v, &b)
	r.checkReleases(v, &b)
	if r.before != nil {
		for version, all := range v.Claims {
			for _, c := range all {
				e := entry{version, c.Generation}
				r.over[e] = r.over[e] || c.Generation < r.before.newest(version) && !v.stages(e)
			}
		}
	}
	maps.Copy(r.links, v.Releases)
	r.before = &v
	return b
}

// broken collects what is wrong.
type broken []error

func (b *broken) add(err error, format string, args ...any) {
	if err != nil {
		*b = append(*b, fmt.Errorf("%w: %s", err, fmt.Sprintf(format, args...)))
	}
}

func (r *Replay) checkClaims(v Volume, b *broken) {
	for _, version := range slices.Sorted(maps.Keys(v.Claims)) {
		newest := v.newest(version)
		for _, c := range v.Claims[version] {
			e := entry{version, c.Generation}
			if c.Nonce == "" || c.Generation <= newest-stays {
				continue
			}
			known, seen := r.claims[e]
			if !seen {
				r.claims[e] = c
				continue
			}
			claim := model.Claim{Holders: 1}
			if known.Nonce != c.Nonce {
				claim.Holders++
			}
			b.add(claim.Check(), "generation %d of %s is that of %s, and was that of %s", c.Generation, version, c.Unit, known.Unit)
		}
	}
	if r.before == nil {
		return
	}
	for _, version := range slices.Sorted(maps.Keys(r.before.Claims)) {
		was, is := r.before.newest(version), v.newest(version)
		b.add(model.Claim{Holders: 1, Again: is < was}.Check(), "the newest claim of %s was generation %d, and is %d", version, was, is)
	}
}

func (r *Replay) checkActivations(v Volume, b *broken) {
	there := map[int]bool{}
	last := Activation{}
	for _, a := range v.Activations {
		there[a.Number] = true
		known, seen := r.activations[a.Number]
		if !seen {
			readable := a.Version != "" && last.Version != ""
			aware := a.Number == last.Number+1 && (!readable || a.Version != last.Version)
			b.add(model.Activation{Aware: aware}.Check(), "%s has activated %s as number %d, and number %d was %q", a.Unit, a.Version, a.Number, last.Number, last.Version)
			r.activations[a.Number] = a
		} else if a.Version != "" && known.Version != "" {
			b.add(model.Activation{Aware: a == known}.Check(), "number %d is %s by %s, and was %s by %s", a.Number, a.Version, a.Unit, known.Version, known.Unit)
		}
		last = a
	}
	for _, n := range slices.Sorted(maps.Keys(r.activations)) {
		if known := r.activations[n]; known.Version != "" {
			b.add(model.Activation{Aware: there[n]}.Check(), "number %d, %s, is gone", n, known.Version)
		}
	}
}

func (r *Replay) checkEntries(v Volume, b *broken) {
	for _, name := range v.Entries {
		e := parseEntry(name)
		if r.before != nil && slices.Contains(r.before.Entries, name) {
			continue
		}
		p := model.Publication{Claimed: e.generation <= v.newest(e.version), Late: r.over[e]}
		if r.before != nil {
			c, _ := r.before.claim(e)
			p.Claimed = p.Claimed && !c.Ended
		}
		b.add(p.Check(), "%s was put into the store, and the newest claim of %s is generation %d", name, e.version, v.newest(e.version))
	}
	for _, unit := range slices.Sorted(maps.Keys(v.Pins)) {
		if name := v.Pins[unit]; v.knows(parseEntry(name).version) {
			b.add(model.Removal{Pinned: !slices.Contains(v.Entries, name)}.Check(), "%s has pinned %s", unit, name)
		}
	}
}

// knows tells whether a name is that of a version. Units that know the first layout only
// pin versions, and 7.14.3 looks like an entry of 7.14.
func (v Volume) knows(version string) bool {
	_, claimed := v.Claims[version]
	_, released := v.Releases[version]
	return version != "" && (claimed || released)
}

func (r *Replay) checkReleases(v Volume, b *broken) {
	versions := map[string]bool{}
	for version := range v.Releases {
		versions[version] = true
	}
	for version := range r.links {
		versions[version] = true
	}
	current, previous := v.kept()
	for _, version := range []string{current, previous} {
		if version != "" {
			versions[version] = true
		}
	}
	for _, version := range slices.Sorted(maps.Keys(versions)) {
		is := model.Release{Link: r.link(v, version), Damaged: v.Damaged, Kept: version == current || version == previous}
		if r.before == nil {
			b.add(is.Check(), "%s", version)
			r.checkPublisher(v, version, b)
			continue
		}
		last, from, to := r.links[version], r.before.Releases[version], v.Releases[version]
		for _, name := range v.Pins {
			is.Pinned = is.Pinned || name == last
		}
		b.add(is.Check(), "%s, which led to %q", version, last)
		if from == to {
			continue
		}
		newest := r.before.newest(version)
		c, claimed := r.before.claim(entry{version, newest})
		b.add(model.Move{From: linkTo(from), To: linkTo(to), Collected: v.newest(version) > newest || claimed && !c.Ended}.Check(),
			"%s led to %s, and generation %d had given up its claim", version, from, newest)
		if e := parseEntry(to); e.generation != 0 {
			late := r.over[e] || e.generation < parseEntry(from).generation
			b.add(model.Publication{Claimed: true, Late: late}.Check(), "%s leads to %s, and led to %q; the newest claim is generation %d", version, to, from, v.newest(version))
			r.checkPublisher(v, version, b)
		}
	}
}

// checkPublisher demands that who has published a release is who got its generation.
func (r *Replay) checkPublisher(v Volume, version string, b *broken) {
	name := v.Releases[version]
	c, publisher := r.claims[parseEntry(name)], v.Publishers[name]
	claim := model.Claim{Holders: 1}
	if c.Unit != "" && publisher != "" && c.Unit != publisher {
		claim.Holders++
	}
	b.add(claim.Check(), "%s was published by %s, and its generation is that of %s", name, publisher, c.Unit)
}

// link tells what the path of a release is. That it was torn at both looks shows only if
// it was the same release: it may have gone away before it was looked into.
func (r *Replay) link(v Volume, version string) model.Link {
	name := v.Releases[version]
	same := r.before != nil && r.before.Releases[version] == name
	switch {
	case name == "":
		return model.Absent
	case !slices.Contains(v.Entries, name):
		return model.Dangling
	case same && slices.Contains(v.Torn, version):
		return model.Torn
	}
	return model.Whole
}

func linkTo(name string) model.Link {
	if name == "" {
		return model.Absent
	}
	return model.Whole
}

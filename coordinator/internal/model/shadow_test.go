package model_test

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/history"
)

// shadow is what a volume shows while the model takes its steps: with the numbers and
// names that the model does without.
type shadow struct {
	claims   map[string][]history.Claim
	log      []history.Activation
	entries  []string
	links    map[string]string // also those that were moved away, for who puts them back
	nonces   int
	damaged  bool
	claimed  [units]int // the generation of each unit's claim
	newest   [units]int // the generation and the activation that each has read as the newest
	last     [units]int
	stored   [units]string // entries, as in the model
	held     [units]string
	pinned   [units]string
	released state
}

func named(v uint8) string  { return strconv.Itoa(int(v)) }
func unitName(u int) string { return fmt.Sprintf("ci/%d", u) }

func shadowOf(s state) *shadow {
	h := &shadow{claims: map[string][]history.Claim{}, links: map[string]string{}, released: s}
	for v, r := range s.releases {
		if r != absent {
			version := strconv.Itoa(v)
			h.claims[version] = []history.Claim{{Generation: 1, Unit: "ci/9", Nonce: "first", Ended: true}}
			h.links[version] = version + ".1"
			h.entries = append(h.entries, version+".1")
		}
	}
	for _, v := range []uint8{s.previous, s.current} {
		if v != 0 {
			h.log = append(h.log, history.Activation{Number: len(h.log) + 1, Version: named(v), Unit: "ci/9"})
		}
	}
	return h
}

// look is what history.Look would return.
func (h *shadow) look() history.Volume {
	s := h.released
	v := history.Volume{
		Activations: slices.Clone(h.log), Claims: map[string][]history.Claim{}, Releases: map[string]string{},
		Entries: slices.Clone(h.entries), Pins: map[string]string{}, Damaged: h.damaged,
	}
	for version, all := range h.claims {
		v.Claims[version] = slices.Clone(all)
	}
	for i, r := range s.releases {
		if version := strconv.Itoa(i); r != absent {
			v.Releases[version] = h.links[version]
			if r == torn {
				v.Torn = append(v.Torn, version)
			}
		}
	}
	for i := range s.units {
		u := &s.units[i]
		if u.staged != absent {
			v.Staged = append(v.Staged, fmt.Sprintf("%d.%d.ci-%d", u.want, h.claimed[i], i))
		}
		if h.pinned[i] != "" {
			v.Pins[unitName(i)] = h.pinned[i]
		}
	}
	return v
}

// follow takes a step of the model.
func (h *shadow) follow(st step, next state) {
	was := h.released
	h.released = next
	u, what := st.unit, st.what
	me, my := &was.units[u], &next.units[u]
	v := max(me.want, my.want)
	version := named(v)
	own := fmt.Sprintf("%s.%d", version, h.claimed[u])
	switch {
	case strings.Contains(what, "becomes corrupt"):
		h.damaged = true
		return
	case strings.Contains(what, "reads the newest generation"):
		h.newest[u] = len(h.claims[version])
	case strings.Contains(what, "claims the next generation"):
		h.claim(u, version)
	}
	if my.activates && my.fresh && (me.at == idle || me.at == readLog || strings.Contains(what, "reads the log again")) {
		h.last[u] = len(h.log)
	}
	switch dies := what == "fails or dies"; {
	case dies:
	case me.at == idle || me.at == hold:
		h.held[u] = h.links[version]
	case me.at == storeEntry:
		h.stored[u] = own
		h.entries = append(h.entries, own)
	case me.at == linkIfAbsent && next.releases[v] != was.releases[v], me.at == swap && my.at == idle && was.releases[v] != next.releases[v]:
		h.links[version], h.stored[u] = own, ""
	case me.at == writePin:
		h.pinned[u] = h.held[u]
	case me.at == putEntry && strings.HasPrefix(what, "activates"):
		h.activate(u, version)
	case me.at == remove:
		h.remove(st, &was)
	}
	if me.claimed && !my.claimed && what != "fails or dies" {
		h.claims[version][h.claimed[u]-1].Ended = true
	}
}

func (h *shadow) claim(u int, version string) {
	h.nonces++
	n := h.newest[u] + 1
	c := history.Claim{Generation: n, Unit: unitName(u), Nonce: strconv.Itoa(h.nonces)}
	h.claims[version] = append(h.claims[version][:n-1:n-1], c)
	h.claimed[u] = n
}

func (h *shadow) activate(u int, version string) {
	n := h.last[u] + 1
	h.log = append(h.log[:n-1:n-1], history.Activation{Number: n, Version: version, Unit: unitName(u)})
}

// remove is a step of a collector.
func (h *shadow) remove(st step, was *state) {
	gone := ""
	other := int(st.about[0])
	switch what := st.what; {
	case strings.HasPrefix(what, "removes the entry of unit"):
		gone = h.stored[other]
	case strings.HasPrefix(what, "removes the entry that unit"):
		gone = h.held[other]
		if o := &was.units[other]; o.old && o.pin == was.units[st.unit].want {
			gone = h.pinned[other]
		}
	case strings.HasPrefix(what, "moves the entry"):
		gone = h.links[named(st.about[0])]
	}
	h.entries = slices.DeleteFunc(h.entries, func(name string) bool { return name == gone })
}

package sim

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/relations"
)

// Accept returns what the model of Juju does not allow in a history. A model that accepts
// what real Juju was seen to do, and refuses what it was not, is one to explore with.
func Accept(history []Record) error {
	history = slices.Clone(history)
	slices.SortStableFunc(history, func(a, b Record) int { return cmp.Compare(a.Begin, b.Begin) })
	h := accepted{units: map[string]*memoir{}}
	for i, r := range history {
		if !r.OK {
			continue
		}
		w := writing{Record: r, told: math.MaxInt64}
		if next := slices.IndexFunc(history[i+1:], func(o Record) bool { return o.Unit == r.Unit }); next >= 0 {
			w.told = history[i+1+next].Begin
		}
		h.ended = append(h.ended, w)
	}
	slices.SortStableFunc(h.ended, func(a, b writing) int { return cmp.Compare(a.End, b.End) })
	for _, r := range history {
		if err := h.accept(r); err != nil {
			return fmt.Errorf("%v: %w", r, err)
		}
	}
	return nil
}

type accepted struct {
	units map[string]*memoir
	ended []writing // by their ends
}

// writing is a record that ended well. What it has set is told to Juju some time later, but
// before its unit runs anything else.
type writing struct {
	Record
	told time.Duration
}

// memoir is what is known of a unit from its records so far.
type memoir struct {
	last      Record // hook; commands and actions run between them
	end       time.Duration
	life      int
	installed bool
	started   bool
	stopped   bool
	removed   bool
	created   map[string]bool            // by endpoint
	joined    map[string]map[string]bool // units, by endpoint
	pending   Record                     // relation-joined whose relation-changed must be next
	seen      map[string]int             // numbers of peers, since the last hook about them
	self      int
}

func (h *accepted) accept(r Record) error {
	u := h.units[r.Unit]
	if u == nil {
		u = &memoir{created: map[string]bool{}, joined: map[string]map[string]bool{}, seen: map[string]int{}, life: r.Life}
		h.units[r.Unit] = u
	}
	if u.life != r.Life { // its memory of settings is gone
		u.life, u.seen = r.Life, map[string]int{}
	}
	if r.Begin < u.end {
		return fmt.Errorf("it overlaps with what the unit ran before")
	}
	u.end = max(r.End, r.Begin)
	if u.removed {
		return fmt.Errorf("the unit has been removed")
	}
	hook := r.Event != Action && r.Event != Command
	if hook {
		if err := u.follows(r); err != nil {
			return err
		}
	}
	if err := h.sees(u, r); err != nil {
		return err
	}
	if r.OK && r.Wrote > 0 {
		u.self = r.Wrote
	}
	if hook {
		if u.last = r; r.OK {
			u.ran(r)
		}
	}
	return nil
}

// follows tells whether a hook may come now.
func (u *memoir) follows(r Record) error {
	failed := u.last.Event != "" && !u.last.OK
	endpoint, kind, related := strings.Cut(r.Event, "-relation-")
	joined := u.joined[endpoint]
	switch {
	case failed && (u.last.Event != r.Event || u.last.Remote != r.Remote):
		return fmt.Errorf("%s has failed, and was not tried again", u.last.Event)
	case failed:
		return nil
	case u.pending.Event != "" && (r.Remote != u.pending.Remote || kind != "changed") && endpoint == u.pendingEndpoint():
		return fmt.Errorf("relation-changed must follow %s", u.pending.Event)
	case r.Event == "install":
		if u.installed {
			return fmt.Errorf("it is installed")
		}
	case !u.installed:
		return fmt.Errorf("it is not installed")
	case u.stopped && r.Event != "remove" && r.Event != "start":
		return fmt.Errorf("it has stopped")
	case u.last.Event == "upgrade-charm" && r.Event != "config-changed":
		return fmt.Errorf("config-changed follows upgrade-charm")
	case r.Departing != "" && r.Departing != r.Remote && r.Departing != r.Unit:
		return fmt.Errorf("%s does not depart", r.Departing)
	case r.Event == "start" && !u.started && u.last.Event != "config-changed":
		return fmt.Errorf("the first start follows config-changed")
	case r.Event == "leader-elected" && !r.Leader:
		return fmt.Errorf("the unit does not lead")
	case r.Event == "remove" && u.started && !u.stopped:
		return fmt.Errorf("it was not stopped")
	case !related:
	case kind != "created" && !u.created[endpoint]:
		return fmt.Errorf("no relation was created")
	case kind == "joined" && joined[r.Remote]:
		return fmt.Errorf("that unit has joined")
	case (kind == "departed" || kind == "changed" && r.Remote != "") && !joined[r.Remote]:
		return fmt.Errorf("that unit has not joined")
	case kind == "broken" && len(joined) > 0:
		return fmt.Errorf("units have not departed")
	}
	return nil
}

func (u *memoir) pendingEndpoint() string {
	endpoint, _, _ := strings.Cut(u.pending.Event, "-relation-")
	return endpoint
}

// ran notes a hook that has ended well.
func (u *memoir) ran(r Record) {
	switch r.Event {
	case "install":
		u.installed = true
	case "start":
		u.started, u.stopped = true, false
	case "stop":
		u.stopped = true
	case "remove":
		u.removed = true
	}
	endpoint, kind, _ := strings.Cut(r.Event, "-relation-")
	switch kind {
	case "created":
		u.created[endpoint], u.joined[endpoint] = true, map[string]bool{}
	case "joined":
		u.joined[endpoint][r.Remote], u.pending = true, r
	case "departed":
		delete(u.joined[endpoint], r.Remote)
	case "broken":
		delete(u.created, endpoint)
	}
	if u.pending.Event != "" && kind == "changed" && endpoint == u.pendingEndpoint() {
		u.pending = Record{}
	}
}

// sees tells whether a hook may have seen what it saw.
func (h *accepted) sees(u *memoir, r Record) error {
	if r.Read == 0 {
		return nil
	}
	if first := u.self == 0 && r.Self <= initial; !first && r.Self != u.self {
		return fmt.Errorf("it sees %d of itself, which has written %d", r.Self, u.self)
	}
	err := h.newEnough(r, r.App, 0, func(w Record) int {
		if w.application() != r.application() {
			return 0
		}
		return w.WroteApp
	})
	if err != nil {
		return fmt.Errorf("it sees %d of the application, %w", r.App, err)
	}
	if strings.HasPrefix(r.Event, relations.PeersEndpoint+"-relation-") {
		delete(u.seen, r.Remote)
	}
	for _, name := range sortedKeys(r.Units) {
		number := r.Units[name]
		before, known := u.seen[name]
		if known && number != before {
			return fmt.Errorf("it sees %d of %s, and saw %d, with no hook about it between", number, name, before)
		}
		if known {
			continue
		}
		err := h.newEnough(r, number, initial, func(w Record) int {
			if w.Unit != name {
				return 0
			}
			return w.Wrote
		})
		if err != nil {
			return fmt.Errorf("it sees %d of %s, %w", number, name, err)
		}
		u.seen[name] = number
	}
	return nil
}

// initial is the number of the first settings of a unit, which are Juju's own.
const initial = 1

// newEnough tells whether a hook can have read a number anew: the last one that Juju was
// told of for sure when it began, or one of a hook that had ended when it read.
func (h *accepted) newEnough(r Record, number, first int, of func(Record) int) error {
	var oldest, last Record
	seen := number == first
	for _, w := range h.ended {
		switch wrote := of(w.Record); {
		case wrote == 0 || w.End > r.Read:
			continue
		case w.told <= r.Begin:
			oldest = w.Record
		}
		if of(w.Record) == number {
			last, seen = w.Record, true
		}
	}
	switch {
	case !seen:
		return fmt.Errorf("which no hook had ended with")
	case last.End < oldest.End:
		return fmt.Errorf("which is older than %d", of(oldest))
	}
	return nil
}

// Package upgrade moves a cluster from one release to another: the web servers
// first, the workers after them and a few at a time, and all of them back when
// the web servers do not come up.
//
// It is a pure state machine. The leader calls Step in every hook with what it
// can see, does what the answer says, and stores the new State where the next
// leader finds it, together with the instructions, which the other units read.
// Nothing else is remembered: no event is needed to have been seen, a call more
// does no harm, and a new leader goes on from the stored State alone. There is
// no clock: Step says which deadline it wants kept, and is told when it passed.
//
//	idle -> fetching -> activating -> rolling -> idle
//	                        |            |
//	                        +------------+-> rolling-back -> idle
//
// Units that do not get there never keep the others from it: web servers that
// are late end the upgrade, workers that are late are named in State.Late, and
// the others take their turns. At any time units are told to run one of two
// versions at most, State.Version and State.Target. Who asks for a third one
// while an upgrade is past fetching is heard when that has ended, and ends it
// early while the web servers are not up yet.
package upgrade

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Phase is how far an upgrade is.
type Phase string

const (
	// Idle: all units should run State.Version. Who does not, such as a unit
	// that has just been added, is told to.
	Idle Phase = "idle"
	// Fetching: Target is being installed, everything goes on as it was.
	Fetching Phase = "fetching"
	// Activating: the web servers restart on Target and have to answer with it.
	Activating Phase = "activating"
	// Rolling: the workers follow, Input.AtOnce at a time.
	Rolling Phase = "rolling"
	// RollingBack: all units return to Version.
	RollingBack Phase = "rolling-back"
)

// State is what outlives a call. The zero value is a cluster without a release.
type State struct {
	Phase   Phase  `json:"phase,omitempty"`   // empty is Idle
	Version string `json:"version,omitempty"` // what the cluster runs, or returns to; empty before the first release
	Target  string `json:"target,omitempty"`  // where it is going, empty while Idle
	Request string `json:"request,omitempty"` // ID of the last request that was heard
	Failure string `json:"failure,omitempty"` // why the last upgrade was taken back, a sentence
	// Late are the units that did not get there in time, by name, until they do.
	// Nobody waits for them any more.
	Late []string `json:"late,omitempty"`
}

// Request is the wish to run a version. Its ID tells it from earlier ones, so
// that the same version can be asked for again after a failure.
type Request struct {
	ID      string
	Version string
}

// Unit is what the leader knows about one unit, itself included.
type Unit struct {
	Name string
	Web  bool // it runs a web server, and perhaps a worker too
	// Running is the version that all services of the unit have proven: its web
	// server by answering with it, its worker by being registered. Empty while
	// the unit starts, or does not get there.
	Running string
	// Installed are the versions that it could start at once.
	Installed []string
	// Lost says that the unit cannot act at present. It takes no place among
	// Input.AtOnce, and finds its instruction when it comes back.
	Lost bool
}

// Deadline names a stretch of work. Whoever keeps the time starts a clock when
// the Deadline in an Output differs from that in the one before: so the time is
// that since the last unit got there. A clock that starts anew with a new
// leader only gives more time.
type Deadline struct {
	Phase   Phase
	Version string
	Request string
	Left    int // units that are waited for
}

// Input is the leader's view.
type Input struct {
	// Request is the last wish, until there is another one; zero is none.
	Request Request
	// Web is the version that the web server answers with. It tells what Units
	// does not where the web servers belong to another application.
	Web   string
	Units []Unit
	// Current is the active release, by the log of activations.
	Current string
	// AtOnce is how many workers may be away at the same time; less than 1 is 1.
	// Those that are lost or late are away anyhow, and not counted.
	AtOnce int
	// Passed is the Deadline whose time is over; zero is none. One that belongs
	// to work that has ended is ignored.
	Passed Deadline
}

// Action is what a unit does.
type Action string

const (
	Keep    Action = "keep"    // go on with what runs
	Restart Action = "restart" // start all services on Instruction.Version
	Land    Action = "land"    // land the worker, then restart it on Instruction.Version
)

// Instruction is for one unit. To follow it twice is to follow it once: who runs
// the Version already has nothing to do.
type Instruction struct {
	Action  Action `json:"action"`
	Version string `json:"version,omitempty"` // empty with Keep
}

// Output is what to do now. Store State and Units first: what else it says will
// be said again.
type Output struct {
	State State
	Units map[string]Instruction
	Fetch string // what every unit should have installed, whatever it runs; empty is nothing
	// Activate is to be put into the log of activations, once it is installed on
	// the leader's volume. Empty if it is current already.
	Activate string
	Deadline Deadline // zero while nobody is waited for
	Status   string   // a sentence for the operator, empty if there is nothing to tell
	// Settled says that all units run State.Version and no upgrade is under way:
	// other releases are not needed by this cluster.
	Settled bool
}

// Step moves the upgrade on as far as it can go with what is known.
func Step(s State, in Input) Output {
	if s.Phase == "" {
		s.Phase = Idle
	}
	// Each round enters a later phase, or hears a request, which is heard once.
	for {
		w := work{State: s, in: in}
		w.lookAround()
		if !w.move() {
			return w.answer()
		}
		s = w.State
	}
}

// work is one look at the cluster.
type work struct {
	State
	in       Input
	behind   []Unit // are not where the phase wants them
	awaited  []Unit // of those, who is not late
	units    map[string]Instruction
	deadline Deadline
}

// goal is the version that the phase wants everywhere it looks.
func (s State) goal() string {
	if s.Phase == Idle || s.Phase == RollingBack {
		return s.Version
	}
	return s.Target
}

// runs is the version that a unit should run in this phase; empty is none yet.
func (s State) runs(u Unit) string {
	if s.Phase == Fetching || s.Phase == Activating && !u.Web {
		return s.Version
	}
	return s.goal()
}

func (u Unit) has(version string) bool { return slices.Contains(u.Installed, version) }

func (w *work) lookAround() {
	w.in.Units = slices.SortedFunc(slices.Values(w.in.Units), func(a, b Unit) int { return strings.Compare(a.Name, b.Name) })
	for _, u := range w.in.Units {
		there := u.Running == w.goal()
		switch w.Phase {
		case Fetching:
			there = u.has(w.Target)
		case Activating:
			// One that cannot take part does not fail the upgrade of the others.
			there = there || !u.Web || u.Lost || !u.has(w.Target)
		}
		if !there {
			w.behind = append(w.behind, u)
		}
	}
	late := w.Late
	w.Late = nil
	for _, u := range w.behind {
		if slices.Contains(late, u.Name) {
			w.Late = append(w.Late, u.Name)
		} else {
			w.awaited = append(w.awaited, u)
		}
	}
	// The web server may be that of another application, so that no unit is waited for.
	if w.goal() != "" && (len(w.awaited) > 0 || w.Phase == Activating) {
		w.deadline = Deadline{Phase: w.Phase, Version: w.goal(), Request: w.Request, Left: len(w.awaited)}
	}
	w.instruct()
}

func (w *work) instruct() {
	w.units = map[string]Instruction{}
	// Who is away already takes a place, unless it has been given up.
	places := max(w.in.AtOnce, 1)
	for _, u := range w.in.Units {
		if !u.Web && u.Running == "" && !u.Lost && !slices.Contains(w.Late, u.Name) {
			places--
		}
	}
	// The late come last, or one that does not follow would keep all others waiting.
	late := func(u Unit) int { return slices.Index(w.Late, u.Name) }
	units := slices.SortedStableFunc(slices.Values(w.in.Units), func(a, b Unit) int { return cmp.Compare(late(a), late(b)) })
	for _, u := range units {
		version := w.runs(u)
		what := Instruction{Action: Keep}
		switch {
		case version == "" || u.Running == version || !u.has(version):
		case u.Web || u.Running == "":
			what = Instruction{Action: Restart, Version: version}
		case u.Lost:
			what = Instruction{Action: Land, Version: version}
		case places > 0:
			what = Instruction{Action: Land, Version: version}
			places--
		}
		w.units[u.Name] = what
	}
}

// move makes one transition, and tells whether there was one to make.
func (w *work) move() bool {
	requested := w.in.Request.Version != "" && w.in.Request.ID != w.Request
	passed := w.deadline != (Deadline{}) && w.in.Passed == w.deadline
	switch {
	case requested && (w.Phase == Idle || w.Phase == Fetching || w.Phase == Activating && w.Version == ""):
		// Nothing has been touched, or nothing runs that could be returned to.
		w.hear()
	case w.Phase == Fetching && w.fetched():
		w.enter(Activating)
	case w.Phase == Activating && len(w.awaited) == 0 && w.in.Web == w.Target:
		w.enter(Rolling)
	case w.Phase == Activating && requested && w.in.Request.Version == w.Target:
		w.Request = w.in.Request.ID // asked again: a new deadline
	case w.Phase == Activating && requested:
		w.enter(RollingBack)
	case w.Phase == Activating && passed && w.Version != "":
		w.Failure = fmt.Sprintf("Upgrade to v%s failed: the web server did not answer in time", w.Target)
		w.enter(RollingBack)
	case w.Phase == Rolling && requested && w.in.Request.Version == w.Version:
		w.enter(RollingBack)
	case w.Phase == Rolling && len(w.awaited) == 0:
		w.Phase, w.Version, w.Target = Idle, w.Target, ""
	case w.Phase == RollingBack && len(w.awaited) == 0:
		w.Phase, w.Target = Idle, ""
	case passed && len(w.awaited) > 0:
		w.giveUp()
	default:
		return false
	}
	return true
}

func (w *work) enter(p Phase) { w.Phase, w.Late = p, nil }

// hear begins an upgrade, or ends one that has not touched anything yet.
func (w *work) hear() {
	r := w.in.Request
	w.State = State{Phase: Fetching, Version: w.Version, Target: r.Version, Request: r.ID}
	if r.Version == w.Version {
		w.Phase, w.Target = Idle, ""
	}
}

// giveUp stops waiting for all who were to get there now: not for the workers
// whose turn has not come, as those were never told.
func (w *work) giveUp() {
	for _, u := range w.awaited {
		toldToWait := !u.Web && u.Running != "" && u.has(w.runs(u)) && w.units[u.Name].Action == Keep
		if w.Phase == Fetching || !toldToWait {
			w.Late = append(w.Late, u.Name)
		}
	}
}

// fetched tells whether the web servers could start the version: workers that
// are not so far yet follow while Rolling. Where the web servers belong to
// another application, one worker is enough to go on.
func (w *work) fetched() bool {
	webs := slices.DeleteFunc(slices.Clone(w.in.Units), func(u Unit) bool { return !u.Web })
	if len(webs) == 0 {
		return slices.ContainsFunc(w.in.Units, func(u Unit) bool { return u.has(w.Target) })
	}
	webs = slices.DeleteFunc(webs, func(u Unit) bool { return u.Lost })
	return len(webs) > 0 && !slices.ContainsFunc(webs, func(u Unit) bool { return !u.has(w.Target) })
}

func (w *work) answer() Output {
	out := Output{
		State: w.State, Units: w.units, Fetch: w.goal(), Deadline: w.deadline, Status: w.status(),
		Settled: w.Phase == Idle && len(w.behind) == 0 && w.Version != "",
	}
	current := w.goal()
	if w.Phase == Fetching {
		current = w.Version
	}
	if current != w.in.Current {
		out.Activate = current
	}
	return out
}

func (w *work) status() string {
	var sentences []string
	if w.Failure != "" {
		sentences = append(sentences, w.Failure)
	}
	progress := fmt.Sprintf("%d of %d units run it", len(w.in.Units)-len(w.behind), len(w.in.Units))
	switch w.Phase {
	case Fetching:
		sentences = append(sentences, fmt.Sprintf("Upgrading to v%s: installing it", w.Target))
	case Activating:
		sentences = append(sentences, fmt.Sprintf("Upgrading to v%s: waiting for the web server to answer with it", w.Target))
	case Rolling:
		sentences = append(sentences, fmt.Sprintf("Upgrading to v%s: %s", w.Target, progress))
	case RollingBack:
		sentences = append(sentences, fmt.Sprintf("Returning to v%s: %s", w.Version, progress))
	}
	if len(w.Late) > 0 {
		sentences = append(sentences, fmt.Sprintf("Not on v%s in time, see its status: %s", w.goal(), strings.Join(w.Late, ", ")))
	}
	return strings.Join(sentences, "; ")
}

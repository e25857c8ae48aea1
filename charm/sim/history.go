package sim

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"
)

// Record is one hook, action or command of a unit, and what it saw. The charm of package
// probe writes the same on real Juju: its hooks leave their own numbers with their unit's
// settings, and the leader's with the application's, so that what is seen tells who has
// written it.
type Record struct {
	Unit      string `json:"unit"`
	Life      int    `json:"life"`                // counts the starts of the unit's agent
	Event     string `json:"event"`               // name of the hook; Action or Command
	Remote    string `json:"remote,omitempty"`    // unit that the hook is about
	Departing string `json:"departing,omitempty"` // unit that leaves the relation

	Begin time.Duration `json:"begin"`          // all on one clock
	Read  time.Duration `json:"read,omitempty"` // when it had read all; zero: it has read nothing
	End   time.Duration `json:"end"`            // zero: it was cut off
	OK    bool          `json:"ok"`

	// What was seen. Units has the numbers of peers whose settings were read.
	Leader bool           `json:"leader"`
	App    int            `json:"app"`
	Self   int            `json:"self"`
	Units  map[string]int `json:"units,omitempty"`

	// Its own numbers, which nobody may see if it was not OK; zero is none.
	Wrote    int `json:"wrote,omitempty"`
	WroteApp int `json:"wrote_app,omitempty"`
}

// What is run between hooks.
const (
	Action  = "action"
	Command = "command" // juju-exec
)

// String is how errors name it.
func (r Record) String() string {
	return fmt.Sprintf("%s of %s %s at %.3f s", r.Event, r.Unit, r.Remote, r.Begin.Seconds())
}

func (r Record) application() string {
	name, _, _ := strings.Cut(r.Unit, "/")
	return name
}

// WriteHistory writes records, a line of JSON each.
func WriteHistory(to io.Writer, history []Record) error {
	lines := json.NewEncoder(to)
	for _, r := range history {
		if err := lines.Encode(r); err != nil {
			return fmt.Errorf("write history: %w", err)
		}
	}
	return nil
}

// ReadHistory reads what WriteHistory has written.
func ReadHistory(from io.Reader) ([]Record, error) {
	var history []Record
	for lines := json.NewDecoder(bufio.NewReader(from)); ; {
		var r Record
		if err := lines.Decode(&r); err == io.EOF {
			return history, nil
		} else if err != nil {
			return nil, fmt.Errorf("read history: %w", err)
		}
		history = append(history, r)
	}
}

// begins records what a hook sees at its beginning; sees adds what it reads.
func (ctx *hookContext) begins() {
	w := ctx.unit.world
	if w.log == nil {
		return
	}
	r := Record{Unit: ctx.unit.name, Life: ctx.unit.agent.lives, Event: ctx.event.Hook, Departing: ctx.event.Departing, Begin: w.now}
	switch {
	case ctx.event.Action != "":
		r.Event = Action
	case ctx.about == nil:
		r.Event = Command
	default:
		r.Remote = ctx.about.unit
	}
	ctx.recorded = len(*w.log)
	*w.log = append(*w.log, r)
}

// record is that of this hook; nil if nobody wants it.
func (ctx *hookContext) record() *Record {
	if log := ctx.unit.world.log; log != nil {
		return &(*log)[ctx.recorded]
	}
	return nil
}

// sees records the numbers of settings that the hook has read.
func (ctx *hookContext) sees(leader bool, read []string) {
	r, c := ctx.record(), ctx.unit.juju
	if r == nil {
		return
	}
	r.Leader, r.App, r.Self, r.Units = leader, c.peers.app.version, c.peers.units[r.Unit].version, map[string]int{}
	for _, name := range read {
		r.Units[name] = ctx.unit.agent.seen[c.peers.id][name].version
	}
	r.Read = ctx.unit.now
}

func (ctx *hookContext) ends(err error, wrote, wroteApp int) {
	if r := ctx.record(); r != nil {
		r.End, r.OK = ctx.unit.now, err == nil
		if err == nil {
			r.Wrote, r.WroteApp = wrote, wroteApp
		}
	}
}

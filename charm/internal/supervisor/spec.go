package supervisor

import (
	"time"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/concourse"
	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/options"
	"github.com/concourse-ci-machine/concourse-ci-machine/charm/product"
	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator"
)

// Spec is what a unit should be. Hooks write it, from what Juju tells them. It holds
// secrets, so its file belongs to root on the unit's own disk. The zero value asks for
// nothing.
type Spec struct {
	Unit    string `json:"unit"`
	Leaving bool   `json:"leaving,omitempty"` // the unit goes for good
	// Paused has the worker end with its builds, and stay out until an operator resumes it.
	Paused bool `json:"paused,omitempty"`
	// Asked is when Leaving or Paused was asked for: the worker's builds have DrainTimeout from
	// then on.
	Asked time.Time `json:"asked,omitzero"`

	// Where releases are, and come from.
	Root   string `json:"root"`             // of the volume
	Shared bool   `json:"shared,omitempty"` // others mount it, too
	Owner  string `json:"owner,omitempty"`  // of a shared volume: the model
	// Accepted is the state of a shared volume that an operator has accepted for all units:
	// instead of another one, or from another model.
	Accepted string `json:"accepted,omitempty"`
	Source   string `json:"source"`
	Digest   string `json:"digest,omitempty"` // of the archive, empty for that beside it
	// Proxies are those of downloads.
	Proxies options.Proxies `json:"proxies,omitzero"`

	// Contents are those of releases as the leader has found them, by version: a unit
	// runs no other, since all that share a volume can write to it.
	Contents map[string]string `json:"contents,omitempty"`

	Fetch   string `json:"fetch,omitempty"`   // version to have installed; empty for none
	Newest  bool   `json:"newest,omitempty"`  // find out the newest version
	Collect bool   `json:"collect,omitempty"` // remove releases that no unit needs

	// Run is the version to run the services from, once it is installed. Until then
	// they stay with the one that they run.
	Run      string `json:"run,omitempty"`
	Proven   string `json:"proven,omitempty"`   // a web server has answered with it, so Digest is not about it
	Activate bool   `json:"activate,omitempty"` // this unit says what is current on the volume
	Try      string `json:"try,omitempty"`      // the time for the web server's answer begins anew when it changes
	Over     string `json:"over,omitempty"`     // what was, when that was decided: a unit that leads no more replaces nothing else
	OverAs   int    `json:"over_as,omitempty"`  // generation of that

	// What the unit runs; nil is none.
	Web    *concourse.Web    `json:"web,omitempty"`
	Worker *concourse.Worker `json:"worker,omitempty"`

	// Halt is a migration of the database for which the web server is not to run; Migrate is it
	// on the unit that makes it.
	Halt    string     `json:"halt,omitempty"`
	Migrate *Migration `json:"migrate,omitempty"`

	// Restarts names the last restart that was asked for: a service that was started before is
	// started anew, a worker in its turn, or AtOnce.
	Restarts string `json:"restarts,omitempty"`
	AtOnce   bool   `json:"at_once,omitempty"`
	Check    Check  `json:"check,omitzero"` // of the releases on the volume

	// TSA are the addresses that concourse.TSAName means on this machine, with a space
	// between, the one to try first before; empty for none.
	TSA string `json:"tsa,omitempty"`
	// Land has a worker that is not described any more end with its builds, once it has
	// registered with the web server of this unit.
	Land bool `json:"land,omitempty"`
	// Turn is when a worker that runs may be replaced by the one that is described.
	Turn Turn `json:"turn,omitempty"`
	// MayLand says that the web server of another unit lists the worker as running, and stays
	// while it lands.
	MayLand bool `json:"may_land,omitempty"`
	Landed  bool `json:"landed,omitempty"` // or that the worker has landed, and may end
	// Landing are the units that have a turn to land their workers, for which the web server
	// of this unit stays as it is.
	Landing []string `json:"landing,omitempty"`
	// DrainTimeout is how long the builds of a worker that lands may go on.
	DrainTimeout time.Duration `json:"drain_timeout,omitempty"`

	// Watch are the addresses, host:port, of web servers to watch. One that has not
	// answered for Silence is Status.Silent. Its silence begins with the watch: for one that
	// is to begin later an address may be named again, with # and anything.
	Watch   []string      `json:"watch,omitempty"`
	Silence time.Duration `json:"silence,omitempty"`

	// Members are the units of the application, this one among them, also those that have
	// not joined the others yet. The worker of one that is gone is taken off the web
	// server's list, and what it has on the volume is removed.
	Members []string `json:"members,omitempty"`

	Again bool `json:"again,omitempty"` // wake the charm soon, whatever happens
}

// Migration is a change of the database's schema by the program of a version.
type Migration struct {
	ID      string `json:"id"`
	Version string `json:"version"`
	From    int64  `json:"from"` // schemas
	To      int64  `json:"to"`
	// Go says that no web server of the application runs. Until then, one that goes up has its
	// version made current, so that a unit which comes back starts no older web server.
	Go bool `json:"go,omitempty"`
}

// program is the version whose it is; empty for none.
func (m *Migration) program() string {
	if m == nil {
		return ""
	}
	return m.Version
}

// up tells whether it is one to a version.
func (m *Migration) up(version string) bool {
	return m != nil && m.Version == version && m.To > m.From
}

// Turn is a unit's among those whose workers have to be replaced.
type Turn string

const (
	NoTurn   Turn = ""     // none is needed: the units take no turns
	Unlisted Turn = "none" // none is needed: no web server lists the worker, if that stays so
	Wait     Turn = "wait" // for one
	TakeTurn Turn = "take" // land the worker
)

// volumeID is that of the shared volume which the unit has to use; empty before the first.
func (s Spec) volumeID(m Memory) string {
	if s.Accepted != "" {
		return coordinator.AcceptedID(s.Accepted)
	}
	return m.VolumeID
}

// options opens the volume of the spec.
func (s Spec) options(m Memory) coordinator.Options {
	o := coordinator.Options{Unit: s.Unit, Product: product.Concourse, Source: s.Source, Digest: s.Digest}
	if s.Shared {
		o.Marker, o.Owner, o.VolumeID = product.Marker, s.Owner, s.volumeID(m)
		// Once, and by one unit: or a volume that is empty, and attached by mistake later,
		// would become the accepted one unasked.
		if s.Activate && m.Accepted != s.Accepted {
			o.Accept = s.Accepted
		}
	}
	return o
}

package plan

import (
	"cmp"
	"fmt"
	"time"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/relations"
)

// Pause has this unit's worker end with its builds, and stay out until Resume. That is kept
// with the unit, since it is about its machine. It returns why it cannot be, if it cannot.
func (in *Input) Pause(now time.Time) (refused string) {
	app := in.Juju.Peers.App
	serves := in.Config.Mode == "auto" && in.Juju.Unit == cmp.Or(app[relations.WebUnit], app[relations.NextWebUnit])
	switch {
	case in.Before.Unit == "":
		return "this unit is still being prepared; try again in a minute"
	case in.Config.Mode == "web" || serves:
		return fmt.Sprintf("%s has the web server and no worker: pause a unit with a worker", in.Juju.Unit)
	case !in.Before.Paused:
		in.Before.Paused, in.Before.Asked = true, now.UTC().Truncate(time.Second)
	}
	return ""
}

// Resume has a worker that was paused start again. One that still ends with its builds does so
// first: Concourse cannot be told otherwise.
func (in *Input) Resume() { in.Before.Paused, in.Before.Asked = false, time.Time{} }

// pause is how far the unit's worker is with its pause; empty if there is none.
func (m *maker) pause() string {
	switch {
	case !m.Before.Paused || !m.worker:
		return ""
	case m.Status.Paused:
		return relations.Paused
	}
	return relations.Pausing
}

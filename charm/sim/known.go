package sim

import (
	"time"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/relations"
)

// known is a weakness of the product that the simulation has found, and that is still
// there: a rule does not count where it comes of that. TestKnown shows each.
type known string

const (
	// The database's schema is not taken down when an upgrade is taken back: the release
	// before does not start on it, and the newer one is not wanted.
	schemaStays known = "an upgrade that is taken back leaves the newer schema"
	// In the modes web and all, one web server takes the schema up beside the others.
	websGoOneByOne known = "a web server of the release before runs beside one that has taken the schema up"
	// Workers land in a change of the mode while web servers end that follow their builds.
	modeChanges known = "a change of the mode loses builds of workers that land"
)

// upgrading is how long after an upgrade has ended not all units have heard of that.
const upgrading = 3 * time.Minute

// excused tells whether what a rule complains of comes of a known weakness.
func (j *judge) excused(what known, u *unit) bool {
	if j.strict {
		return false
	}
	app := j.juju.peers.app.settings
	upgrade := app[relations.TargetVersion] != app[relations.ActiveVersion] || j.upgraded > 0 && j.now-j.upgraded < upgrading
	switch what {
	case schemaStays:
		return app[relations.FailedUpgrade] != "" && j.ci.schema > releases[app[relations.TargetVersion]].schema
	case websGoOneByOne:
		return upgrade && j.juju.config.Mode != "auto"
	case modeChanges:
		return j.mode > 0 && j.now-j.mode < upgrading
	}
	return false
}

package sim

import (
	"errors"
	"time"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/concourse"
	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/supervisor"
)

// schemaView is what the supervisor knows of the database: schema.go of that package.
type schemaView struct {
	of       concourse.Database
	query    attempt
	result   int // of the query under way
	version  int
	began    time.Duration
	next     time.Duration
	answered time.Duration // zero before the first answer
	failure  string
}

const (
	databaseEvery = 10 * time.Second
	databaseLimit = 5 * time.Second
)

var errDatabase = errors.New("the database does not answer")

func (d *driver) lookAtSchema(seen *supervisor.Seen) {
	v := &d.schema
	if d.spec.Web == nil {
		v.query.giveUp()
		v.of, v.answered, v.failure = concourse.Database{}, 0, ""
		d.status.Database, d.status.Schema = "", supervisor.Schema{}
		return
	}
	if v.of != d.spec.Web.Database {
		v.query.giveUp()
		v.of, v.answered, v.failure = d.spec.Web.Database, 0, ""
	}
	started := d.unit.files.memory.Started[concourse.ServerUnit].Version
	seen.Supported = map[string]int64{}
	for _, version := range []string{d.spec.Run, d.unit.files.memory.Running, started} {
		if _, installed := d.volume.known[version]; installed {
			seen.Supported[version] = int64(releases[version].schema)
		}
	}
	d.askDatabase(started)
	d.status.Database = v.failure
	seen.Schema = int64(v.version)
	seen.NoSchema = v.failure != "" || v.answered == 0 || d.unit.now-v.answered > 2*databaseEvery+databaseLimit
	d.status.Schema = d.misfit(seen, started)
}

func (d *driver) askDatabase(started string) {
	v := &d.schema
	own := d.health.web.answers && releases[started].schema == v.version
	if v.query.flight == nil {
		if own && v.failure == "" && d.unit.now-v.began < databaseEvery {
			return
		}
		v.next = d.unit.now
	}
	password := v.of.Password
	done, err := v.query.poll(d, func(f *flight) {
		d.unit.soon(5*time.Millisecond, 300*time.Millisecond, func() {
			ci := d.unit.ci
			if d.unit.machine.cut || ci.down || password != ci.credentials()["password"] {
				f.end(errDatabase)
				return
			}
			v.result = ci.schema
			f.end(nil)
		})
	})
	if done {
		v.version, v.began, v.answered, v.failure = v.result, v.next, d.unit.now, ""
	}
	if err != nil && v.query.failed > 1 {
		v.failure = err.Error()
	}
}

func (d *driver) misfit(seen *supervisor.Seen, started string) supervisor.Schema {
	for _, version := range []string{d.spec.Run, started} {
		supported, known := seen.Supported[version]
		left := version == started && d.health.web.answers && d.schema.began > d.health.web.turned && seen.Schema < supported
		takesUp := version == started && (!d.health.web.known || d.health.web.state.Running)
		due := version == d.spec.Run && !takesUp && seen.Schema > 0 && seen.Schema < supported
		if known && !seen.NoSchema && (seen.Schema > supported || left || due) {
			return supervisor.Schema{Release: version, Supported: supported, Database: seen.Schema, Due: due}
		}
	}
	return supervisor.Schema{}
}

package supervisor

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/concourse"
)

// Schema is that of the database, where it does not suit a release: a web server starts on
// that of its own alone, or in an empty database.
type Schema struct {
	Release   string `json:"release,omitempty"` // version that is to run, or runs
	Supported int64  `json:"supported,omitempty"`
	Database  int64  `json:"database,omitempty"`
	Due       bool   `json:"due,omitempty"` // it has to be taken up before the web server starts
}

// schemaView is what the supervisor knows of the database from look to look.
type schemaView struct {
	of       concourse.Database // which was asked
	query    attempt[int64]
	version  int64
	began    time.Time // when the question began that was answered last
	next     time.Time // when the one began that is under way
	answered time.Time // zero before the first answer
	releases map[string]*supports
}

// supports is the newest schema that a release supports.
type supports struct {
	ask    attempt[int64]
	newest int64
	known  bool
}

const (
	databaseLimit = 5 * time.Second  // for the database to answer
	programLimit  = 20 * time.Second // for a release to say what it supports
)

// lookAtSchema compares the database's schema with what the releases support that the web
// server runs, or is to run.
func (s *Supervisor) lookAtSchema(ctx context.Context, seen *Seen) {
	v := &s.schema
	if s.spec.Web == nil {
		v.ask(concourse.Database{})
		s.status.Database, s.status.Schema = "", Schema{}
		return
	}
	if v.of != s.spec.Web.Database {
		v.ask(s.spec.Web.Database)
	}
	started := s.memory.Started[concourse.ServerUnit].Version
	seen.Supported = map[string]int64{}
	for _, version := range []string{s.spec.Run, s.memory.Running, started} {
		if newest, known := s.askRelease(ctx, version); known {
			seen.Supported[version] = newest
		}
	}
	s.askDatabase(ctx, started)
	s.status.Database = v.query.trouble()
	seen.Schema, seen.NoSchema = v.version, s.status.Database != "" || time.Since(v.answered) > 2*s.Database+databaseLimit
	s.status.Schema = s.misfit(seen, started)
}

// ask forgets what another database has said.
func (v *schemaView) ask(db concourse.Database) {
	v.query.giveUp()
	v.of, v.answered = db, time.Time{}
}

// askDatabase asks every now and then, and at each look while the web server does not
// answer or its schema is not its own: it may be about to start, or take the schema up.
func (s *Supervisor) askDatabase(ctx context.Context, started string) {
	v := &s.schema
	own := s.services.web.answers && v.releases[started] != nil && v.releases[started].newest == v.version
	if !v.query.busy() {
		if own && v.query.failed <= 1 && time.Since(v.began) < s.Database {
			return
		}
		v.next = time.Now()
	}
	db := v.of
	version, done, _ := v.query.poll(ctx, s, func(ctx context.Context) (int64, error) {
		ctx, cancel := context.WithTimeout(ctx, databaseLimit)
		defer cancel()
		return s.Schema(ctx, db)
	})
	if done {
		v.version, v.began, v.answered = version, v.next, time.Now()
	}
}

// askRelease asks an installed release once for the newest schema that it supports.
func (s *Supervisor) askRelease(ctx context.Context, version string) (newest int64, known bool) {
	r := s.schema.releases[version]
	if r == nil {
		if _, installed := s.volume.installed[version]; !installed {
			return 0, false
		}
		r = &supports{ask: attempt[int64]{ended: s.lookSoon}}
		s.schema.releases[version] = r
	}
	if r.known {
		return r.newest, true
	}
	volume, found := s.volume.open, s.volume.installed[version]
	if expected := s.spec.Contents[version]; volume == nil || expected != "" && expected != found.contents {
		return 0, false // somebody has changed it: nothing of it is run
	}
	var err error
	r.newest, r.known, err = r.ask.poll(ctx, s, func(ctx context.Context) (newest int64, err error) {
		if err = s.verify(ctx, volume, version, found.contents); err == nil {
			ctx, cancel := context.WithTimeout(ctx, programLimit)
			defer cancel()
			newest, err = concourse.SupportedSchema(ctx, s.System, s.Paths.Release(version))
		}
		if err != nil {
			err = fmt.Errorf("cannot ask Concourse v%s which schema it supports: %w", version, err)
		}
		return newest, err
	})
	if err != nil {
		s.Log.Warn("will try again", "error", err)
	}
	s.status.Stuck = cmp.Or(s.status.Stuck, r.ask.trouble())
	return r.newest, r.known
}

// misfit returns the schema if the release that is wanted does not support it, or if it is
// not that of a web server that answers: another one has moved it.
func (s *Supervisor) misfit(seen *Seen, started string) Schema {
	for _, version := range []string{s.spec.Run, started} {
		supported, known := seen.Supported[version]
		left := version == started && s.services.web.answers && s.schema.began.After(s.services.web.turned) && seen.Schema < supported
		// What a web server has begun with an empty database it ends.
		takesUp := version == started && (s.services.web.asked.IsZero() || s.services.web.state.Running)
		due := version == s.spec.Run && !takesUp && seen.Schema > 0 && seen.Schema < supported
		if known && !seen.NoSchema && (seen.Schema > supported || left || due) {
			return Schema{Release: version, Supported: supported, Database: seen.Schema, Due: due}
		}
	}
	return Schema{}
}

// judged tells whether it is known how the schema suits a version. A release on a volume
// that is away cannot be asked.
func (v *schemaView) judged(version string) bool {
	r := v.releases[version]
	return v.query.trouble() != "" || !v.answered.IsZero() && (r == nil || r.known || r.ask.failed > 0)
}

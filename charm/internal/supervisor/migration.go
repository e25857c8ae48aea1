package supervisor

import (
	"context"
	"time"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/concourse"
)

// Progress is how far a change of the schema is. The zero value is that of none.
type Progress struct {
	Version string `json:"version,omitempty"` // whose program makes it
	From    int64  `json:"from,omitempty"`
	To      int64  `json:"to,omitempty"`
	Done    int    `json:"done,omitempty"`  // steps
	Steps   int    `json:"steps,omitempty"` // 0 while their number is not known
	Minutes int    `json:"minutes,omitempty"`
}

// migrationTries is how often a migration is begun before it counts as failed. The database
// answers before each, so that one which went away for once is no failure. From then on the
// pauses are longer, for the leader to hear of it.
const (
	migrationTries = 3
	failedRests    = 6
)

// Rests tells whether a migration that ended a while ago is not to be begun anew yet.
func (s Started) Rests(ended, pause time.Duration) bool {
	if s.Tries >= migrationTries {
		pause *= failedRests
	}
	return ended < pause
}

// nextMigration has the schema changed by a service that outlives the supervisor: one that
// runs is never started anew, and has no deadline. It is over when the database says so.
func nextMigration(paths concourse.Paths, spec Spec, seen Seen, m Memory, ready bool) Task {
	g, unit := spec.Migrate, concourse.MigrationUnit
	_, serves := m.Started[concourse.ServerUnit]
	started := m.Started[unit]
	_, installed := seen.Installed[g.program()]
	switch {
	case g == nil || spec.Web == nil:
		return stop(unit, seen, m)
	case started.Is != "" && started.Is != g.ID && seen.Running[unit]:
		return stop(unit, seen, m) // it is another one's
	case seen.Running[unit], seen.Stale, seen.MigrationRests, seen.NoSchema, seen.Schema == g.To:
		return Task{}
	case !g.Go, serves, seen.Running[concourse.ServerUnit], seen.WebChanges:
		return Task{}
	case g.To > g.From && (!ready || m.Running != g.Version), !installed, changed(spec, seen, g.Version), seen.Fault.severe():
		return Task{}
	}
	return Task{Verb: Start, Service: spec.Web.Migration(paths, g.Version, g.To), Version: g.Version, Is: g.ID}
}

// changed tells whether a release is not what the leader has found.
func changed(spec Spec, seen Seen, version string) bool {
	expected := spec.Contents[version]
	return expected != "" && expected != seen.Contents[version]
}

// migrated is Status.Migrated.
func migrated(spec Spec, seen Seen, m Memory) string {
	started := m.Started[concourse.MigrationUnit]
	switch g := spec.Migrate; {
	case g == nil || !g.Go || seen.Running[concourse.MigrationUnit]:
	case !seen.NoSchema && seen.Schema == g.To:
		return g.ID
	case started.Is == g.ID && started.Tries >= migrationTries && seen.MigrationFailed != "":
		return g.ID + " " + seen.MigrationFailed
	}
	return ""
}

// migrationView is what the supervisor knows of a migration from look to look.
type migrationView struct {
	asked time.Time // when systemd was asked; zero before it was
	state concourse.State
	ended time.Time // when it was first seen not to run
	words string    // its last words, of that end
	of    string    // version whose steps are
	list  attempt[[]int64]
	steps []int64
}

// succeeded is how a process exits with which nothing is wrong.
const succeeded = "exit status 0"

// lookAtMigration asks systemd how the migration is, and counts its steps.
func (s *Supervisor) lookAtMigration(ctx context.Context, seen *Seen) error {
	v, g, started := &s.migration, s.spec.Migrate, s.memory.Started[concourse.MigrationUnit]
	s.status.Migration = Progress{}
	if g == nil && started.Is == "" {
		v.list.giveUp()
		*v = migrationView{list: v.list}
		return nil
	}
	before := v.state
	state, err := s.System.State(ctx, concourse.MigrationUnit)
	if err != nil {
		return err
	}
	if !state.Running && (before.Running || v.asked.IsZero()) {
		v.ended, v.words = time.Now(), ""
	}
	v.asked, v.state = time.Now(), state
	seen.Running[concourse.MigrationUnit] = state.Running
	if g == nil {
		return nil
	}
	if ran := started.Is == g.ID && started.Tries > 0; ran && !state.Running {
		seen.MigrationRests = started.Rests(time.Since(v.ended), s.Backoff)
		if state.Exit != "" && state.Exit != succeeded {
			seen.MigrationFailed = "(" + state.Exit + ")"
			if v.words == "" {
				v.words = s.lastWords(ctx)
			}
			if v.words != "" {
				seen.MigrationFailed += ": " + v.words
			}
		}
	}
	if g.Go {
		s.status.Migration = s.progress(ctx, g, seen, started)
	}
	return nil
}

// lastWords are those of the migration.
func (s *Supervisor) lastWords(ctx context.Context) string {
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	words, err := s.System.LastWords(ctx, concourse.MigrationUnit)
	if err != nil {
		s.Log.Warn("cannot read the last words", "unit", concourse.MigrationUnit, "error", err)
	}
	var secrets []string
	if s.spec.Web != nil {
		secrets = s.spec.Web.Secrets()
	}
	return concourse.Quote(words, secrets...)
}

func (s *Supervisor) progress(ctx context.Context, g *Migration, seen *Seen, started Started) Progress {
	v := &s.migration
	if v.of != g.Version {
		v.list.giveUp()
		v.of, v.steps = g.Version, nil
	}
	if v.steps == nil && s.volume.open != nil {
		steps, done, err := v.list.poll(ctx, s, func(context.Context) ([]int64, error) {
			return concourse.Steps(s.Paths.Release(g.Version))
		})
		if done {
			v.steps = append([]int64{}, steps...) // and none is not nil
		}
		if err != nil {
			s.Log.Warn("cannot count the steps of the schema", "error", err)
		}
	}
	p := Progress{Version: g.Version, From: g.From, To: g.To, Steps: concourse.StepsBetween(v.steps, g.From, g.To)}
	if !seen.NoSchema {
		p.Done = concourse.StepsBetween(v.steps, g.From, seen.Schema)
	}
	if started.Is == g.ID && !started.At.IsZero() {
		p.Minutes = int(time.Since(started.At) / time.Minute)
	}
	return p
}

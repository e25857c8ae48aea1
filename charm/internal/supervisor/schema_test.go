package supervisor_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/concourse"
	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/supervisor"
)

const (
	old, next             = "7.14.2", "7.14.3"
	oldSchema, nextSchema = 100, 200
)

// A web server starts only on a schema that its release knows; one that runs is left
// alone, and its unit stays with its version.
func TestSchemaToStartOn(t *testing.T) {
	supported := map[string]int64{old: oldSchema, next: nextSchema}
	for name, test := range map[string]struct {
		run, running string
		schema       int64
		silent       bool // the database
		want         string
		starts       bool
	}{
		"the first on an empty database":     {run: old, want: old, starts: true},
		"the first, and no database":         {run: old, silent: true, want: old},
		"the first on a schema of its own":   {run: old, schema: oldSchema, want: old, starts: true},
		"the first on a newer schema":        {run: old, schema: nextSchema, want: old},
		"again, on a newer schema":           {run: old, running: old, schema: nextSchema, want: old},
		"a newer one has it taken up first":  {run: next, running: old, schema: oldSchema, want: old, starts: true},
		"a newer one on a schema of its own": {run: next, running: old, schema: nextSchema, want: next, starts: true},
		"in the middle":                      {run: next, running: next, schema: 150, want: next},
		"a newer one waits for the database": {run: next, running: old, schema: oldSchema, silent: true, want: old},
		"an older one on a newer schema":     {run: old, running: next, schema: nextSchema, want: next, starts: true},
		"an older one on one taken down":     {run: old, running: next, schema: oldSchema, want: old, starts: true},
		"a schema that nobody knows":         {run: next, running: old, schema: 300, want: old},
	} {
		t.Run(name, func(t *testing.T) {
			spec := supervisor.Spec{Unit: "ci/0", Run: test.run, Proven: test.running, Activate: true, Web: &concourse.Web{}}
			seen := supervisor.Seen{Installed: map[string]string{old: "", next: ""}, CurrentBy: "ci/0", Current: test.running,
				Schema: test.schema, NoSchema: test.silent, Supported: supported}
			m := supervisor.Memory{Running: test.running}
			starts := func() bool { return supervisor.Next(paths, spec, seen, m).Web.Verb == supervisor.Start }
			due := supervisor.Next(paths, spec, seen, m)
			require.Equal(t, test.want, due.Run)
			if due.Activate != "" {
				require.Equal(t, test.want, due.Activate)
			}
			seen.Current, m.Running = due.Run, due.Run
			require.Equal(t, test.starts, starts())

			// What runs undisturbed is not judged, and a file is read anew.
			service := spec.Web.Service(paths, due.Run)
			m.Started = map[string]supervisor.Started{concourse.ServerUnit: {Restart: service.RestartDigest()}}
			seen.Running = map[string]bool{concourse.ServerUnit: true}
			require.Equal(t, supervisor.Reload, supervisor.Next(paths, spec, seen, m).Web.Verb)
			seen.Running = nil
			require.Equal(t, test.starts, starts())

			// A worker has no schema.
			spec.Web, spec.Worker, m.Running, seen.WorkDir = nil, &concourse.Worker{}, test.running, "/w"
			require.Equal(t, test.run, supervisor.Next(paths, spec, seen, m).Run)
		})
	}
}

// database is one whose schema, and end, a test decides.
type database struct {
	schema atomic.Int64
	down   atomic.Bool
	mu     sync.Mutex
	asked  []concourse.Database
}

func (d *database) version(_ context.Context, db concourse.Database) (int64, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.asked = append(d.asked, db)
	if d.down.Load() {
		return 0, errors.New("at 10.0.0.9:5432 does not answer: connection refused")
	}
	return d.schema.Load(), nil
}

// on runs a web server of a version, which takes the schema up as Concourse does.
func on(t *testing.T, d *database, version string) (c *charm, spec supervisor.Spec, end func()) {
	t.Helper()
	c = newCharm(t)
	c.system.Schemas = map[string]int64{old: oldSchema, next: nextSchema}
	port := service(t, func(w http.ResponseWriter, _ *http.Request) {
		runs := concourse.VersionOf(c.system.Program(concourse.ServerUnit))
		d.schema.CompareAndSwap(0, c.system.Schemas[runs])
		fmt.Fprintf(w, `{"version":%q}`, runs)
	})
	spec = newMirror(t).serving(t.TempDir(), port, version)
	spec.Worker, spec.Web.Database.Host, spec.Web.Database.Password = nil, "10.0.0.9", "correct-horse"
	require.NoError(t, c.files.PutSpec(spec))
	return c, spec, c.run(t, d.use)
}

func (d *database) use(s *supervisor.Supervisor) { s.Schema = d.version }

func serves(version string) func(supervisor.Status) bool {
	return func(f supervisor.Status) bool {
		return f.Web.Version == version && f.Database == "" && f.Schema == supervisor.Schema{}
	}
}

// A database that does not answer is said, also while the web server runs; nothing starts.
func TestDatabaseGoesAway(t *testing.T) {
	d := &database{}
	d.down.Store(true)
	c, spec, _ := on(t, d, old)
	const away = "at 10.0.0.9:5432 does not answer: connection refused"
	eventually(t, "what is missing", c.saw(func(f supervisor.Status) bool { return f.Database == away && f.Run == old }))
	require.Empty(t, c.system.Up())
	d.down.Store(false)
	eventually(t, "that it serves", c.saw(serves(old)))
	d.down.Store(true)
	eventually(t, "what is missing", c.saw(func(f supervisor.Status) bool { return f.Database == away && f.Web.Version == old }))
	c.system.Done()
	c.system.Stop(concourse.ServerUnit)
	eventually(t, "that it is down", c.saw(func(f supervisor.Status) bool { return f.Web.Version == "" }))
	require.Empty(t, c.system.Done())
	d.down.Store(false)
	eventually(t, "that it serves", c.saw(serves(old)))

	// Other settings are another database's.
	web := *spec.Web
	web.Database.Host, spec.Web = "10.0.0.8", &web
	require.NoError(t, c.files.PutSpec(spec))
	eventually(t, "that it is asked", func() bool {
		d.mu.Lock()
		defer d.mu.Unlock()
		return slices.Contains(d.asked, web.Database)
	})
	d.down.Store(true)
	eventually(t, "what is missing", c.saw(func(f supervisor.Status) bool { return f.Database == away }))
	spec.Web = nil
	require.NoError(t, c.files.PutSpec(spec))
	eventually(t, "that it is of no concern", c.saw(func(f supervisor.Status) bool { return f.Web.Is == "" && f.Database == "" }))
}

// Another web server has moved the schema under one that runs.
func TestSchemaIsMovedByAnother(t *testing.T) {
	d := &database{}
	c, _, _ := on(t, d, old)
	eventually(t, "that it serves", c.saw(serves(old)))
	d.schema.Store(nextSchema)
	newer := supervisor.Schema{Release: old, Supported: oldSchema, Database: nextSchema}
	eventually(t, "that it is newer", c.saw(func(f supervisor.Status) bool { return f.Schema == newer && f.Web.Version == old }))
	require.Equal(t, []string{"start " + concourse.ServerUnit}, c.system.Done(), "who looks at its pages goes on")
	d.schema.Store(50)
	eventually(t, "that it is older", c.saw(func(f supervisor.Status) bool {
		return f.Schema == supervisor.Schema{Release: old, Supported: oldSchema, Database: 50}
	}))
	d.schema.Store(oldSchema)
	eventually(t, "that it serves", c.saw(serves(old)))
}

// What the database said before the web server had set it up says nothing of it.
func TestSchemaIsTakenUp(t *testing.T) {
	d, c := &database{}, newCharm(t)
	c.system.Schemas = map[string]int64{old: oldSchema}
	var held atomic.Bool // a question, the answer of which is that of before
	open := make(chan struct{})
	port := service(t, func(w http.ResponseWriter, _ *http.Request) {
		if !held.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		d.schema.Store(oldSchema)
		fmt.Fprintf(w, `{"version":%q}`, old)
	})
	spec := newMirror(t).serving(t.TempDir(), port, old)
	spec.Worker = nil
	require.NoError(t, c.files.PutSpec(spec))
	c.run(t, func(s *supervisor.Supervisor) {
		s.Schema = func(ctx context.Context, db concourse.Database) (int64, error) {
			version, err := d.version(ctx, db)
			if len(c.system.Up()) > 0 && held.CompareAndSwap(false, true) {
				select {
				case <-open:
				case <-ctx.Done():
				}
			}
			return version, err
		}
	})
	answers := func(f supervisor.Status) bool {
		require.Zero(t, f.Schema)
		return f.Web.Version == old
	}
	eventually(t, "that it answers", c.saw(answers))
	for began := time.Now(); time.Since(began) < 200*time.Millisecond; time.Sleep(time.Millisecond) {
		status, err := c.files.Status()
		require.NoError(t, err)
		require.True(t, answers(status))
		if time.Since(began) > 100*time.Millisecond && held.Load() {
			select {
			case <-open:
			default:
				close(open)
			}
		}
	}
}

// An older release is refused on a newer schema; the newer one serves on, also after it
// has ended, and again when the option is as it was.
func TestOlderReleaseIsRefused(t *testing.T) {
	d := &database{}
	c, spec, _ := on(t, d, next)
	eventually(t, "that it serves", c.saw(serves(next)))
	require.EqualValues(t, nextSchema, d.schema.Load())
	c.system.Done()
	spec.Fetch, spec.Run, spec.Proven = old, old, next
	require.NoError(t, c.files.PutSpec(spec))
	refused := supervisor.Schema{Release: old, Supported: oldSchema, Database: nextSchema}
	eventually(t, "the refusal", c.saw(func(f supervisor.Status) bool {
		return f.Schema == refused && f.Web.Version == next && f.Run == next && f.Current == next
	}))
	require.Empty(t, c.system.Done())
	c.system.Stop(concourse.ServerUnit)
	eventually(t, "its start", func() bool { return slices.Equal(c.system.Done(), []string{"start " + concourse.ServerUnit}) })
	require.Equal(t, next, concourse.VersionOf(c.system.Program(concourse.ServerUnit)))
	spec.Fetch, spec.Run = next, next
	require.NoError(t, c.files.PutSpec(spec))
	eventually(t, "that it serves", c.saw(serves(next)))
}

// A supervisor that is started anew says nothing of a web server before it knows the schema.
func TestReadyIsNotSaidBeforeTheSchema(t *testing.T) {
	d := &database{}
	c, spec, end := on(t, d, old)
	eventually(t, "that it serves", c.saw(serves(old)))
	d.schema.Store(nextSchema)
	open := make(chan struct{})
	c2 := &charm{system: c.system, files: c.files}
	end()
	require.NoError(t, c.files.PutStatus(supervisor.Status{}))
	c2.run(t, func(s *supervisor.Supervisor) {
		s.Schema = func(ctx context.Context, db concourse.Database) (int64, error) {
			select {
			case <-open:
			case <-ctx.Done():
			}
			return d.version(ctx, db)
		}
	})
	eventually(t, "a look", c2.saw(func(f supervisor.Status) bool { return f.Run == old && f.Web.Is == spec.Web.Identity() }))
	time.Sleep(200 * time.Millisecond) // some looks more
	status, err := c.files.Status()
	require.NoError(t, err)
	require.Empty(t, status.Web.Version)
	close(open)
	eventually(t, "both", c2.saw(func(f supervisor.Status) bool { return f.Web.Version == old && f.Schema.Release == old }))
}

// A release that cannot say what it supports starts nothing, and is said.
func TestReleaseThatCannotBeAsked(t *testing.T) {
	d, c := &database{}, newCharm(t)
	d.schema.Store(oldSchema)
	c.system.Schemas = map[string]int64{old: oldSchema}
	var broken atomic.Bool
	broken.Store(true)
	c.system.Fail = func(what string) error {
		if broken.Load() && what == "concourse migrate --supported-db-version" {
			return errors.New("permission denied")
		}
		return nil
	}
	spec := newMirror(t).serving(t.TempDir(), 1, old)
	spec.Worker = nil
	require.NoError(t, c.files.PutSpec(spec))
	c.run(t, d.use)
	eventually(t, "why", c.saw(func(f supervisor.Status) bool {
		return f.Stuck == "cannot ask Concourse v7.14.2 which schema it supports: permission denied"
	}))
	require.Empty(t, c.system.Done())
	broken.Store(false)
	eventually(t, "its start", func() bool { return len(c.system.Up()) == 1 })
}

// No program of a release is executed, by root at that, which is not what the leader has
// found: also not to ask it which schema it supports.
func TestChangedReleaseIsNotAsked(t *testing.T) {
	m, root, c := newMirror(t), t.TempDir(), newCharm(t)
	var executed atomic.Int32
	c.system.Fail = func(what string) error {
		if strings.HasPrefix(what, "concourse migrate") {
			executed.Add(1)
		}
		return nil
	}
	c.run(t)
	spec := m.serving(root, 1, "7.14.3")
	spec.Contents = map[string]string{"7.14.3": "sha256:another"}
	require.NoError(t, c.files.PutSpec(spec))
	eventually(t, "that it is another", c.saw(func(f supervisor.Status) bool { return f.Changed == "7.14.3" && f.Run == "" }))
	time.Sleep(300 * time.Millisecond)
	require.Empty(t, c.system.Up())
	require.Zero(t, executed.Load(), "the changed program was executed")
}

package supervisor_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/concourse"
	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/supervisor"
)

func migration(goes bool) *supervisor.Migration {
	return &supervisor.Migration{ID: "1", Version: next, From: oldSchema, To: nextSchema, Go: goes}
}

// The schema is changed by one service, after this unit's web server has stopped, from a
// release that is current and pinned.
func TestNextMigration(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*supervisor.Spec, *supervisor.Seen, *supervisor.Memory)
		want   supervisor.Verb
	}{
		"all have stopped": {func(*supervisor.Spec, *supervisor.Seen, *supervisor.Memory) {}, supervisor.Start},
		"not all have":     {func(s *supervisor.Spec, _ *supervisor.Seen, _ *supervisor.Memory) { s.Migrate = migration(false) }, ""},
		"its own runs": {func(_ *supervisor.Spec, seen *supervisor.Seen, _ *supervisor.Memory) {
			seen.Running[concourse.ServerUnit] = true
		}, ""},
		"its own is being started": {func(_ *supervisor.Spec, seen *supervisor.Seen, _ *supervisor.Memory) { seen.WebChanges = true }, ""},
		"it runs": {func(_ *supervisor.Spec, seen *supervisor.Seen, _ *supervisor.Memory) {
			seen.Running[concourse.MigrationUnit] = true
		}, ""},
		"the database is away": {func(_ *supervisor.Spec, seen *supervisor.Seen, _ *supervisor.Memory) { seen.NoSchema = true }, ""},
		"it is done":           {func(_ *supervisor.Spec, seen *supervisor.Seen, _ *supervisor.Memory) { seen.Schema = nextSchema }, ""},
		"in the middle":        {func(_ *supervisor.Spec, seen *supervisor.Seen, _ *supervisor.Memory) { seen.Schema = 150 }, supervisor.Start},
		"it has failed now":    {func(_ *supervisor.Spec, seen *supervisor.Seen, _ *supervisor.Memory) { seen.MigrationRests = true }, ""},
		"nobody has said so":   {func(_ *supervisor.Spec, seen *supervisor.Seen, _ *supervisor.Memory) { seen.Stale = true }, ""},
		"the volume is away": {func(_ *supervisor.Spec, seen *supervisor.Seen, _ *supervisor.Memory) {
			seen.Fault = supervisor.NotMounted
		}, ""},
		"another is current": {func(_ *supervisor.Spec, seen *supervisor.Seen, _ *supervisor.Memory) { seen.Current = old }, ""},
		"it is not pinned":   {func(_ *supervisor.Spec, _ *supervisor.Seen, m *supervisor.Memory) { m.Running = old }, ""},
		"it is not wanted":   {func(s *supervisor.Spec, _ *supervisor.Seen, _ *supervisor.Memory) { s.Migrate = nil }, ""},
		"somebody has changed the release": {func(s *supervisor.Spec, _ *supervisor.Seen, _ *supervisor.Memory) {
			s.Contents = map[string]string{next: "another"}
		}, ""},
		"it runs, and is not wanted": {func(s *supervisor.Spec, seen *supervisor.Seen, m *supervisor.Memory) {
			s.Migrate, seen.Running[concourse.MigrationUnit] = nil, true
			m.Started = map[string]supervisor.Started{concourse.MigrationUnit: {Is: "1"}}
		}, supervisor.Stop},
		"it may have begun, and is not wanted": {func(s *supervisor.Spec, _ *supervisor.Seen, m *supervisor.Memory) {
			*m = m.Begun(supervisor.Task{Verb: supervisor.Start, Service: concourse.Service{Unit: concourse.MigrationUnit}, Is: s.Migrate.ID})
			s.Migrate = nil
		}, supervisor.Stop},
		"another one's runs": {func(_ *supervisor.Spec, seen *supervisor.Seen, m *supervisor.Memory) {
			seen.Running[concourse.MigrationUnit] = true
			m.Started = map[string]supervisor.Started{concourse.MigrationUnit: {Is: "0"}}
		}, supervisor.Stop},
		"the unit leaves": {func(s *supervisor.Spec, seen *supervisor.Seen, m *supervisor.Memory) {
			s.Leaving, seen.Running[concourse.MigrationUnit] = true, true
		}, supervisor.Stop},
	} {
		t.Run(name, func(t *testing.T) {
			spec := supervisor.Spec{Unit: "ci/0", Run: next, Proven: old, Activate: true, Web: &concourse.Web{}, Halt: "1", Migrate: migration(true)}
			seen := supervisor.Seen{Installed: map[string]string{old: "", next: ""}, Current: next, CurrentBy: "ci/0", Running: map[string]bool{},
				Schema: oldSchema, Supported: map[string]int64{old: oldSchema, next: nextSchema}}
			m := supervisor.Memory{Running: next}
			test.change(&spec, &seen, &m)
			due := supervisor.Next(paths, spec, seen, m)
			require.Equal(t, test.want, due.Migrate.Verb)
			if test.want == supervisor.Start {
				require.Contains(t, due.Migrate.Service.Process, "/releases/7.14.3/bin/concourse migrate --migrate-db-to-version=200\n")
			}
			if spec.Migrate != nil {
				require.NotEqual(t, supervisor.Start, due.Web.Verb)
			}
		})
	}
}

// halted runs the web server of the old release, which is then stopped for a migration.
func halted(t *testing.T) (c *charm, d *database, spec supervisor.Spec, end func()) {
	t.Helper()
	d = &database{}
	c, spec, end = on(t, d, old)
	eventually(t, "that it serves", c.saw(serves(old)))
	spec.Fetch = next
	require.NoError(t, c.files.PutSpec(spec))
	eventually(t, "the release", c.saw(func(f supervisor.Status) bool { return f.Installed == next }))
	c.system.Done()
	spec.Run, spec.Proven = next, old
	require.NoError(t, c.files.PutSpec(spec))
	due := supervisor.Schema{Release: next, Supported: nextSchema, Database: oldSchema, Due: true}
	eventually(t, "that it is due", c.saw(func(f supervisor.Status) bool { return f.Schema == due && f.Run == old && f.Web.Version == old }))
	require.Empty(t, c.system.Done(), "the old one serves on")
	spec.Halt, spec.Migrate = "1", migration(false)
	require.NoError(t, c.files.PutSpec(spec))
	eventually(t, "that it has stopped", c.saw(func(f supervisor.Status) bool { return f.Halted == "1" && f.Pinned == next }))
	require.Equal(t, []string{"remove " + concourse.ServerUnit}, c.system.Done())
	spec.Migrate = migration(true)
	require.NoError(t, c.files.PutSpec(spec))
	eventually(t, "the migration", func() bool { return slices.Equal(c.system.Up(), []string{concourse.MigrationUnit}) })
	return c, d, spec, end
}

// A supervisor that is started anew finds the migration again, which goes on. The web server
// starts when it is over.
func TestMigrationOutlivesTheSupervisor(t *testing.T) {
	c, d, spec, end := halted(t)
	c.system.Done()
	end()
	require.Equal(t, []string{concourse.MigrationUnit}, c.system.Up())
	c2 := &charm{system: c.system, files: c.files}
	c2.run(t, d.use)
	d.schema.Store(150)
	eventually(t, "that it goes on", c2.saw(func(f supervisor.Status) bool { return f.Migration.Version == next && f.Migrated == "" }))
	time.Sleep(300 * time.Millisecond) // longer than a web server has to answer, and some looks
	require.Empty(t, c.system.Done(), "it is not begun anew")
	d.schema.Store(nextSchema)
	time.Sleep(50 * time.Millisecond)
	require.Empty(t, c.system.Done(), "it may have something left to do")
	c.system.Stop(concourse.MigrationUnit)
	eventually(t, "that it is done", c2.saw(func(f supervisor.Status) bool { return f.Migrated == "1" && f.Overdue == "" }))
	spec.Halt, spec.Migrate = "", nil
	require.NoError(t, c.files.PutSpec(spec))
	eventually(t, "that it serves", c2.saw(serves(next)))
	eventually(t, "the end of its file", func() bool { return slices.Contains(c.system.Done(), "remove "+concourse.MigrationUnit) })
}

// A migration that fails is begun anew, and then said to fail. No secret is.
func TestMigrationFails(t *testing.T) {
	c, d, spec, _ := halted(t)
	c.system.Done()
	d.schema.Store(150)
	starts := 1
	for range 2 {
		c.system.End(concourse.MigrationUnit, "exit status 1", "error: column is gone, says "+spec.Web.Database.Password)
		eventually(t, "the next try", func() bool { return slices.Equal(c.system.Up(), []string{concourse.MigrationUnit}) })
		starts++
	}
	status, err := c.files.Status()
	require.NoError(t, err)
	require.Empty(t, status.Migrated)
	c.system.End(concourse.MigrationUnit, "exit status 1", "error: column is gone, says "+spec.Web.Database.Password)
	eventually(t, "that it fails", c.saw(func(f supervisor.Status) bool {
		return strings.HasPrefix(f.Migrated, "1 (exit status 1): error: column is gone, says REDACTED")
	}))
	require.NotContains(t, c.found.Migrated, spec.Web.Database.Password)
	require.Equal(t, 3, starts)
}

// The program of the newer release takes the schema down; then the release before starts.
func TestSchemaIsTakenDown(t *testing.T) {
	c, d, spec, _ := halted(t)
	d.schema.Store(150)
	c.system.Stop(concourse.MigrationUnit)
	spec.Run, spec.Migrate = old, nil
	require.NoError(t, c.files.PutSpec(spec))
	newer := supervisor.Schema{Release: old, Supported: oldSchema, Database: 150}
	eventually(t, "that it is newer", c.saw(func(f supervisor.Status) bool { return f.Schema == newer }))
	c.system.Done()
	spec.Halt, spec.Migrate = "2", &supervisor.Migration{ID: "2", Version: next, From: 150, To: oldSchema, Go: true}
	require.NoError(t, c.files.PutSpec(spec))
	eventually(t, "the migration", func() bool { return slices.Equal(c.system.Up(), []string{concourse.MigrationUnit}) })
	definition, _ := c.system.Definition(concourse.MigrationUnit)
	require.Contains(t, definition, "/releases/7.14.3/bin/concourse migrate --migrate-db-to-version=100\n")
	d.schema.Store(oldSchema)
	c.system.Stop(concourse.MigrationUnit)
	eventually(t, "that it is done", c.saw(func(f supervisor.Status) bool { return f.Migrated == "2" }))
	spec.Halt, spec.Migrate = "", nil
	require.NoError(t, c.files.PutSpec(spec))
	eventually(t, "that it serves", c.saw(serves(old)))
}

package concourse_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/concourse"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/fixtures/release/releasetest"
	"github.com/concourse-ci-machine/concourse-ci-machine/internal/postgrestest"
)

const (
	schema7_6_0  = 1630515499
	schema7_14_2 = 1746768931
	// The way between them has six steps. The third changes the table jobs, the last makes
	// the table signing_keys.
	secondStep = 1645736232
	fifthStep  = 1666754000
)

// migration is a genuine release's program at work on a genuine database.
type migration struct {
	*testing.T
	db     *postgrestest.Database
	reader concourse.SchemaReader
}

func newMigration(t *testing.T) *migration {
	t.Helper()
	m := &migration{T: t, db: postgrestest.New(t).Database()}
	t.Cleanup(m.reader.Close)
	return m
}

func database(d *postgrestest.Database) concourse.Database {
	return concourse.Database{Host: d.Host, Port: d.Port, Name: d.Name, User: d.User, Password: d.Password}
}

// schema is what the charm reads.
func (m *migration) schema() int64 {
	m.Helper()
	ctx, cancel := context.WithTimeout(m.Context(), 5*time.Second)
	defer cancel()
	version, err := m.reader.Version(ctx, database(m.db))
	require.NoError(m, err)
	return version
}

// migrate is `concourse migrate` of a version.
func (m *migration) migrate(version string, args ...string) *exec.Cmd {
	m.Helper()
	d := m.db
	return exec.CommandContext(m.Context(), releasetest.Program(m, version), append([]string{"migrate",
		"--postgres-host=" + d.Host, "--postgres-port=" + d.Port, "--postgres-database=" + d.Name,
		"--postgres-user=" + d.User, "--postgres-password=" + d.Password, "--postgres-sslmode=disable"}, args...)...)
}

func (m *migration) migrated(version string, args ...string) {
	m.Helper()
	out, err := m.migrate(version, args...).CombinedOutput()
	require.NoError(m, err, "%s", out)
}

// held begins a migration that waits in the middle, until it is released.
func (m *migration) held() (up *exec.Cmd, release func()) {
	m.Helper()
	m.migrated("7.6.0", latest)
	release = m.db.Lock("jobs")
	up = m.migrate("7.14.2", latest)
	require.NoError(m, up.Start())
	require.Eventually(m, func() bool { return m.db.Waiting() == 1 }, time.Minute, 20*time.Millisecond)
	return up, release
}

const latest = "--migrate-to-latest-version"

// What the charm reads is what genuine releases write: on the way up, on the way down, and
// up again. Each says what it supports.
func TestSchemaOfGenuineReleases(t *testing.T) {
	t.Parallel()
	for version, want := range map[string]int64{"7.6.0": schema7_6_0, "7.14.2": schema7_14_2} {
		dir := t.TempDir()
		require.NoError(t, os.Mkdir(filepath.Join(dir, "bin"), 0o755))
		require.NoError(t, os.Symlink(releasetest.Program(t, version), filepath.Join(dir, "bin", "concourse")))
		supported, err := concourse.SupportedSchema(t.Context(), concourse.Machine{}, dir)
		require.NoError(t, err)
		require.Equal(t, want, supported)
	}
	m := newMigration(t)
	require.Zero(t, m.schema(), "an empty database")
	m.migrated("7.6.0", latest)
	require.EqualValues(t, schema7_6_0, m.schema())
	m.migrated("7.14.2", latest)
	require.EqualValues(t, schema7_14_2, m.schema())

	// The older release does not refuse what it cannot work on: it finds nothing to do.
	m.migrated("7.6.0", latest)
	require.EqualValues(t, schema7_14_2, m.schema())

	m.migrated("7.14.2", "--migrate-db-to-version="+strconv.Itoa(schema7_6_0))
	require.EqualValues(t, schema7_6_0, m.schema())
	m.migrated("7.14.2", latest)
	require.EqualValues(t, schema7_14_2, m.schema())
}

// A migration that waits is under way: the schema is the last one that it has reached, the
// database answers meanwhile, and it goes on by itself.
func TestSlowMigration(t *testing.T) {
	t.Parallel()
	m := newMigration(t)
	up, release := m.held()
	for range 10 {
		require.EqualValues(t, secondStep, m.schema())
		time.Sleep(20 * time.Millisecond)
	}
	release()
	require.NoError(t, up.Wait())
	require.EqualValues(t, schema7_14_2, m.schema())
}

// The service of the charm's own does so: with the settings of the web server, and the key by
// which the database is encrypted. The steps are those that the program takes.
func TestMigrationService(t *testing.T) {
	t.Parallel()
	m := newMigration(t)
	m.migrated("7.6.0", latest)
	const key = "0123456789abcdef"
	web := concourse.Web{Database: database(m.db), Options: "CONCOURSE_ENCRYPTION_KEY=" + key + "\nCONCOURSE_CLUSTER_NAME=ci\n"}
	for _, to := range []int64{schema7_14_2, schema7_6_0, schema7_14_2} {
		service := web.Migration(concourse.Paths{Volume: "/v", State: "/s"}, "7.14.2", to)
		_, command, _ := strings.Cut(service.Process, "ExecStart=/v/releases/7.14.2/bin/concourse ")
		command, _, _ = strings.Cut(command, "\n")
		require.NotContains(t, command, m.db.Password)
		require.NotContains(t, service.Process, "Restart=")
		run := exec.CommandContext(t.Context(), releasetest.Program(t, "7.14.2"), strings.Fields(command)...)
		for line := range strings.Lines(service.Files[0].Content) {
			name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
			run.Env = append(run.Env, name+"="+strings.Trim(value, `"`))
		}
		require.Contains(t, run.Env, "CONCOURSE_ENCRYPTION_KEY="+key)
		require.NotContains(t, run.Env, "CONCOURSE_CLUSTER_NAME=ci", "it is no setting of the database")
		out, err := run.CombinedOutput()
		require.NoError(t, err, "%s", out)
		require.EqualValues(t, to, m.schema())
	}
}

// The steps that a program takes can be counted, on the way up and down.
func TestSteps(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(dir, "bin"), 0o755))
	require.NoError(t, os.Symlink(releasetest.Program(t, "7.14.2"), filepath.Join(dir, "bin", "concourse")))
	steps, err := concourse.Steps(dir)
	require.NoError(t, err)
	require.EqualValues(t, schema7_14_2, steps[len(steps)-1])
	require.Equal(t, 6, concourse.StepsBetween(steps, schema7_6_0, schema7_14_2))
	require.Equal(t, 6, concourse.StepsBetween(steps, schema7_14_2, schema7_6_0))
	require.Equal(t, 2, concourse.StepsBetween(steps, schema7_6_0, secondStep))
	require.Equal(t, 4, concourse.StepsBetween(steps, schema7_14_2, secondStep))
	require.Zero(t, concourse.StepsBetween(nil, schema7_6_0, schema7_14_2))
}

// A step that fails is undone, and those before it stay. The next try goes on from there.
func TestFailingMigration(t *testing.T) {
	t.Parallel()
	m := newMigration(t)
	m.migrated("7.6.0", latest)
	m.db.Execute("CREATE TABLE signing_keys (somebody_elses int)")
	out, err := m.migrate("7.14.2", latest).CombinedOutput()
	require.Error(t, err)
	require.Contains(t, string(out), `relation "signing_keys" already exists`)
	require.NotContains(t, string(out), m.db.Password)
	require.EqualValues(t, fifthStep, m.schema())
	m.db.Execute("DROP TABLE signing_keys")
	m.migrated("7.14.2", latest)
	require.EqualValues(t, schema7_14_2, m.schema())
}

// A step in which the program dies is undone, too.
func TestMigrationDies(t *testing.T) {
	t.Parallel()
	m := newMigration(t)
	up, release := m.held()
	require.NoError(t, up.Process.Kill())
	require.Error(t, up.Wait())
	release()
	m.db.Disconnect() // the server goes on for a client that is gone
	require.EqualValues(t, secondStep, m.schema())
	m.migrated("7.14.2", latest)
	require.EqualValues(t, schema7_14_2, m.schema())
}

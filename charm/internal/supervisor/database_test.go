package supervisor_test

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/concourse"
	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/supervisor"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/fixtures/release/releasetest"
	"github.com/concourse-ci-machine/concourse-ci-machine/internal/postgrestest"
)

// settings are what the relation says of a database.
func settings(d *postgrestest.Database) concourse.Database {
	return concourse.Database{Host: d.Host, Port: d.Port, Name: d.Name, User: d.User, Password: d.Password}
}

// genuineSchema has the supervisor ask a genuine database.
func genuineSchema(t *testing.T) func(*supervisor.Supervisor) {
	reader := &concourse.SchemaReader{}
	t.Cleanup(reader.Close)
	return func(s *supervisor.Supervisor) { s.Schema = reader.Version }
}

// The password is changed under a web server that runs, and its database goes away and
// comes back: each is said, and over when its cause is.
func TestGenuineDatabaseChanges(t *testing.T) {
	server := postgrestest.New(t)
	d, c := server.Database(), newCharm(t)
	port := service(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintf(w, `{"version":%q}`, old) })
	spec := newMirror(t).serving(t.TempDir(), port, old)
	put := func() {
		t.Helper()
		web := *spec.Web
		web.Database = settings(d)
		spec.Web, spec.Worker = &web, nil
		require.NoError(t, c.files.PutSpec(spec))
	}
	put()
	c.run(t, genuineSchema(t))
	says := func(what string) {
		t.Helper()
		eventually(t, "that PostgreSQL "+what, c.saw(func(f supervisor.Status) bool { return f.Database == what && f.Web.Version == old }))
	}
	eventually(t, "that it serves", c.saw(serves(old)))

	d.Rotate()
	d.Disconnect()
	says(`refuses the web server: password authentication failed for user "relation-1"`)
	put()
	eventually(t, "that it serves", c.saw(serves(old)))

	server.Stop()
	says("at " + net.JoinHostPort(server.Host, server.Port) + " does not answer: connect: connection refused")
	server.Start()
	eventually(t, "that it serves", c.saw(serves(old)))
}

// genuine are two releases with four years between them. Their programs are asked what they
// support, and migrate the database; what runs as a service is a stand-in.
type genuine struct {
	*charm
	db     *postgrestest.Database
	spec   supervisor.Spec
	serves atomic.Bool // whether the web server answers
}

const older, newer = "7.6.0", "7.14.2"

func newGenuine(t *testing.T, version string) *genuine {
	t.Helper()
	g := &genuine{charm: newCharm(t), db: postgrestest.New(t).Database()}
	g.system.Schemas = map[string]int64{}
	for _, version := range []string{older, newer} {
		dir := t.TempDir()
		require.NoError(t, os.Mkdir(filepath.Join(dir, "bin"), 0o755))
		require.NoError(t, os.Symlink(releasetest.Program(t, version), filepath.Join(dir, "bin", "concourse")))
		supported, err := concourse.SupportedSchema(t.Context(), concourse.Machine{}, dir)
		require.NoError(t, err)
		g.system.Schemas[version] = supported
	}
	port := service(t, func(w http.ResponseWriter, _ *http.Request) {
		if !g.serves.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintf(w, `{"version":%q}`, concourse.VersionOf(g.system.Program(concourse.ServerUnit)))
	})
	g.spec = newMirror(t).serving(t.TempDir(), port, version)
	g.spec.Worker, g.spec.Web.Database = nil, settings(g.db)
	return g
}

// migrate is what a web server of a version does when it starts.
func (g *genuine) migrate(t *testing.T, version string) *exec.Cmd {
	t.Helper()
	return exec.CommandContext(t.Context(), releasetest.Program(t, version), "migrate", "--migrate-to-latest-version",
		"--postgres-host="+g.db.Host, "--postgres-port="+g.db.Port, "--postgres-database="+g.db.Name,
		"--postgres-user="+g.db.User, "--postgres-password="+g.db.Password, "--postgres-sslmode=disable")
}

// A migration that has to wait for a table goes on: nothing is said of a database that does not
// suit the release, and no web server starts. Then it serves, and the older release is refused.
func TestGenuineMigration(t *testing.T) {
	g := newGenuine(t, newer)
	require.NoError(t, g.migrate(t, older).Run())
	free := g.db.Lock("jobs")
	require.NoError(t, g.files.PutSpec(g.spec))
	g.run(t, genuineSchema(t))
	from, to := g.system.Schemas[older], g.system.Schemas[newer]
	due := supervisor.Schema{Release: newer, Supported: to, Database: from, Due: true}
	eventually(t, "that it is due", g.saw(func(f supervisor.Status) bool { return f.Schema == due }))
	g.spec.Halt, g.spec.Migrate = "1", &supervisor.Migration{ID: "1", Version: newer, From: from, To: to, Go: true}
	require.NoError(t, g.files.PutSpec(g.spec))
	eventually(t, "its start", func() bool { return len(g.system.Up()) == 1 })
	up := g.migrate(t, newer)
	require.NoError(t, up.Start())
	eventually(t, "that it waits for the table", func() bool { return g.db.Waiting() == 1 })
	for began := time.Now(); time.Since(began) < 500*time.Millisecond; time.Sleep(10 * time.Millisecond) {
		f, err := g.files.Status()
		require.NoError(t, err)
		require.Empty(t, f.Database)
		require.Empty(t, f.Migrated)
	}
	require.Equal(t, []string{"start " + concourse.MigrationUnit}, g.system.Done())
	free()
	require.NoError(t, up.Wait())
	g.system.Stop(concourse.MigrationUnit)
	eventually(t, "that it is done", g.saw(func(f supervisor.Status) bool { return f.Migrated == "1" }))
	g.serves.Store(true)
	g.spec.Halt, g.spec.Migrate = "", nil
	require.NoError(t, g.files.PutSpec(g.spec))
	eventually(t, "that it serves", g.saw(serves(newer)))
	g.system.Done()

	g.spec.Fetch, g.spec.Run, g.spec.Proven = older, older, newer
	require.NoError(t, g.files.PutSpec(g.spec))
	refused := supervisor.Schema{Release: older, Supported: g.system.Schemas[older], Database: g.system.Schemas[newer]}
	eventually(t, "the refusal", g.saw(func(f supervisor.Status) bool { return f.Schema == refused && f.Web.Version == newer && f.Run == newer }))
	require.Empty(t, g.system.Done())
}

// A web server does not start on a schema that a migration which fails has left, though
// something answers in its place. The migration is still due.
func TestGenuineMigrationFails(t *testing.T) {
	g := newGenuine(t, newer)
	require.NoError(t, g.migrate(t, older).Run())
	g.db.Execute("CREATE TABLE signing_keys (somebody_elses int)")
	require.Error(t, g.migrate(t, newer).Run())
	g.serves.Store(true)
	require.NoError(t, g.files.PutSpec(g.spec))
	g.run(t, genuineSchema(t))
	const fifthStep = 1666754000
	behind := supervisor.Schema{Release: newer, Supported: g.system.Schemas[newer], Database: fifthStep, Due: true}
	eventually(t, "that it is older", g.saw(func(f supervisor.Status) bool { return f.Schema == behind }))
	g.db.Execute("DROP TABLE signing_keys")
	require.NoError(t, g.migrate(t, newer).Run())
	eventually(t, "that it serves", g.saw(serves(newer)))
}

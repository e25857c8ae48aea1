package concourse_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/concourse"
)

// postgres is a genuine PostgreSQL of this machine, for one test.
type postgres struct {
	*testing.T
	db      concourse.Database
	process *os.Process
}

func newPostgres(t *testing.T) *postgres {
	t.Helper()
	programs, err := filepath.Glob("/usr/lib/postgresql/*/bin/postgres")
	require.NoError(t, err)
	if len(programs) == 0 {
		t.Skip("no PostgreSQL on this machine: install the package postgresql")
	}
	bin := filepath.Dir(slices.Max(programs))
	dir, err := os.MkdirTemp("", "schema") // PostgreSQL's user cannot enter t.TempDir
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	password := filepath.Join(dir, "password")
	require.NoError(t, os.WriteFile(password, []byte("p@ss/wo:rd %41\n"), 0o600))
	attributes := &syscall.SysProcAttr{}
	if os.Geteuid() == 0 { // as which PostgreSQL does not run
		account, err := user.Lookup("nobody")
		require.NoError(t, err)
		uid, err := strconv.Atoi(account.Uid)
		require.NoError(t, err)
		attributes.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}
		require.NoError(t, os.Chown(dir, uid, uid))
		require.NoError(t, os.Chown(password, uid, uid))
	}
	run := func(name string, args ...string) *exec.Cmd {
		cmd := exec.Command(filepath.Join(bin, name), args...)
		cmd.Dir, cmd.SysProcAttr, cmd.Env = dir, attributes, []string{"LC_ALL=C"}
		return cmd
	}
	out, err := run("initdb", "--pgdata=data", "--username=relation-1", "--auth=scram-sha-256", "--pwfile="+password, "--no-sync").CombinedOutput()
	require.NoError(t, err, "%s", out)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	_, port, err := net.SplitHostPort(listener.Addr().String())
	require.NoError(t, err)
	require.NoError(t, listener.Close())

	server := run("postgres", "-D", "data", "-p", port, "-k", dir, "-h", "127.0.0.1", "-c", "fsync=off")
	var log bytes.Buffer
	server.Stderr = &log
	require.NoError(t, server.Start())
	p := &postgres{t, concourse.Database{Host: "127.0.0.1", Port: port, Name: "postgres", User: "relation-1", Password: "p@ss/wo:rd %41"}, server.Process}
	t.Cleanup(func() {
		_ = server.Process.Signal(syscall.SIGQUIT)
		_ = server.Wait()
	})
	reader := &concourse.SchemaReader{}
	t.Cleanup(reader.Close)
	require.Eventually(t, func() bool {
		_, err := reader.Version(t.Context(), p.db)
		return err == nil
	}, 30*time.Second, 50*time.Millisecond, "%s", &log)
	return p
}

func (p *postgres) execute(sql string) {
	p.Helper()
	conn, err := pgconn.Connect(p.Context(), fmt.Sprintf("host=%s port=%s user=%s password='%s' dbname=%s sslmode=disable",
		p.db.Host, p.db.Port, p.db.User, p.db.Password, p.db.Name))
	require.NoError(p, err)
	defer conn.Close(p.Context())
	_, err = conn.Exec(p.Context(), sql).ReadAll()
	require.NoError(p, err)
}

// The rows are what Concourse 7.6.0 and 7.14.2 have written, shortened.
func TestSchemaVersion(t *testing.T) {
	p, reader := newPostgres(t), &concourse.SchemaReader{}
	defer reader.Close()
	at := func() int64 {
		t.Helper()
		version, err := reader.Version(t.Context(), p.db)
		require.NoError(t, err)
		return version
	}
	require.Zero(t, at(), "nothing was ever there")
	p.execute("CREATE TABLE migrations_history (version bigint, tstamp timestamp with time zone, direction varchar, status varchar, dirty boolean)")
	require.Zero(t, at(), "nothing has succeeded yet")
	step := func(version int64, direction, status string) {
		p.execute(fmt.Sprintf("INSERT INTO migrations_history VALUES (%d, clock_timestamp(), '%s', '%s', false)", version, direction, status))
	}
	for _, version := range []int64{1630515498, 1630515499, 1645735232, 1746768931} {
		step(version, "up", "passed")
	}
	require.EqualValues(t, 1746768931, at())
	step(1799999999, "up", "failed")
	require.EqualValues(t, 1746768931, at(), "what failed was rolled back")
	step(1746768931, "down", "passed")
	require.EqualValues(t, 1645735232, at())
	step(1645735232, "down", "passed")
	require.EqualValues(t, 1630515499, at(), "that of 7.6.0, which takes it for 1645735232")
	step(1645735232, "up", "passed")
	require.EqualValues(t, 1645735232, at())
}

func TestDatabaseThatDoesNotAnswer(t *testing.T) {
	p, reader := newPostgres(t), &concourse.SchemaReader{}
	defer reader.Close()
	fails := func(db concourse.Database) string {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		_, err := reader.Version(ctx, db)
		require.Less(t, time.Since(began), 10*time.Second)
		require.Error(t, err)
		require.NotContains(t, err.Error(), db.Password)
		return strings.ReplaceAll(err.Error(), db.Port, "PORT")
	}
	works := func() {
		t.Helper()
		_, err := reader.Version(t.Context(), p.db)
		require.NoError(t, err)
	}
	works()
	wrong := p.db
	wrong.Password = "hunter2"
	require.Equal(t, `refuses the web server: password authentication failed for user "relation-1"`, fails(wrong))
	wrong = p.db
	wrong.Name = "other"
	require.Equal(t, `refuses the web server: database "other" does not exist`, fails(wrong))
	wrong = p.db
	wrong.Host = "nowhere.invalid"
	require.Equal(t, "at nowhere.invalid:PORT does not answer: its name cannot be looked up", fails(wrong))
	wrong = p.db
	wrong.TLS = true
	require.Contains(t, fails(wrong), "at 127.0.0.1:PORT does not answer: ")
	works()

	// Its end is seen, and that it is back, too.
	p.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'concourse-ci-machine'")
	require.Eventually(t, func() bool {
		_, err := reader.Version(t.Context(), p.db)
		return err == nil
	}, 10*time.Second, 10*time.Millisecond)

	// One that hangs costs no more than the time that it is given.
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", p.process.Pid))
	require.NoError(t, err)
	signal := func(signal syscall.Signal) {
		require.NoError(t, p.process.Signal(signal))
		for pid := range strings.FieldsSeq(string(children)) {
			id, err := strconv.Atoi(pid)
			require.NoError(t, err)
			_ = syscall.Kill(id, signal) // one may have ended
		}
	}
	works()
	signal(syscall.SIGSTOP)
	failures := []string{fails(p.db), fails(p.db)}
	signal(syscall.SIGCONT)
	const silent = "at 127.0.0.1:PORT does not answer: it keeps silent"
	require.Equal(t, []string{silent, silent}, failures)

	require.NoError(t, p.process.Signal(syscall.SIGQUIT))
	require.Eventually(t, func() bool {
		return fails(p.db) == "at 127.0.0.1:PORT does not answer: connect: connection refused"
	}, 10*time.Second, 50*time.Millisecond)
}

// Package postgrestest gives a test a genuine PostgreSQL: a server in a container, made of
// the packages of this machine's distribution.
//
// Nothing of it is left when the test has ended, however it ends. A test that needs it skips
// where no Docker answers, or fails where CHARM_REQUIRE lists "docker".
package postgrestest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/url"
	"strconv"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"
	"github.com/testcontainers/testcontainers-go"
)

// port is that of every server; their addresses differ.
const port = "15432"

// startLimit is how long a server may take until it answers. It takes less than a second.
const startLimit = time.Minute

// Server is one for a test, at an address of its own on this machine.
type Server struct {
	Host, Port string

	t         testing.TB
	container testcontainers.Container
	accounts  int
}

// New starts a server.
func New(t testing.TB) *Server {
	t.Helper()
	s := &Server{t: t, Port: port, Host: fmt.Sprintf("127.%d.%d.%d", 1+rand.IntN(254), rand.IntN(256), 1+rand.IntN(254))}
	s.container = run(t, connect(t), map[string]string{"ADDRESS": s.Host, "PGPORT": port})
	return s
}

// Stop stops the server as its machine's end would; its address refuses connections.
func (s *Server) Stop() {
	s.t.Helper()
	s.do("pg_ctl", "stop", "--silent", "--mode=immediate")
}

// Start starts the server that was stopped, with the data that it had.
func (s *Server) Start() {
	s.t.Helper()
	s.do("sh", "-c", start)
}

// Freeze has the server keep silent: connections are made, and nothing is answered.
func (s *Server) Freeze() {
	s.t.Helper()
	s.do("sh", "-c", "kill -STOP -1")
}

// Thaw ends what Freeze has begun.
func (s *Server) Thaw() {
	s.t.Helper()
	s.do("sh", "-c", "kill -CONT -1")
}

func (s *Server) do(args ...string) {
	s.t.Helper()
	_, err := s.Run(s.t.Context(), nil, "", args...)
	require.NoError(s.t, err)
}

func (s *Server) administrator() (*pgconn.PgConn, error) {
	return connectTo(s.t.Context(), s.Host, "postgres", administrator, "postgres")
}

// Database is one on a server, with the user whom it belongs to.
type Database struct {
	Host, Port, Name, User, Password string

	server *Server
}

// Database makes a database, and a user for it. The password has what needs to be quoted.
func (s *Server) Database() *Database {
	s.t.Helper()
	s.accounts++
	name := strconv.Itoa(s.accounts)
	d := &Database{Host: s.Host, Port: s.Port, Name: "database-" + name, User: "relation-" + name, server: s}
	s.execute(fmt.Sprintf(`CREATE USER "%s"`, d.User))
	s.execute(fmt.Sprintf(`CREATE DATABASE "%s" OWNER "%s"`, d.Name, d.User))
	d.Rotate()
	return d
}

// Rotate gives the user another password. Sessions that are open go on, as PostgreSQL has it.
func (d *Database) Rotate() {
	d.server.t.Helper()
	d.Password = fmt.Sprintf("p@ss/wo:rd %%41 %d", rand.Uint64())
	d.server.execute(fmt.Sprintf(`ALTER USER "%s" PASSWORD '%s'`, d.User, d.Password))
}

// Disconnect ends the user's sessions, and returns when they have ended.
func (d *Database) Disconnect() {
	d.server.t.Helper()
	d.server.execute(fmt.Sprintf("SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE usename = '%s'", d.User))
}

// Execute executes statements as the user, and returns the last one's rows as text.
func (d *Database) Execute(sql string) [][]string {
	d.server.t.Helper()
	conn, err := connectTo(d.server.t.Context(), d.Host, d.User, d.Password, d.Name)
	require.NoError(d.server.t, err)
	defer conn.Close(context.Background())
	return execute(d.server.t, conn, sql)
}

// Lock keeps everybody else from reading and writing a table until it is released.
func (d *Database) Lock(table string) (release func()) {
	d.server.t.Helper()
	conn, err := connectTo(d.server.t.Context(), d.Host, d.User, d.Password, d.Name)
	require.NoError(d.server.t, err)
	execute(d.server.t, conn, fmt.Sprintf(`BEGIN; LOCK TABLE "%s" IN ACCESS EXCLUSIVE MODE`, table))
	release = func() { _ = conn.Close(context.Background()) }
	d.server.t.Cleanup(release)
	return release
}

// Waiting tells how many statements in the database wait for a lock.
func (d *Database) Waiting() int {
	d.server.t.Helper()
	rows := d.server.execute(fmt.Sprintf("SELECT count(*) FROM pg_stat_activity WHERE datname = '%s' AND wait_event_type = 'Lock'", d.Name))
	count, err := strconv.Atoi(rows[0][0])
	require.NoError(d.server.t, err)
	return count
}

// execute executes one statement as the administrator.
func (s *Server) execute(sql string) [][]string {
	s.t.Helper()
	conn, err := s.administrator()
	require.NoError(s.t, err)
	defer conn.Close(context.Background())
	return execute(s.t, conn, sql)
}

func execute(t testing.TB, conn *pgconn.PgConn, sql string) (rows [][]string) {
	t.Helper()
	results, err := conn.Exec(t.Context(), sql).ReadAll()
	require.NoError(t, err, "%s", sql)
	for _, row := range results[len(results)-1].Rows {
		var texts []string
		for _, value := range row {
			texts = append(texts, string(value))
		}
		rows = append(rows, texts)
	}
	return rows
}

func connectTo(ctx context.Context, host, user, password, database string) (*pgconn.PgConn, error) {
	place := url.URL{Scheme: "postgres", User: url.UserPassword(user, password), Host: host + ":" + port, Path: "/" + database, RawQuery: "sslmode=disable"}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	return pgconn.Connect(ctx, place.String())
}

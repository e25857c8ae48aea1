package concourse

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// SchemaReader asks a database for the version of its schema, over a connection that it
// keeps. It answers one question at a time.
//
// The database is asked and not `concourse migrate --current-db-version`: that fails on an
// empty database, and a program takes a schema for newer than it is that a newer one has
// taken down to its own.
type SchemaReader struct {
	of   Database // to which conn leads
	conn *pgconn.PgConn
}

// currentSchema reads the history as Concourse does. A step down from a version leads to
// the one before it.
const currentSchema = `SELECT CASE direction WHEN 'down' THEN
	(SELECT coalesce(max(version), 0) FROM migrations_history
		WHERE version < last.version AND status <> 'failed')
	ELSE version END
FROM (SELECT version, direction FROM migrations_history WHERE status <> 'failed' ORDER BY tstamp DESC LIMIT 1) AS last`

// undefinedTable is PostgreSQL's code for a table that is not there.
const undefinedTable = "42P01"

// Version returns 0 for a database that no web server has used. The error goes on where
// "PostgreSQL" begins a sentence.
func (r *SchemaReader) Version(ctx context.Context, db Database) (int64, error) {
	version, err := r.read(ctx, db)
	if pg := (*pgconn.PgError)(nil); errors.As(err, &pg) {
		switch {
		case pg.Code == undefinedTable:
			return 0, nil
		case !strings.HasPrefix(pg.Code, "57"): // it starts, or stops
			return 0, fmt.Errorf("refuses the web server: %s", pg.Message)
		}
	}
	if err == nil {
		return version, nil
	}
	r.Close()
	return 0, fmt.Errorf("at %s does not answer: %w", net.JoinHostPort(db.Host, db.Port), shorten(err))
}

// shorten keeps of an error of the network what stays from try to try: no ports of this
// end, and nothing of the settings.
func shorten(err error) error {
	if lookup := (*net.DNSError)(nil); errors.As(err, &lookup) {
		return errors.New("its name cannot be looked up")
	}
	if network := (*net.OpError)(nil); errors.As(err, &network) {
		return network.Err
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return errors.New("it keeps silent")
	}
	return err
}

func (r *SchemaReader) read(ctx context.Context, db Database) (int64, error) {
	if r.of != db || r.conn == nil || r.conn.IsClosed() {
		r.Close()
		config, err := db.connection()
		if err != nil {
			return 0, err
		}
		if r.conn, err = pgconn.ConnectConfig(ctx, config); err != nil {
			r.conn = nil
			return 0, err
		}
		r.of = db
	}
	results, err := r.conn.Exec(ctx, currentSchema).ReadAll()
	if err != nil {
		return 0, err
	}
	if len(results) == 0 || len(results[0].Rows) == 0 { // nothing has succeeded yet
		return 0, nil
	}
	return strconv.ParseInt(string(results[0].Rows[0][0]), 10, 64)
}

// Close ends the connection.
func (r *SchemaReader) Close() {
	if r.conn == nil {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel() // it says good-bye to nobody: who does not answer would not hear it
	_ = r.conn.Close(ctx)
	r.conn = nil
}

// connection is how the web server connects.
func (db Database) connection() (*pgconn.Config, error) {
	place := url.URL{
		Scheme: "postgres", User: url.UserPassword(db.User, db.Password),
		Host: net.JoinHostPort(db.Host, db.Port), Path: "/" + db.Name,
		RawQuery: "sslmode=disable&application_name=concourse-ci-machine",
	}
	config, err := pgconn.ParseConfig(place.String())
	if err == nil && db.TLS { // sslmode=require: encrypted, with whoever answers
		config.TLSConfig = &tls.Config{InsecureSkipVerify: true}
	}
	return config, err
}

// SupportedSchema asks the program of an installed release for the newest schema that it
// knows. It needs no database for that.
func SupportedSchema(ctx context.Context, system System, release string) (int64, error) {
	out, err := system.Output(ctx, filepath.Join(release, "bin", "concourse"), "migrate", "--supported-db-version")
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(strings.TrimSpace(out), 10, 64)
}

package concourse_test

import (
	"context"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/concourse"
	"github.com/concourse-ci-machine/concourse-ci-machine/internal/postgrestest"
)

// The rows are what Concourse 7.6.0 and 7.14.2 have written, shortened.
func TestSchemaVersion(t *testing.T) {
	p, reader := postgrestest.New(t).Database(), &concourse.SchemaReader{}
	defer reader.Close()
	at := func() int64 {
		t.Helper()
		version, err := reader.Version(t.Context(), database(p))
		require.NoError(t, err)
		return version
	}
	require.Zero(t, at(), "nothing was ever there")
	p.Execute("CREATE TABLE migrations_history (version bigint, tstamp timestamp with time zone, direction varchar, status varchar, dirty boolean)")
	require.Zero(t, at(), "nothing has succeeded yet")
	step := func(version int64, direction, status string) {
		p.Execute(fmt.Sprintf("INSERT INTO migrations_history VALUES (%d, clock_timestamp(), '%s', '%s', false)", version, direction, status))
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
	server, reader := postgrestest.New(t), &concourse.SchemaReader{}
	defer reader.Close()
	d := server.Database()
	fails := func(db concourse.Database) string {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		_, err := reader.Version(ctx, db)
		require.Less(t, time.Since(began), 10*time.Second)
		require.Error(t, err)
		require.NotContains(t, err.Error(), db.Password)
		return strings.ReplaceAll(err.Error(), net.JoinHostPort(server.Host, server.Port), "HERE")
	}
	works := func() {
		t.Helper()
		_, err := reader.Version(t.Context(), database(d))
		require.NoError(t, err)
	}
	works()
	wrong := database(d)
	wrong.Password = "hunter2"
	const refused = `refuses the web server: password authentication failed for user "relation-1"`
	require.Equal(t, refused, fails(wrong))
	wrong = database(d)
	wrong.Name = "other"
	require.Equal(t, `refuses the web server: database "other" does not exist`, fails(wrong))
	wrong = database(d)
	wrong.Host = "nowhere.invalid"
	require.Equal(t, "at nowhere.invalid:"+server.Port+" does not answer: its name cannot be looked up", fails(wrong))
	wrong = database(d)
	wrong.TLS = true
	require.Contains(t, fails(wrong), "at HERE does not answer: ")
	works()

	// Its end is seen, and that it is back, too.
	d.Disconnect()
	require.Eventually(t, func() bool {
		_, err := reader.Version(t.Context(), database(d))
		return err == nil
	}, 10*time.Second, 10*time.Millisecond)

	// A session outlives the password that it began with. The next one needs the new one.
	former := database(d)
	d.Rotate()
	_, err := reader.Version(t.Context(), former)
	require.NoError(t, err)
	d.Disconnect()
	require.Eventually(t, func() bool { return fails(former) == refused }, 10*time.Second, 10*time.Millisecond)
	works()

	// One that hangs costs no more than the time that it is given.
	server.Freeze()
	failures := []string{fails(database(d)), fails(database(d))}
	server.Thaw()
	const silent = "at HERE does not answer: it keeps silent"
	require.Equal(t, []string{silent, silent}, failures)
	works()

	server.Stop()
	require.Eventually(t, func() bool {
		return fails(database(d)) == "at HERE does not answer: connect: connection refused"
	}, 10*time.Second, 50*time.Millisecond)
	server.Start()
	works()
}

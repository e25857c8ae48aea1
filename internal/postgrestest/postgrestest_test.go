package postgrestest_test

import (
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/internal/postgrestest"
)

// What tests do with a server, and one server does not do for another.
func TestServer(t *testing.T) {
	s := postgrestest.New(t)
	d, other := s.Database(), s.Database()
	d.Execute("CREATE TABLE builds (id int); INSERT INTO builds VALUES (7)")
	require.Equal(t, [][]string{{"7"}}, d.Execute("SELECT id FROM builds"))
	require.Equal(t, [][]string{{""}}, other.Execute("SELECT to_regclass('builds')"))

	former := d.Password
	d.Rotate()
	require.NotEqual(t, former, d.Password)
	d.Execute("SELECT 1")

	release := d.Lock("builds")
	require.Zero(t, d.Waiting())
	read := make(chan struct{})
	go func() {
		defer close(read)
		d.Execute("SELECT id FROM builds")
	}()
	require.Eventually(t, func() bool { return d.Waiting() == 1 }, 10*time.Second, 10*time.Millisecond)
	require.Zero(t, other.Waiting())
	release()
	<-read

	s.Stop()
	_, err := net.Dial("tcp", net.JoinHostPort(s.Host, s.Port))
	require.ErrorContains(t, err, "connection refused")
	s.Start()
	require.Equal(t, [][]string{{"7"}}, d.Execute("SELECT id FROM builds"))

	s.Freeze()
	conn, err := net.Dial("tcp", net.JoinHostPort(s.Host, s.Port))
	require.NoError(t, err)
	defer conn.Close()
	s.Thaw()
	d.Execute("SELECT 1")
}

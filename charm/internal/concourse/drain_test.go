package concourse_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/concourse"
)

// A web server is killed when it has let go of its builds, and not before; a worker has
// the time that systemd gives it.
func TestWebServerIsKilledOnceItHasDrained(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	done := filepath.Join(dir, "done")
	script := func(name, text string) {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\nDIR="+dir+"\n"+text), 0o755))
	}
	// The process runs until it is killed, and the log has the line at the third look.
	script("systemctl", `case "$1" in
show) test -e $DIR/killed && echo MainPID=0 || echo MainPID=7;;
*) echo "$@" >> $DIR/done; test "$1" != kill || touch $DIR/killed;;
esac`)
	script("journalctl", `echo look >> $DIR/done; test $(grep -c look $DIR/done) -ge 3`)
	machine := concourse.Machine{Units: dir}
	require.NoError(t, machine.Restart(t.Context(), concourse.ServerUnit))
	text, err := os.ReadFile(done)
	require.NoError(t, err)
	require.Equal(t, "daemon-reload\nstop --no-block concourse-server.service\nlook\nlook\nlook\n"+
		"kill --signal=SIGKILL concourse-server.service\nstop concourse-server.service\nrestart concourse-server.service\n", string(text))

	require.NoError(t, os.Remove(done))
	require.NoError(t, machine.Restart(t.Context(), concourse.WorkerUnit))
	text, err = os.ReadFile(done)
	require.NoError(t, err)
	require.Equal(t, "daemon-reload\nrestart concourse-worker.service\n", string(text))
}

package juju

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// hungLXD listens on a unix socket, says who it is, and then answers nothing any more.
func hungLXD(t *testing.T) (socket string) {
	socket = filepath.Join(t.TempDir(), "unix.socket")
	listener, err := net.Listen("unix", socket)
	require.NoError(t, err)
	over := make(chan bool)
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/1.0" {
			fmt.Fprint(w, `{"type":"sync","status":"Success","status_code":200,"metadata":{"api_extensions":["storage","instances","container_full"]}}`)
			return
		}
		<-over
	})}
	go server.Serve(listener)
	t.Cleanup(func() { close(over); server.Close() })
	return socket
}

// clusterOn is a cluster whose model was made once, on a controller that is gone.
func clusterOn(t *testing.T, socket string) *Cluster {
	server, err := connectLXD(t.Context(), socket)
	require.NoError(t, err)
	t.Cleanup(server.stop)
	c := newCluster(t.Context(), Options{JujuData: t.TempDir(), Controller: "gone", Pool: "default"}, "ccbench-abcdef", server)
	c.modelUUID = "00000000-0000-0000-0000-000000abcdef"
	c.instanceNames["ci/0"] = "juju-abcdef-0"
	return c
}

func TestNothingHangsWithLXD(t *testing.T) {
	c := clusterOn(t, hungLXD(t))
	made := &volume{cluster: c, name: "ccbench-abcdef", size: 1 << 30}
	machine := c.Machine("ci/0")
	for name, call := range map[string]func(context.Context) error{
		"exec":         func(ctx context.Context) error { _, err := machine.Exec(ctx, "true"); return err },
		"run":          func(ctx context.Context) error { _, err := machine.Run(ctx, os.Args[0]); return err },
		"kill":         machine.Kill("ssh").Inject,
		"stop":         machine.Stop().Inject,
		"boot":         machine.Stop().Heal,
		"freeze":       machine.Freeze().Inject,
		"cut off":      machine.CutOff().Inject,
		"freeze agent": machine.FreezeAgent().Inject,
		"stop agent":   machine.StopAgent().Inject,
		"lock table":   machine.LockTable("ci", "jobs").Inject,
		"attach":       func(ctx context.Context) error { return made.Attach(ctx, "ci/0") },
		"detach":       made.Lost("ci/0").Inject,
		"full":         made.Full(1 << 20).Inject,
		"change":       func(ctx context.Context) error { return made.Change(ctx, "file", func(b []byte) []byte { return b }) },
		"new volume":   func(ctx context.Context) error { _, err := c.NewVolume(ctx, "1GiB"); return err },
		"delete":       func(ctx context.Context) error { return c.deleteContainer(ctx, "juju-abcdef-0") },
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			defer cancel()
			begin := time.Now()
			require.ErrorIs(t, call(ctx), context.DeadlineExceeded)
			require.Less(t, time.Since(begin), 5*time.Second)
		})
	}
}

func TestConnectingEnds(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "unix.socket")
	listener, err := net.Listen("unix", socket) // nobody accepts
	require.NoError(t, err)
	defer listener.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err = New(ctx, Options{LXDSocket: socket})
	require.ErrorIs(t, err, context.DeadlineExceeded)
}

func TestCollectAndDestroyEndWithEverythingGone(t *testing.T) {
	c := clusterOn(t, hungLXD(t))
	dir := t.TempDir()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	err := c.Collect(ctx, dir)
	require.ErrorContains(t, err, `no controller "gone"`)
	for _, file := range []string{"status.txt", "debug-log.txt", "machines.txt", "lxd-instances.json", "lxd-volumes.json"} {
		require.FileExists(t, filepath.Join(dir, file))
	}

	ctx, cancel = context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	err = c.Destroy(ctx)
	for _, what := range []string{"model", "containers", "volumes"} {
		require.ErrorContains(t, err, what)
	}
}

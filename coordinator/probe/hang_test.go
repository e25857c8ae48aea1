package probe

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/lyingfs"
)

// rounds is how often a process probes its mount.
const rounds = 3

// probed is what came of one round.
type probed struct {
	Result   Result
	Err      string
	Children int // of the process, after the probe has returned
}

// probeForTests probes the mount once for each line that it reads.
func probeForTests(dir string, helper []string) error {
	// Opened before anything hangs, and closed after each probe, while it may
	// still be at work.
	var roots []*os.Root
	for range rounds {
		root, err := os.OpenRoot(dir)
		if err != nil {
			return err
		}
		roots = append(roots, root)
	}
	prober := NewProber(helper...)
	lines, out := bufio.NewScanner(os.Stdin), json.NewEncoder(os.Stdout)
	if err := out.Encode(probed{}); err != nil { // it is ready
		return err
	}
	for _, root := range roots {
		if !lines.Scan() {
			return nil
		}
		var p probed
		var err error
		p.Result, err = prober.Mount(context.Background(), root)
		if err != nil {
			p.Err = err.Error()
		}
		root.Close()
		n, err := children()
		if err := errors.Join(err, out.Encode(probed{p.Result, p.Err, n})); err != nil {
			return err
		}
	}
	return nil
}

// remote is another process that probes a mount.
type remote struct {
	t      *testing.T
	orders io.Writer
	out    *json.Decoder
}

func startProber(t *testing.T, dir string, helper ...string) *remote {
	command := append(append(process(t, "probes"), helper...), dir)
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Stderr = os.Stderr
	orders, err := cmd.StdinPipe()
	require.NoError(t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		orders.Close()
		io.Copy(io.Discard, out)
		require.NoError(t, cmd.Wait())
	})
	r := &remote{t, orders, json.NewDecoder(out)}
	r.hear()
	return r
}

func (r *remote) hear() (p probed) {
	r.t.Helper()
	require.NoError(r.t, r.out.Decode(&p))
	require.Empty(r.t, p.Err)
	return p
}

func (r *remote) probe() probed {
	r.t.Helper()
	_, err := io.WriteString(r.orders, "\n")
	require.NoError(r.t, err)
	return r.hear()
}

// Whatever request hangs, and until the test lets it return, a probe returns. What
// hung is removed later, and a mount that hangs collects no processes.
func TestHangingMount(t *testing.T) {
	bare := []lyingfs.Request{lyingfs.Opendir, lyingfs.Mkdir, lyingfs.Link, lyingfs.Rmdir}
	for _, c := range []struct {
		request lyingfs.Request
		hangs   func(Result) Answer // what surely hangs then; nil if nothing has to
	}{
		{lyingfs.Lookup, func(r Result) Answer { return r.Link }},
		{lyingfs.Opendir, func(r Result) Answer { return r.SyncDir }},
		{lyingfs.Statfs, nil},
		{lyingfs.Mkdir, func(r Result) Answer { return r.Link }},
		{lyingfs.Create, func(r Result) Answer { return r.Link }},
		{lyingfs.Open, nil},
		{lyingfs.Getattr, nil},
		{lyingfs.Setattr, func(r Result) Answer { return r.Modes }},
		{lyingfs.Fsyncdir, func(r Result) Answer { return r.SyncDir }},
		{lyingfs.Symlink, func(r Result) Answer { return r.Symlink }},
		{lyingfs.Link, func(r Result) Answer { return r.Link }},
		{lyingfs.Renaming, func(r Result) Answer { return r.Rename }},
		{lyingfs.Unlink, nil},
		{lyingfs.Rmdir, nil},
	} {
		for name, helper := range map[string][]string{"with a helper": process(t, "helps"), "without": nil} {
			if helper == nil && !slices.Contains(bare, c.request) {
				continue // each takes four seconds, and the rest differ in nothing
			}
			t.Run(string(c.request)+" "+name, func(t *testing.T) {
				t.Parallel()
				dir, backing, m := lyingMount(t)
				prober := startProber(t, dir, helper...)
				// Before the process is waited for.
				t.Cleanup(func() { m.Tell(lyingfs.Lies{}) })
				m.Tell(lyingfs.Lies{Hung: []lyingfs.Request{c.request}})
				first := prober.probe()
				t.Log(first.Result, first.Result.Notes)
				if c.hangs != nil {
					require.Equal(t, Hangs, c.hangs(first.Result))
				}
				if c.request == lyingfs.Statfs {
					require.Empty(t, first.Result.FileSystem)
				}
				second := prober.probe()
				require.LessOrEqual(t, second.Children, 1, "each probe leaves a process")
				if c.hangs != nil {
					require.Equal(t, Hanging, second.Result.Locks)
					require.Equal(t, []string{"an earlier probe hangs still"}, second.Result.Notes)
				}
				m.Tell(lyingfs.Lies{})
				third := prober.probe()
				require.Zero(t, third.Children)
				require.Equal(t, "fuse", third.Result.FileSystem)
				require.Eventually(t, func() bool {
					entries, err := os.ReadDir(backing)
					return err == nil && len(entries) == 0
				}, time.Minute, 10*time.Millisecond, "a directory is left")
			})
		}
	}
}

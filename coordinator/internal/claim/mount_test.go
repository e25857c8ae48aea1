package claim

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/lyingfs"
	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/needs"
)

// orders are for a test binary that uses a mount which the test serves: the two
// must not be one process.
type orders struct {
	Mount, Backing string
	Seconds        int
}

// mounted serves a directory of claims.
func mounted(t *testing.T) (*lyingfs.Machine, orders) { return mountedWith(t, false) }

// mountedWith may keep the locks of the mount to itself.
func mountedWith(t *testing.T, nodeLocal bool) (m *lyingfs.Machine, o orders) {
	o = orders{Mount: t.TempDir(), Backing: t.TempDir()}
	require.NoError(t, os.MkdirAll(filepath.Join(o.Backing, "claims", "7.14.3"), 0o755))
	server := lyingfs.Serve(o.Backing)
	server.CountRequests = true
	m, err := server.Mount(o.Mount, nodeLocal)
	if err != nil {
		needs.Lack(t, "fuse", "cannot mount with FUSE here: %v", err)
	}
	t.Cleanup(func() {
		if err := m.Unmount(o.Mount); err != nil {
			t.Error("cannot unmount:", err)
		}
	})
	return m, o
}

func (o orders) log(t *testing.T, dir string) Log {
	root, err := os.OpenRoot(dir)
	require.NoError(t, err)
	t.Cleanup(func() { root.Close() })
	return logIn(root, "claims/7.14.3")
}

// run starts one of the tests below that follow orders. What it prints after "> "
// comes from hear, and tell answers it.
func (o orders) run(t *testing.T, test string) (tell func(), hear func() string) {
	data, err := json.Marshal(o)
	require.NoError(t, err)
	cmd := exec.Command(os.Args[0], "-test.run=^"+test+"$", "-test.v")
	cmd.Env = append(os.Environ(), "CLAIM_TEST_ORDERS="+string(data))
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			t.Error(test, err)
		}
	})
	lines := bufio.NewScanner(out)
	var all []string
	return func() { fmt.Fprintln(in) }, func() string {
		for lines.Scan() {
			all = append(all, lines.Text())
			if said, ok := strings.CutPrefix(lines.Text(), "> "); ok {
				return said
			}
		}
		t.Fatalf("%s ended early:\n%s", test, strings.Join(all, "\n"))
		return ""
	}
}

// ordered returns the orders of a test that run started.
func ordered(t *testing.T) (o orders) {
	text := os.Getenv("CLAIM_TEST_ORDERS")
	if text == "" {
		t.Skip("started by other tests")
	}
	require.NoError(t, json.Unmarshal([]byte(text), &o))
	return o
}

func say(what any) { fmt.Printf("> %v\n", what) }

// How long a unit waits is told in the time of its own bubble; the requests are
// those that its kernel makes. The caller's own look at what it waits for, two
// requests, is made in each round.
func TestRequestsOfAWaitingUnit(t *testing.T) {
	const perLook = 2
	waiting := func(seconds int) float64 {
		m, o := mounted(t)
		o.Seconds = seconds
		_, hear := o.run(t, "TestOrderedToWait")
		var rounds int
		_, err := fmt.Sscan(hear(), &rounds)
		require.NoError(t, err)
		requests := perLook * rounds
		for name, n := range m.Requests() {
			if name != "INIT" && name != "POLL" { // made at the mount
				requests += n
			}
		}
		t.Logf("%d s: %d rounds, %d requests, %.1f a second: %v", seconds, rounds, requests, float64(requests)/float64(seconds), m.Requests())
		return float64(requests)
	}
	short, long := waiting(20), waiting(120)
	require.LessOrEqual(t, short/20, 8.0, "requests a second in the first 20 s")
	require.LessOrEqual(t, (long-short)/100, 5.0, "requests a second after that")
}

// A unit waits for a holder that lives, on another machine, and says how often it
// has looked.
func TestOrderedToWait(t *testing.T) {
	o := ordered(t)
	synctest.Test(t, func(t *testing.T) {
		held, err := o.log(t, o.Backing).Try(t.Context(), Holder{Unit: "app/0", Version: "7.14.3"})
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(o.Seconds)*time.Second)
		defer cancel()
		rounds := 0
		_, err = o.log(t, o.Mount).Acquire(ctx, Holder{Unit: "app/1", Version: "7.14.3"}, func(Holder) error { rounds++; return nil })
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.NoError(t, held.Release())
		say(rounds)
	})
}

// Two mounts of one kernel, each of which keeps its locks to itself: that a lock is
// free in the one says nothing of who has it in the other.
func TestLocksOfTwoMounts(t *testing.T) {
	_, o := mountedWith(t, true)
	_, hear := o.run(t, "TestOrderedToUseTwoMounts")
	require.Equal(t, "claim is held", hear())
}

func TestOrderedToUseTwoMounts(t *testing.T) {
	o := ordered(t)
	l := o.log(t, o.Backing)
	l.Lease = 2 * time.Second
	held, err := l.Try(t.Context(), Holder{Unit: "app/0"})
	require.NoError(t, err)
	_, err = o.log(t, o.Mount).Try(t.Context(), Holder{Unit: "app/1"})
	say(err)
	require.NoError(t, held.Release())
}

// When the file server fails nobody knows who holds the claim: the fence stays
// shut, nobody claims, and nobody is named.
func TestServerFails(t *testing.T) {
	m, o := mounted(t)
	tell, hear := o.run(t, "TestOrderedToAskAFailingServer")
	require.Equal(t, "holds generation 1", hear())
	for _, broken := range []string{"claims", "claims/7.14.3", "claims/7.14.3/2"} {
		m.Tell(lyingfs.Lies{Broken: broken})
		tell()
		require.Equal(t, "check: input/output error, fenced false", hear(), broken)
	}
	for _, broken := range []string{"claims/7.14.3", "claims/7.14.3/2", "claims/7.14.3/1", "claims/7.14.3/1.beat"} {
		m.Tell(lyingfs.Lies{Broken: broken})
		tell()
		require.Equal(t, "holder: input/output error", hear(), broken)
		require.Equal(t, "try: input/output error", hear(), broken)
	}
	m.Tell(lyingfs.Lies{})
	tell()
	require.Equal(t, "check: <nil>", hear())
}

func TestOrderedToAskAFailingServer(t *testing.T) {
	o := ordered(t)
	l := o.log(t, o.Mount)
	c, err := l.Try(t.Context(), Holder{Unit: "app/0"})
	require.NoError(t, err)
	in := bufio.NewReader(os.Stdin)
	next := func() {
		_, err := in.ReadString('\n')
		require.NoError(t, err)
	}
	cause := func(err error) error {
		for errors.Unwrap(err) != nil {
			err = errors.Unwrap(err)
		}
		return err
	}
	say(fmt.Sprint("holds generation ", c.Generation()))
	for range 3 {
		next()
		err := c.Check()
		say(fmt.Sprintf("check: %v, fenced %v", cause(err), errors.Is(err, ErrFenced)))
	}
	l.Lockless = true
	for range 4 {
		next()
		_, err := l.Holder()
		say(fmt.Sprintf("holder: %v", cause(err)))
		_, err = l.Try(t.Context(), Holder{Unit: "app/1"})
		say(fmt.Sprintf("try: %v", cause(err)))
	}
	next()
	say(fmt.Sprintf("check: %v", c.Check()))
	require.NoError(t, c.Release())
}

// On a full volume a holder that gives up says so, and the next need not wait.
func TestFullVolume(t *testing.T) {
	for _, lies := range []lyingfs.Lies{{Write: syscall.ENOSPC}, {Flush: syscall.ENOSPC}, {Fsync: syscall.ENOSPC}} {
		m, o := mounted(t)
		lies.Until = math.MaxInt64
		m.Tell(lies)
		_, hear := o.run(t, "TestOrderedToFillTheVolume")
		require.Equal(t, "generations 1 2", hear())
	}
}

func TestOrderedToFillTheVolume(t *testing.T) {
	l := ordered(t).log(t, ordered(t).Mount)
	l.Lockless = true
	first, err := l.Try(t.Context(), Holder{Unit: "app/0"})
	require.NoError(t, err)
	require.NoError(t, first.Release())
	second, err := l.Try(t.Context(), Holder{Unit: "app/1"})
	require.NoError(t, err)
	require.NoError(t, second.Release())
	say(fmt.Sprint("generations ", first.Generation(), " ", second.Generation()))
}

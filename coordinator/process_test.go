package coordinator

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/claim"
)

// orders are what a process of the test binary is told through TEST_UNIT_ORDERS,
// beside where it is and what it wants.
type orders struct {
	Lease  time.Duration
	Point  string         // where to get the signal, the first time it is passed
	Signal syscall.Signal // 0 for none
	Trace  string         // file that gets a line for each event
	Deaths string         // directory: who removes a file of the name of a point dies there
	Litter bool           // collect in the end
}

// event is one line of a trace.
type event struct {
	Unit       string
	Point      string
	Version    string
	Generation int
	At         int64 // CLOCK_MONOTONIC, the same for all processes
}

// live is the life of a process that is a unit: it installs and activates each
// version it was told, separated by commas.
func live(root string) error {
	var o orders
	if text := os.Getenv("TEST_UNIT_ORDERS"); text != "" {
		if err := json.Unmarshal([]byte(text), &o); err != nil {
			return err
		}
	}
	var (
		mu      sync.Mutex
		version string
		trace   *os.File
	)
	if o.Trace != "" {
		var err error
		if trace, err = os.OpenFile(o.Trace, os.O_APPEND|os.O_WRONLY, 0); err != nil {
			return err
		}
	}
	unit := os.Getenv("TEST_UNIT")
	log := func(point string, generation int) {
		if trace == nil {
			return
		}
		line, err := json.Marshal(event{unit, point, version, generation, monotonic()})
		if err != nil {
			panic(err)
		}
		if _, err := trace.Write(append(line, '\n')); err != nil { // one write, so that lines stay whole
			panic(err)
		}
	}
	at := func(point string, generation int) {
		mu.Lock()
		defer mu.Unlock()
		log(point, generation)
		if point == o.Point && o.Signal != 0 {
			signal := o.Signal
			o.Signal = 0
			syscall.Kill(os.Getpid(), signal)
			time.Sleep(100 * time.Millisecond) // it takes a moment to arrive
		}
		if o.Deaths != "" && os.Remove(filepath.Join(o.Deaths, point)) == nil {
			log("killed", generation)
			syscall.Kill(os.Getpid(), syscall.SIGKILL)
			time.Sleep(time.Second)
		}
	}
	c, err := Open(context.Background(), root, Options{Product: concourse,
		Unit:   unit,
		Source: os.Getenv("TEST_UNIT_SOURCE"),
		Lease:  o.Lease,
		Log:    slog.New(slog.NewTextHandler(os.Stderr, nil)),
		Progress: func(p Progress) {
			if p.State == Downloading {
				at("downloading", 0)
			}
		},
	})
	if err != nil {
		return err
	}
	c.memory.at = at
	for v := range strings.SplitSeq(os.Getenv("TEST_UNIT_VERSION"), ",") {
		version = v
		if _, err := c.Ensure(context.Background(), v); err != nil {
			return err
		}
		at("ensured", 0)
		_, err := c.Activate(context.Background(), v)
		for errors.Is(err, ErrOvertaken) {
			_, err = c.Activate(context.Background(), v)
		}
		if err != nil {
			return err
		}
		at("look", 0)
		current, err := c.Current(context.Background())
		if err != nil {
			return err
		}
		version = current.Version
		at("looked", current.Generation)
	}
	if !o.Litter {
		return nil
	}
	_, err = c.Collect(context.Background())
	return err
}

func monotonic() int64 {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		panic(err)
	}
	return now.Nano()
}

func ordered(t *testing.T, cmd *exec.Cmd, o orders) *exec.Cmd {
	text, err := json.Marshal(o)
	require.NoError(t, err)
	cmd.Env = append(cmd.Env, "TEST_UNIT_ORDERS="+string(text))
	return cmd
}

// points where a unit can be hit, and whether it has published by then.
var points = []struct {
	name      string
	holds     bool // the claim
	published bool
}{
	{name: "claim"},
	{name: "before lock"},
	{name: "before claim"},
	{name: "claimed", holds: true},
	{name: "downloading", holds: true},
	{name: "staged", holds: true},
	{name: "fenced", holds: true},
	{name: "stored", holds: true},
	{name: "link", holds: true},
	{name: "published", holds: true, published: true},
	{name: "release", published: true},
	{name: "before done", published: true},
	{name: "released", published: true},
	{name: "held", published: true},
	{name: "activate", published: true},
	{name: "activated", published: true},
	{name: "linked", published: true},
}

// withoutFlock makes every flock on the volume fail.
func withoutFlock(t *testing.T, root string) {
	for _, version := range []string{"7.14.0", "7.14.1", "7.14.2", "7.14.3"} {
		require.NoError(t, os.MkdirAll(filepath.Join(root, claimsDir, version, "lock"), 0o755))
	}
}

// sound demands that 7.14.3 is installed, current and whole.
func sound(t *testing.T, root string) {
	t.Helper()
	program := filepath.Join(root, "bin", "concourse")
	text, err := os.ReadFile(program)
	require.NoError(t, err)
	require.Equal(t, "#!/bin/sh\necho 7.14.3\n", string(text))
	info, err := os.Stat(program)
	require.NoError(t, err)
	require.EqualValues(t, 0o555, info.Mode()) // not executed: this process may have it open still
	marker, err := os.ReadFile(filepath.Join(root, installedFile))
	require.NoError(t, err)
	require.Equal(t, "7.14.3\n", string(marker))
	require.Equal(t, []string{"1"}, list(t, filepath.Join(root, activationsDir))) // but for what a dead unit has not named
	require.Equal(t, []string{"7.14.3"}, list(t, filepath.Join(root, releasesDir)))
}

// list returns the names in dir, except hidden ones.
func list(t *testing.T, dir string) (names []string) {
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), ".") {
			names = append(names, e.Name())
		}
	}
	return names
}

// heir installs and activates in this process, and tells how long it took to
// get the claim.
func heir(t *testing.T, root string, src *source, lease time.Duration) (Release, time.Duration) {
	c := open(t, root, "concourse-ci/1", src.URL, func(o *Options) { o.Lease = lease })
	start, claimed := time.Now(), time.Duration(0)
	c.memory.at = func(point string, _ int) {
		if point == "claimed" {
			claimed = time.Since(start)
		}
	}
	r, err := c.Ensure(context.Background(), "7.14.3")
	require.NoError(t, err)
	_, err = c.Activate(context.Background(), "7.14.3")
	require.NoError(t, err)
	return r, claimed
}

func TestKilledAtEachPoint(t *testing.T) {
	for _, flock := range []bool{true, false} {
		// With flock nobody waits for a lease, however long it is.
		lease, limit := time.Minute, time.Second
		if !flock {
			lease = time.Second
			limit = lease + time.Second
		}
		for _, p := range points {
			t.Run(fmt.Sprintf("flock %v/%s", flock, p.name), func(t *testing.T) {
				t.Parallel()
				src := newSource(t, "7.14.3")
				root := t.TempDir()
				defer watch(t, root)()
				if !flock {
					withoutFlock(t, root)
				}
				var output bytes.Buffer
				victim := ordered(t, unitProcess(t, root, "concourse-ci/0", src.URL, "7.14.3", &output), orders{Lease: lease, Point: p.name, Signal: syscall.SIGKILL})
				err := victim.Run()
				require.ErrorContains(t, err, "killed", output.String())
				require.Equal(t, p.published, len(list(t, filepath.Join(root, releasesDir))) > 0)

				r, claimed := heir(t, root, src, lease)
				t.Log("take-over after", claimed)
				require.Less(t, claimed, limit)
				require.Equal(t, !p.published, r.Downloaded)
				sound(t, root)
				if !p.published {
					require.Empty(t, listing(t, filepath.Join(root, stagingDir)))
				}
				if !flock && p.holds && !p.published {
					require.GreaterOrEqual(t, claimed, lease, "took over from who might live")
				}
			})
		}
	}
}

// stopped waits until all of a process sleeps.
func stopped(t *testing.T, pid int) {
	require.Eventually(t, func() bool {
		data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
		if err != nil {
			return false
		}
		_, rest, _ := strings.Cut(string(data), ") ")
		return strings.HasPrefix(rest, "T")
	}, 20*time.Second, 5*time.Millisecond, "the unit did not get to the point")
}

// A unit sleeps for longer than its lease, and wakes when another one has done
// its work.
func TestStoppedAtEachPoint(t *testing.T) {
	for _, flock := range []bool{true, false} {
		for _, p := range points {
			t.Run(fmt.Sprintf("flock %v/%s", flock, p.name), func(t *testing.T) {
				t.Parallel()
				const lease = time.Second
				src := newSource(t, "7.14.3")
				root := t.TempDir()
				defer watch(t, root)()
				if !flock {
					withoutFlock(t, root)
				}
				var output bytes.Buffer
				sleeper := ordered(t, unitProcess(t, root, "concourse-ci/0", src.URL, "7.14.3", &output), orders{Lease: lease, Point: p.name, Signal: syscall.SIGSTOP})
				require.NoError(t, sleeper.Start())
				t.Cleanup(func() { sleeper.Process.Kill() })
				stopped(t, sleeper.Process.Pid)

				r, claimed := heir(t, root, src, lease)
				require.Equal(t, !p.published, r.Downloaded)
				require.Less(t, claimed, lease+time.Second)
				if p.holds && !p.published {
					require.GreaterOrEqual(t, claimed, lease, "took over from who might live")
				}
				sound(t, root)
				before, err := os.Stat(r.Dir)
				require.NoError(t, err)

				require.NoError(t, sleeper.Process.Signal(syscall.SIGCONT))
				require.NoError(t, sleeper.Wait(), output.String())
				sound(t, root)
				after, err := os.Stat(r.Dir)
				require.NoError(t, err)
				require.True(t, os.SameFile(before, after), "the release was replaced")
				if !p.published {
					require.Contains(t, output.String(), "Reusing Concourse binaries v7.14.3 installed by concourse-ci/1")
				}
				require.Empty(t, listing(t, filepath.Join(root, stagingDir)))
			})
		}
	}
}

// A collector is hit at each of its points, and before it is heard of again
// another unit comes to need a release that it was about to remove.
func TestCollectorHitAtEachPoint(t *testing.T) {
	for _, signal := range []syscall.Signal{syscall.SIGKILL, syscall.SIGSTOP} {
		for _, point := range []string{"collecting", "pins", "collect"} {
			t.Run(fmt.Sprintf("%v/%s", signal, point), func(t *testing.T) {
				t.Parallel()
				const lease = time.Second
				src := newSource(t, "7.14.0", "7.14.1", "7.14.2", "7.14.3")
				root := t.TempDir()
				defer watch(t, root)()
				var output bytes.Buffer
				victim := ordered(t, unitProcess(t, root, "concourse-ci/0", src.URL, "7.14.0,7.14.1,7.14.2,7.14.3", &output),
					orders{Lease: lease, Point: point, Signal: signal, Litter: true})
				require.NoError(t, victim.Start())
				t.Cleanup(func() { victim.Process.Kill() })
				if signal == syscall.SIGKILL {
					require.ErrorContains(t, victim.Wait(), "killed", output.String())
				} else {
					stopped(t, victim.Process.Pid)
				}
				c := open(t, root, "concourse-ci/1", src.URL, func(o *Options) { o.Lease = lease })
				require.NoError(t, pin(t, c, "7.14.0"))
				if signal == syscall.SIGSTOP {
					require.NoError(t, victim.Process.Signal(syscall.SIGCONT))
					require.NoError(t, victim.Wait(), output.String())
				}
				_, err := c.Installed(t.Context(), "7.14.0")
				require.NoError(t, err)
				_, err = c.Collect(t.Context())
				require.NoError(t, err)
				require.Equal(t, []string{"7.14.0", "7.14.2", "7.14.3"}, list(t, filepath.Join(root, releasesDir)))
				require.Empty(t, listing(t, filepath.Join(root, stagingDir)))
			})
		}
	}
}

// A unit that has staged a release sleeps, and wakes while another one holds the
// claim but has not published.
func TestSleeperPublishesNothingUnderALaterClaim(t *testing.T) {
	const lease = time.Second
	src := newSource(t, "7.14.3")
	root := t.TempDir()
	defer watch(t, root)()
	var output bytes.Buffer
	sleeper := ordered(t, unitProcess(t, root, "concourse-ci/0", src.URL, "7.14.3", &output), orders{Lease: lease, Point: "staged", Signal: syscall.SIGSTOP})
	require.NoError(t, sleeper.Start())
	t.Cleanup(func() { sleeper.Process.Kill() })
	stopped(t, sleeper.Process.Pid)

	c := open(t, root, "concourse-ci/1", src.URL, func(o *Options) { o.Lease = lease })
	held, err := inside(t, c).claims(t.Context(), "7.14.3").Acquire(context.Background(), inside(t, c).holder("7.14.3"), func(claim.Holder) error { return nil })
	require.NoError(t, err)
	require.NoError(t, sleeper.Process.Signal(syscall.SIGCONT))
	time.Sleep(2 * lease)
	require.Empty(t, list(t, filepath.Join(root, releasesDir)), "published although it had lost the claim")
	require.NoError(t, held.Check())

	require.NoError(t, held.Release())
	require.NoError(t, sleeper.Wait(), output.String())
	require.Contains(t, output.String(), "another unit took over")
	sound(t, root)
}

// The one that operators set for everything on a machine.
func TestProxyOfTheEnvironment(t *testing.T) {
	proxy := newSource(t, "7.14.3") // a proxy is asked for whole URLs, and answers
	root := t.TempDir()
	var output bytes.Buffer
	cmd := unitProcess(t, root, "concourse-ci/0", "http://mirror.invalid/concourse", "7.14.3", &output)
	cmd.Env = append(cmd.Env, "http_proxy="+proxy.URL, "HTTP_PROXY="+proxy.URL, "no_proxy=", "NO_PROXY=")
	require.NoError(t, cmd.Run(), output.String())
	requests, _ := proxy.archives()
	require.Len(t, requests, 1)
	sound(t, root)
}

// Eight processes at once, where flock fails, and where it lets everybody in
// because its file was removed.
func TestManyProcessesDownloadOnceWithoutLocks(t *testing.T) {
	const units = 8
	src := newSource(t, "7.14.3")
	root := t.TempDir()
	defer watch(t, root)()
	withoutFlock(t, root)
	var logs [units]bytes.Buffer
	var cmds [units]*exec.Cmd
	for i := range units {
		cmds[i] = unitProcess(t, root, fmt.Sprintf("concourse-ci/%d", i), src.URL, "7.14.3", &logs[i])
		require.NoError(t, cmds[i].Start())
	}
	for i, cmd := range cmds {
		require.NoError(t, cmd.Wait(), logs[i].String())
	}
	requests, _ := src.archives()
	require.Len(t, requests, 1)
	sound(t, root)
}

// Who waits sees a publication soon, however many wait.
func TestWaitersSeeThePublication(t *testing.T) {
	const units = 24
	src := newSource(t, "7.14.3")
	src.answer(func(w http.ResponseWriter, r *http.Request) bool {
		if strings.HasSuffix(r.URL.Path, ".tgz") {
			time.Sleep(3 * time.Second) // until all have come and wait at their slowest
		}
		return false
	})
	root := t.TempDir()
	trace := filepath.Join(t.TempDir(), "trace")
	require.NoError(t, os.WriteFile(trace, nil, 0o644))
	var cmds [units]*exec.Cmd
	for i := range units {
		cmds[i] = ordered(t, unitProcess(t, root, fmt.Sprintf("concourse-ci/%d", i), src.URL, "7.14.3", io.Discard), orders{Lease: time.Minute, Trace: trace})
		require.NoError(t, cmds[i].Start())
	}
	for _, cmd := range cmds {
		require.NoError(t, cmd.Wait())
	}
	data, err := os.ReadFile(trace)
	require.NoError(t, err)
	var published int64
	claims := 0
	var ends []int64
	for line := range bytes.Lines(data) {
		var e event
		require.NoError(t, json.Unmarshal(line, &e))
		switch e.Point {
		case "claimed":
			claims++
		case "published":
			published = e.At
		case "ensured":
			ends = append(ends, e.At) // before "published", perhaps: that is said after a sync
		}
	}
	require.Len(t, ends, units)
	var took []time.Duration
	for _, end := range ends {
		took = append(took, time.Duration(end-published))
	}
	slices.Sort(took)
	t.Logf("publication to return: p50 %v, slowest %v", took[units/2], took[units-1])
	require.Less(t, took[units/2], 500*time.Millisecond) // 250 ms on a machine with nothing else to do
	require.Less(t, took[units-1], 2*time.Second)
	require.LessOrEqual(t, claims, 3, "claims of what was published already")
}

// A holder whose connection stalls for longer than a lease shows that it lives.
func TestSlowHolderKeepsItsClaim(t *testing.T) {
	const lease = 500 * time.Millisecond
	src := newSource(t, "7.14.3")
	root := t.TempDir()
	withoutFlock(t, root)
	begun := make(chan struct{})
	var once sync.Once
	src.answer(func(w http.ResponseWriter, r *http.Request) bool {
		if strings.HasSuffix(r.URL.Path, ".tgz") {
			once.Do(func() {
				close(begun)
				time.Sleep(4 * lease)
			})
		}
		return false
	})
	slow := ordered(t, unitProcess(t, root, "concourse-ci/0", src.URL, "7.14.3", io.Discard), orders{Lease: lease})
	require.NoError(t, slow.Start())
	<-begun
	r, _ := heir(t, root, src, lease)
	require.NoError(t, slow.Wait())
	require.Equal(t, "concourse-ci/0", r.InstalledBy)
	require.False(t, r.Downloaded)
}

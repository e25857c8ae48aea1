package coordinator

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/pprof"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/lyingfs"
	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/needs"
)

// TestHungServer is the process of the file server. It reads lies.
func TestHungServer(t *testing.T) {
	backing, dir := os.Getenv("TEST_HUNG_BACKING"), os.Getenv("TEST_HUNG_DIR")
	if backing == "" {
		t.Skip("a process of the other tests")
	}
	m, err := lyingfs.Serve(backing).Mount(dir, false)
	answer := func(err error) {
		text := ""
		if err != nil {
			text = err.Error()
		}
		require.NoError(t, json.NewEncoder(os.Stdout).Encode(text))
	}
	answer(err)
	orders := json.NewDecoder(os.Stdin)
	for err == nil {
		var lies lyingfs.Lies
		if orders.Decode(&lies) != nil {
			require.NoError(t, m.Unmount(dir))
			return
		}
		m.Tell(lies)
		answer(nil)
	}
}

// hungOrder is what the unit is told to do.
type hungOrder struct {
	Calls    []string      // in turn; "" to count only
	Prepare  bool          // before the first of them
	Times    int           // in all
	Parallel int           // at a time
	Deadline time.Duration // of each
	Settle   bool          // wait, before counting, until all that was left behind has ended
}

// hungAnswer is what became of it.
type hungAnswer struct {
	Outcomes []outcome
	// Stuck is how many goroutines are in a system call, Goroutines how many there
	// are, Threads how many the kernel knows; those of the unit without work are left out.
	Stuck, Goroutines, Threads int
	Failed                     string
}

type outcome struct {
	Call        string
	Took        time.Duration
	Err         string
	Hung, Ended bool // ErrHung, context.DeadlineExceeded
}

// TestHungUnit is the process of the unit.
func TestHungUnit(t *testing.T) {
	u := &caller{root: os.Getenv("TEST_HUNG_ROOT"), url: os.Getenv("TEST_HUNG_SOURCE")}
	if u.root == "" {
		t.Skip("a process of the other tests")
	}
	out := json.NewEncoder(os.Stdout)
	err := u.begin()
	orders := json.NewDecoder(os.Stdin)
	require.NoError(t, out.Encode(u.counted(hungOrder{}, err)))
	for err == nil {
		var o hungOrder
		if orders.Decode(&o) != nil {
			return
		}
		a, failed := u.obey(o)
		counted := u.counted(o, failed)
		counted.Outcomes = a
		require.NoError(t, out.Encode(counted))
	}
}

func (u *caller) begin() error {
	ctx, cancel := context.WithTimeout(context.Background(), patient)
	defer cancel()
	var err error
	if u.c, err = Open(ctx, u.root, u.options()); err != nil {
		return err
	}
	for _, version := range []string{"7.0.0", "7.0.1"} {
		if _, err = u.c.Ensure(ctx, version); err != nil {
			return err
		}
		if _, err = u.c.Activate(ctx, version); err != nil {
			return err
		}
	}
	u.v, err = Look(ctx, u.root, concourse)
	return err
}

func (u *caller) obey(o hungOrder) ([]outcome, error) {
	if o.Prepare {
		ctx, cancel := context.WithTimeout(context.Background(), patient)
		defer cancel()
		if prepare := mountCalls[o.Calls[0]].prepare; prepare != nil {
			if err := prepare(ctx, u); err != nil {
				return nil, fmt.Errorf("cannot prepare %s: %w", o.Calls[0], err)
			}
		}
	}
	outcomes := make([]outcome, o.Times)
	next := make(chan int)
	var all sync.WaitGroup
	var mu sync.Mutex // of u
	for range o.Parallel {
		all.Go(func() {
			for i := range next {
				mu.Lock()
				u.fresh++
				mine := *u
				mine.fresh = 1000 * u.fresh
				mu.Unlock()
				outcomes[i] = mine.try(o.Calls[i%len(o.Calls)], o.Deadline)
			}
		})
	}
	for i := range o.Times {
		next <- i
	}
	close(next)
	all.Wait()
	return outcomes, nil
}

func (u *caller) try(name string, deadline time.Duration) outcome {
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	start := time.Now()
	err := mountCalls[name].call(ctx, u)
	o := outcome{Call: name, Took: time.Since(start), Hung: errors.Is(err, ErrHung), Ended: errors.Is(err, context.DeadlineExceeded)}
	if err != nil {
		o.Err = err.Error()
	}
	return o
}

// counted counts what there is besides this process's own routine.
func (u *caller) counted(o hungOrder, failed error) (a hungAnswer) {
	if failed != nil {
		a.Failed = failed.Error()
	}
	for start := time.Now(); ; time.Sleep(5 * time.Millisecond) {
		a.Stuck, a.Goroutines = 0, 0
		var dump bytes.Buffer
		if err := pprof.Lookup("goroutine").WriteTo(&dump, 2); err != nil {
			a.Failed = err.Error()
		}
		for text := range strings.SplitSeq(dump.String(), "\n\n") {
			// The test's own, which reads orders, and the runtime's.
			if strings.Contains(text, "testing.") || !strings.Contains(text, "/coordinator") && !strings.Contains(text, "net/http") {
				continue
			}
			a.Goroutines++
			if state, _, _ := strings.Cut(text, "\n"); strings.Contains(state, "[syscall") {
				a.Stuck++
			}
		}
		if !o.Settle || a.Goroutines == 0 {
			break
		}
		if time.Since(start) > patient {
			a.Failed = "it does not come to rest:\n" + dump.String()
			break
		}
	}
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		a.Failed = err.Error()
	}
	a.Threads = len(tasks)
	return a
}

// hungRig is a file server with its mount, and a unit.
type hungRig struct {
	t            *testing.T
	backing, dir string
	server       *exec.Cmd
	lies         *json.Encoder
	told         *json.Decoder
	orders       *json.Encoder
	answers      *json.Decoder
	idle         hungAnswer // what the unit has when nothing is to do
}

func newHungRig(t *testing.T) *hungRig {
	needs.Root(t)
	r := &hungRig{t: t, backing: t.TempDir(), dir: t.TempDir()}
	src := newSource(t)
	src.answer(serveAnyVersion)
	var in, unitIn io.Closer
	r.server, r.lies, r.told, in = helper(t, "TestHungServer", "TEST_HUNG_BACKING="+r.backing, "TEST_HUNG_DIR="+r.dir)
	t.Cleanup(func() {
		r.server.Process.Signal(syscall.SIGCONT)
		in.Close()
		r.server.Wait()
		unix.Unmount(r.dir, unix.MNT_DETACH)
	})
	var refused string
	require.NoError(t, r.told.Decode(&refused))
	if refused != "" {
		needs.Lack(t, "fuse", "cannot mount with FUSE here: %s", refused)
	}
	var unit *exec.Cmd
	unit, r.orders, r.answers, unitIn = helper(t, "TestHungUnit", "TEST_HUNG_ROOT="+r.dir, "TEST_HUNG_SOURCE="+src.URL)
	t.Cleanup(func() {
		unitIn.Close()
		unit.Process.Kill()
		unit.Wait()
	})
	r.hear()
	r.idle = r.tell(hungOrder{Settle: true})
	return r
}

// helper starts a process of the test binary.
func helper(t *testing.T, name string, env ...string) (*exec.Cmd, *json.Encoder, *json.Decoder, io.Closer) {
	cmd := exec.Command(os.Args[0], "-test.run=^"+name+"$")
	cmd.Env = append(os.Environ(), env...)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	return cmd, json.NewEncoder(in), json.NewDecoder(out), in
}

// serveAnyVersion has an archive of every version.
func serveAnyVersion(w http.ResponseWriter, r *http.Request) bool {
	name := filepath.Base(r.URL.Path)
	version := strings.TrimPrefix(name, "concourse-")
	version, _, found := strings.Cut(version, "-linux-")
	if !found {
		return false
	}
	s := &source{files: map[string][]byte{}}
	s.publish(version, releaseArchive(version, 4<<10))
	if _, found = s.files[name]; found {
		s.ServeHTTP(w, r)
	}
	return found
}

func (r *hungRig) hear() (a hungAnswer) {
	r.t.Helper()
	require.NoError(r.t, r.answers.Decode(&a))
	require.Empty(r.t, a.Failed)
	return a
}

func (r *hungRig) tell(o hungOrder) hungAnswer {
	r.t.Helper()
	require.NoError(r.t, r.orders.Encode(o))
	return r.hear()
}

// one makes one call, with a deadline.
func (r *hungRig) one(name string, deadline time.Duration) (outcome, hungAnswer) {
	r.t.Helper()
	a := r.tell(hungOrder{Calls: []string{name}, Times: 1, Parallel: 1, Deadline: deadline})
	return a.Outcomes[0], a
}

func (r *hungRig) lie(l lyingfs.Lies) {
	r.t.Helper()
	require.NoError(r.t, r.lies.Encode(l))
	var none string
	require.NoError(r.t, r.told.Decode(&none))
}

// works demands that every call succeeds, and that nothing of them is left.
func (r *hungRig) works() {
	r.t.Helper()
	for _, name := range slices.Sorted(maps.Keys(mountCalls)) {
		r.tell(hungOrder{Calls: []string{name}, Prepare: true})
		o, _ := r.one(name, patient)
		require.Empty(r.t, o.Err, name)
	}
	require.Equal(r.t, 0, r.tell(hungOrder{Settle: true}).Goroutines)
}

// hung demands that a call says that the mount hangs, and which.
func (r *hungRig) hung(o outcome) {
	r.t.Helper()
	require.True(r.t, o.Hung && o.Ended, "%s: %s", o.Call, o.Err)
	require.Contains(r.t, o.Err, r.dir)
}

// slowest is the one that took longest.
func slowest(outcomes []outcome) outcome {
	return slices.MaxFunc(outcomes, func(a, b outcome) int { return cmp.Compare(a.Took, b.Took) })
}

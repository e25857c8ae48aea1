package coordinator

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/lyingfs"
)

// A file server, the unit that has mounted its directory, and the test are three
// processes: the server can be stopped, the unit's goroutines and threads can be
// counted, and the test touches the mount never.

// patient is how long anything may take that is no call on a mount that hangs.
const patient = time.Minute

// inTime is what is demanded of calls on a mount that hangs whose context ends after
// hangDeadline. What they take is logged: without load it is less than a second.
const (
	hangDeadline = 500 * time.Millisecond
	inTime       = 5 * time.Second
)

// A server that is gone: no call begins, and what is asked of the mount is one
// question.
func TestServerIsGone(t *testing.T) {
	t.Parallel()
	r := newHungRig(t)
	names := slices.Sorted(maps.Keys(mountCalls))
	rounds := 1
	if os.Getenv("COORDINATOR_EXPLORE") != "" {
		rounds = 2
	}
	for range rounds {
		require.NoError(t, r.server.Process.Signal(syscall.SIGSTOP))
		var all []outcome
		for _, name := range names {
			o, a := r.one(name, hangDeadline)
			r.hung(o)
			require.LessOrEqual(t, a.Stuck, 1, name)
			all = append(all, o)
		}
		most := slowest(all)
		t.Logf("with a context of %s the slowest call, %s, was back after %s", hangDeadline, most.Call, most.Took)
		require.Less(t, most.Took, inTime)
		for _, parallel := range []int{1, 100} {
			deadline := hangDeadline
			if parallel == 1 {
				deadline = 10 * time.Millisecond // or it would take minutes
			}
			a := r.tell(hungOrder{Calls: names, Times: 1000, Parallel: parallel, Deadline: deadline})
			most := slowest(a.Outcomes)
			t.Logf("1000 calls, %d at a time with a context of %s: the slowest, %s, was back after %s; %d goroutines hang, %d threads more than %d",
				parallel, deadline, most.Call, most.Took, a.Stuck, a.Threads-r.idle.Threads, r.idle.Threads)
			for _, o := range a.Outcomes {
				// A context this short may end before the call has begun.
				require.True(t, o.Ended, "%s: %s", o.Call, o.Err)
				if parallel > 1 {
					r.hung(o)
				}
			}
			require.Less(t, most.Took, inTime)
			require.LessOrEqual(t, a.Stuck, 1)
			// The runtime starts some of its own, of which each may be idle.
			require.LessOrEqual(t, a.Threads-r.idle.Threads, 8)
		}
		require.NoError(t, r.server.Process.Signal(syscall.SIGCONT))
		r.works()
	}
}

// shortDeadline is for the many calls of which each hangs: it takes an hour else.
const shortDeadline = 100 * time.Millisecond

// hangingRequests are all that a server is asked for.
var hangingRequests = []lyingfs.Request{
	lyingfs.Lookup, lyingfs.Getattr, lyingfs.Setattr, lyingfs.Statfs, lyingfs.Opendir, lyingfs.Fsyncdir,
	lyingfs.Open, lyingfs.Create, lyingfs.Mkdir, lyingfs.Symlink, lyingfs.Link, lyingfs.Relink,
	lyingfs.Renaming, lyingfs.Unlink, lyingfs.Rmdir,
}

// promises are the names by which units know that something has succeeded.
func (r *hungRig) promises() map[string]string {
	found := map[string]string{}
	for _, pattern := range []string{activationsDir + "/[0-9]*", releasesDir + "/*", pinsDir + "/" + fileName(hungUnit)} {
		names, err := filepath.Glob(filepath.Join(r.backing, pattern))
		require.NoError(r.t, err)
		for _, name := range names {
			text, err := os.Readlink(name)
			if err != nil {
				data, readErr := os.ReadFile(name)
				require.NoError(r.t, readErr)
				text = string(data)
			}
			found[strings.TrimPrefix(name, r.backing+"/")] = text
		}
	}
	return found
}

// The mount begins to hang while a call is under way, at one kind of request only.
// The call is back in time; and when the mount goes on, it does not do what its caller
// was told it has not done.
func TestHangsUnderWay(t *testing.T) {
	if testing.Short() {
		t.Skip("takes minutes, most of which it waits")
	}
	t.Parallel()
	for _, request := range hangingRequests {
		t.Run(string(request), func(t *testing.T) {
			t.Parallel()
			r := newHungRig(t)
			var all []outcome
			hung := 0
			calls, sparing := slices.Sorted(maps.Keys(mountCalls)), []int{0, 2, 9}
			if os.Getenv("COORDINATOR_EXPLORE") == "" {
				// All of it takes a quarter of an hour.
				sparing = []int{2}
				if !slices.Contains([]lyingfs.Request{lyingfs.Lookup, lyingfs.Open, lyingfs.Renaming}, request) {
					calls = []string{"Coordinator.Activate", "Coordinator.Collect", "Coordinator.Ensure", "Coordinator.Pin"}
				}
			}
			for _, name := range calls {
				for _, spared := range sparing {
					r.tell(hungOrder{Calls: []string{name}, Prepare: true, Settle: true})
					r.lie(lyingfs.Lies{Hung: []lyingfs.Request{request}, Spared: spared})
					o, a := r.one(name, shortDeadline)
					all = append(all, o)
					told := r.promises()
					r.lie(lyingfs.Lies{})
					r.tell(hungOrder{Settle: true})
					what := fmt.Sprintf("%s, of which %s number %d hung: %s", name, request, spared+1, o.Err)
					if a.Stuck > 0 {
						hung++
						r.hung(o)
					} else if o.Err != "" {
						require.True(t, o.Ended, what)
					}
					// What was on its way to the server takes place.
					sent := request == lyingfs.Link || request == lyingfs.Relink || request == lyingfs.Renaming || request == lyingfs.Unlink
					if now := r.promises(); sent && o.Hung && !maps.Equal(told, now) {
						t.Logf("%s: the request itself took place: %v, before %v", what, now, told)
					} else if o.Err != "" {
						require.Equal(t, told, now, what)
					}
					if o.Err == "" {
						break // it makes fewer of these requests
					}
				}
			}
			most := slowest(all)
			t.Logf("%d calls, of which %d hung in %s: the slowest, %s, was back %s after the end of its context", len(all), hung, request, most.Call, most.Took-shortDeadline)
			require.Less(t, most.Took, inTime)
			r.works()
		})
	}
}

// Of many calls that hang in one kind of request only, those hang that were under way
// before the first was given up.
func TestManyCallsHang(t *testing.T) {
	t.Parallel()
	// A probe puts nine questions at a time, and is not begun again while one hangs.
	const questions = 9
	type manyCalls struct {
		call    string
		request lyingfs.Request
		most    int // goroutines that hang
	}
	cases := []manyCalls{
		{"Coordinator.Ensure", lyingfs.Create, 2}, // of which one is an attempt to lock
		{"Coordinator.Activate", lyingfs.Link, 1},
		{"View.Current", lyingfs.Open, 1},
		{"Coordinator.Ensure", lyingfs.Mkdir, 1},
		{"Coordinator.Ensure", lyingfs.Symlink, 1},
		{"Coordinator.Pin", lyingfs.Renaming, 1},
		{"Probe", lyingfs.Mkdir, 1},
		{"Probe", lyingfs.Link, questions},
		{"Coordinator.Probe", lyingfs.Symlink, questions},
	}
	if os.Getenv("COORDINATOR_EXPLORE") == "" {
		cases = cases[:3] // each waits for half a minute
	}
	for _, c := range cases {
		t.Run(c.call+" "+string(c.request), func(t *testing.T) {
			t.Parallel()
			r := newHungRig(t)
			r.tell(hungOrder{Calls: []string{c.call}, Prepare: true, Settle: true})
			r.lie(lyingfs.Lies{Hung: []lyingfs.Request{c.request}})
			first, one := r.one(c.call, hangDeadline)
			a := r.tell(hungOrder{Calls: []string{c.call}, Times: 1000, Parallel: 1, Deadline: 10 * time.Millisecond})
			many := r.tell(hungOrder{Calls: []string{c.call}, Times: 1000, Parallel: 100, Deadline: hangDeadline})
			most := slowest(append(append([]outcome{first}, a.Outcomes...), many.Outcomes...))
			t.Logf("the slowest of 2001 calls was back after %s; after the first %d goroutines hang, after 1000 in turn %d, after 1000 more, 100 at a time, %d",
				most.Took, one.Stuck, a.Stuck, many.Stuck)
			r.hung(first)
			require.Less(t, most.Took, inTime)
			require.NotZero(t, one.Stuck)
			require.LessOrEqual(t, a.Stuck, c.most, "goroutines that hang")
			require.LessOrEqual(t, many.Stuck, c.most+100, "goroutines that hang")
			r.lie(lyingfs.Lies{})
			r.works()
		})
	}
}

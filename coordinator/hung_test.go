package coordinator

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
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

// caller is what the unit's calls work with.
type caller struct {
	c     *Coordinator
	v     *View
	root  string
	url   string
	fresh int // versions asked for
}

const hungUnit = "ci/0"

func (u *caller) options() Options {
	return Options{Unit: hungUnit, Source: u.url, Product: concourse, Lease: time.Second,
		// Connections that are kept would be counted.
		Client: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}}
}

// version returns one that nobody has installed.
func (u *caller) version() string {
	u.fresh++
	return fmt.Sprintf("8.%d.%d", u.fresh/1000, u.fresh%1000)
}

// mountCall is a call that works on a mount, and what has to be there for it to have
// something to do.
type mountCall struct {
	prepare func(ctx context.Context, u *caller) error
	call    func(ctx context.Context, u *caller) error
}

// mountCalls has every exported function and method that takes a context, but for
// those that need no mount.
var mountCalls = map[string]mountCall{
	"Open": {call: func(ctx context.Context, u *caller) error {
		_, err := Open(ctx, u.root, u.options())
		return err
	}},
	"Look": {call: func(ctx context.Context, u *caller) error {
		_, err := Look(ctx, u.root, concourse)
		return err
	}},
	"Probe": {call: func(ctx context.Context, u *caller) error {
		_, err := Probe(ctx, u.root)
		return err
	}},
	"Coordinator.Ensure": {call: func(ctx context.Context, u *caller) error {
		_, err := u.c.Ensure(ctx, u.version())
		return err
	}},
	"Coordinator.Recheck": {call: func(ctx context.Context, u *caller) error {
		_, err := u.c.Recheck(ctx, "7.0.0")
		return err
	}},
	"Coordinator.Use": {call: func(ctx context.Context, u *caller) error {
		_, err := u.c.Use(ctx, u.version())
		return err
	}},
	"Coordinator.Reinstall": {call: func(ctx context.Context, u *caller) error {
		_, err := u.c.Reinstall(ctx, "7.0.0")
		return err
	}},
	"Coordinator.Pin": {
		prepare: func(ctx context.Context, u *caller) error {
			_, err := u.c.Pin(ctx, "7.0.0")
			return err
		},
		call: func(ctx context.Context, u *caller) error {
			_, err := u.c.Pin(ctx, "7.0.1")
			return err
		},
	},
	"Coordinator.Activate": {
		prepare: func(ctx context.Context, u *caller) error {
			_, err := u.c.Activate(ctx, "7.0.0")
			return err
		},
		call: func(ctx context.Context, u *caller) error {
			_, err := u.c.Activate(ctx, "7.0.1")
			return err
		},
	},
	"Coordinator.Rollback": {
		prepare: func(ctx context.Context, u *caller) error {
			_, err := u.c.Activate(ctx, "7.0.0")
			if err == nil {
				_, err = u.c.Activate(ctx, "7.0.1")
			}
			return err
		},
		call: func(ctx context.Context, u *caller) error {
			_, err := u.c.Rollback(ctx)
			return err
		},
	},
	"Coordinator.Collect": {
		prepare: func(ctx context.Context, u *caller) error {
			if _, err := u.c.Collect(ctx); err != nil {
				return err
			}
			dir := filepath.Join(u.root, stagingDir, "9.0.0.1.other-1", treeName)
			err := os.MkdirAll(dir, 0o755)
			return errors.Join(err, os.WriteFile(filepath.Join(dir, "file"), nil, 0o644))
		},
		call: func(ctx context.Context, u *caller) error {
			_, err := u.c.Collect(ctx)
			return err
		},
	},
	"Coordinator.Forget": {
		prepare: func(ctx context.Context, u *caller) error { return u.settle("other-2") },
		call:    func(ctx context.Context, u *caller) error { return u.c.Forget(ctx, "other/2") },
	},
	"Coordinator.Leave": {
		prepare: func(ctx context.Context, u *caller) error { return u.settle("ci-0") },
		call:    func(ctx context.Context, u *caller) error { return u.c.Leave(ctx) },
	},
	"Coordinator.WorkerDir": {call: func(ctx context.Context, u *caller) error {
		_, err := u.c.WorkerDir(ctx)
		return err
	}},
	"Coordinator.Probe": {call: func(ctx context.Context, u *caller) error {
		_, err := u.c.Probe(ctx)
		return err
	}},
	"View.Check": {call: func(ctx context.Context, u *caller) error { return u.v.Check(ctx) }},
	"View.Current": {call: func(ctx context.Context, u *caller) error {
		_, err := u.v.Current(ctx)
		return err
	}},
	"View.Installed": {call: func(ctx context.Context, u *caller) error {
		_, err := u.v.Installed(ctx, "7.0.0")
		return err
	}},
	"View.Inspect": {call: func(ctx context.Context, u *caller) error {
		_, err := u.v.Inspect(ctx)
		return err
	}},
	"View.Verify": {call: func(ctx context.Context, u *caller) error { return u.v.Verify(ctx, "7.0.0", nil) }},
}

// settle makes what a unit leaves on a volume.
func (u *caller) settle(unit string) error {
	for _, name := range []string{pinsDir + "/" + unit, workerDir + "/" + unit + "/a/file", stagingDir + "/9.0.0.1." + unit + "/file"} {
		name = filepath.Join(u.root, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(name, []byte("7.0.0.1\n"), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// Who adds a function that takes a context cannot forget it here.
func TestNoCallOnAMountIsForgotten(t *testing.T) {
	var found []string
	for _, of := range []reflect.Type{reflect.TypeFor[*Coordinator](), reflect.TypeFor[*View]()} {
		for m := range of.Methods() {
			if m.Type.NumIn() < 2 || m.Type.In(1) != reflect.TypeFor[context.Context]() {
				continue
			}
			if _, inView := reflect.TypeFor[*View]().MethodByName(m.Name); of == reflect.TypeFor[*View]() || !inView {
				found = append(found, of.Elem().Name()+"."+m.Name)
			}
		}
	}
	// Functions cannot be found by reflection.
	files, err := filepath.Glob("*.go")
	require.NoError(t, err)
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		require.NoError(t, err)
		for _, d := range file.Decls {
			f, ok := d.(*ast.FuncDecl)
			if !ok || f.Recv != nil || !f.Name.IsExported() || len(f.Type.Params.List) == 0 {
				continue
			}
			first, ok := f.Type.Params.List[0].Type.(*ast.SelectorExpr)
			if ok && first.Sel.Name == "Context" && f.Name.Name != "Newest" { // which asks a source
				found = append(found, f.Name.Name)
			}
		}
	}
	require.ElementsMatch(t, found, slices.Collect(maps.Keys(mountCalls)))
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

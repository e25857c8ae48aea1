package supervisor_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/concourse"
	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/supervisor"
)

// webServer answers with version 7.14.3, and lists workers to an administrator.
type webServer struct {
	port   int
	mu     sync.Mutex
	states map[string]string // of workers, by name; " elsewhere" follows for another web server's
	pruned []string
	builds string
}

func newWebServer(t testing.TB, states map[string]string) *webServer {
	web, mux := &webServer{states: states, builds: `[{"status":"succeeded"},{"status":"started"}]`}, http.NewServeMux()
	mux.HandleFunc("GET /api/v1/info", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"version":"7.14.3"}`) })
	mux.HandleFunc("POST /sky/issuer/token", func(w http.ResponseWriter, r *http.Request) {
		if r.FormValue("username") != "admin" || r.FormValue("password") != "secret" || r.FormValue("grant_type") != "password" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, `{"access_token":"TOKEN","token_type":"bearer","expires_in":3600}`)
	})
	mux.HandleFunc("GET /api/v1/workers", func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer TOKEN" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		web.mu.Lock()
		defer web.mu.Unlock()
		list := []concourse.ListedWorker{}
		for name, state := range web.states {
			state, elsewhere := strings.CutSuffix(state, " elsewhere")
			address := "10.0.0.1:40001"
			if elsewhere {
				address = "10.0.0.9:40001"
			}
			list = append(list, concourse.ListedWorker{Name: name, State: state, Address: address, Began: time.Now().Unix()})
		}
		_ = json.NewEncoder(w).Encode(list)
	})
	mux.HandleFunc("GET /api/v1/builds", func(w http.ResponseWriter, _ *http.Request) {
		web.mu.Lock()
		defer web.mu.Unlock()
		fmt.Fprint(w, web.builds)
	})
	mux.HandleFunc("PUT /api/v1/workers/{name}/prune", func(_ http.ResponseWriter, r *http.Request) {
		web.mu.Lock()
		defer web.mu.Unlock()
		web.pruned = append(web.pruned, r.PathValue("name"))
	})
	web.port = service(t, mux.ServeHTTP)
	return web
}

func (w *webServer) set(worker, state string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.states[worker] = state
}

// serving is the spec of a unit with this web server and no worker.
func (w *webServer) serving(m *mirror, root string, members ...string) supervisor.Spec {
	spec := m.serving(root, w.port, "7.14.3")
	spec.Web.Address, spec.Web.AdminUser, spec.Web.Keys.AdminPassword, spec.Worker, spec.Members = "10.0.0.1", "admin", "secret", nil, members
	return spec
}

// A worker of a unit that is gone, though the web server was not told, is found on its list.
func TestPrunesStrangers(t *testing.T) {
	web := newWebServer(t, map[string]string{
		"ci-1": "stalled", "ci-8": "running", "other-7": "stalled", "ci-gpu": "stalled", "ci-7": "stalled",
	})
	m, c := newMirror(t), start(t)
	require.NoError(t, c.files.PutSpec(web.serving(m, t.TempDir(), "ci/0", "ci/1")))
	eventually(t, "a line of it", func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return strings.Contains(strings.Join(c.log, "\n"), "Pruned worker ci-7, which no unit has")
	})
	time.Sleep(200 * time.Millisecond) // some lists more
	web.mu.Lock()
	defer web.mu.Unlock()
	for _, name := range web.pruned {
		require.Equal(t, "ci-7", name, "that of a member, of another application, and of no unit are left alone")
	}
}

// Which workers of the application run is told as long as the web server is known to list them.
func TestRunningWorkers(t *testing.T) {
	web := newWebServer(t, map[string]string{"ci-1": "running", "ci-2": "running elsewhere", "ci-3": "running", "other-4": "running"})
	m, c := newMirror(t), start(t)
	spec := web.serving(m, t.TempDir(), "ci/0", "ci/1", "ci/2", "ci/3")
	require.NoError(t, c.files.PutSpec(spec))
	eventually(t, "those that run", c.saw(func(s supervisor.Status) bool { return s.Workers == "ci-1 ci-3" }))
	web.set("ci-2", "running")
	eventually(t, "one that runs again", c.saw(func(s supervisor.Status) bool { return s.Workers == "ci-1 ci-2 ci-3" }))
	web.set("ci-1", "running elsewhere")
	eventually(t, "one that has registered elsewhere", c.saw(func(s supervisor.Status) bool { return s.Workers == "ci-2 ci-3" }))
	spec.Worker = &concourse.Worker{Name: "ci-0"}
	require.NoError(t, c.files.PutSpec(spec))
	eventually(t, "it, where each unit has a web server", c.saw(func(s supervisor.Status) bool { return s.Workers == "ci-1 ci-2 ci-3" }))
	spec.Web.Keys.AdminPassword = "another"
	require.NoError(t, c.files.PutSpec(spec))
	eventually(t, "that nobody knows", c.saw(func(s supervisor.Status) bool { return s.Workers == "" }))
}

// A worker that makes room for a web server ends with its builds: it is told so once it
// has registered there, and again whenever it has registered anew.
func TestLandsWithItsBuilds(t *testing.T) {
	web := newWebServer(t, map[string]string{})
	const takeUp = 300 * time.Millisecond
	m, c := newMirror(t), start(t, func(s *supervisor.Supervisor) { s.TakeUp = takeUp })
	spec := web.serving(m, t.TempDir(), "ci/0")
	spec.Worker = &concourse.Worker{Name: "ci-0"}
	require.NoError(t, c.files.PutSpec(spec))
	done := map[string]int{}
	did := func(what string) func() bool {
		return func() bool {
			for _, d := range c.system.Done() {
				done[d]++
			}
			return done[what] > 0
		}
	}
	eventually(t, "both services", func() bool {
		did("")()
		return done["start "+concourse.WorkerUnit] == 1 && done["start "+concourse.ServerUnit] == 1
	})
	spec.Worker, spec.Land, spec.DrainTimeout = nil, true, time.Hour
	require.NoError(t, c.files.PutSpec(spec))
	time.Sleep(100 * time.Millisecond)
	require.False(t, did("SIGUSR1 "+concourse.WorkerUnit)(), "it has not registered here yet")
	web.set("ci-0", "running elsewhere")
	time.Sleep(100 * time.Millisecond)
	require.False(t, did("SIGUSR1 "+concourse.WorkerUnit)(), "it has registered with another one")
	registered := time.Now()
	web.set("ci-0", "running")
	eventually(t, "the signal", did("SIGUSR1 "+concourse.WorkerUnit))
	require.GreaterOrEqual(t, time.Since(registered), takeUp, "the web server has not taken up its builds yet")
	web.set("ci-0", "landing")
	time.Sleep(100 * time.Millisecond)
	did("")()
	clear(done)
	time.Sleep(100 * time.Millisecond)
	did("")()
	require.Empty(t, done, "its builds go on")
	web.set("ci-0", "running")
	eventually(t, "the signal again", did("SIGUSR1 "+concourse.WorkerUnit))
	eventually(t, "that it lands", c.saw(func(s supervisor.Status) bool { return s.Landing }))
	web.set("ci-0", "landed")
	eventually(t, "the service that is gone", did("remove "+concourse.WorkerUnit))
	eventually(t, "the worker that is forgotten", func() bool {
		web.mu.Lock()
		defer web.mu.Unlock()
		return slices.Contains(web.pruned, "ci-0")
	})
	eventually(t, "that it has landed", c.saw(func(s supervisor.Status) bool { return !s.Landing }))
	require.Zero(t, done["start "+concourse.WorkerUnit])
}

// A web server that is started anew has yet to take builds up, however soon it answers: until
// then no worker is told to land.
func TestTakesBuildsUpAnew(t *testing.T) {
	web := newWebServer(t, map[string]string{"ci-1": "running"})
	const takeUp = time.Second
	m, c := newMirror(t), start(t, func(s *supervisor.Supervisor) { s.TakeUp = takeUp })
	spec := web.serving(m, t.TempDir(), "ci/0", "ci/1")
	spec.DrainTimeout = time.Hour
	mayLand := func(name string) func() bool {
		return c.saw(func(s supervisor.Status) bool { return s.MayLand == name })
	}
	lands := func(units ...string) {
		spec.Landing = units
		require.NoError(t, c.files.PutSpec(spec))
	}
	lands("ci/1")
	eventually(t, "that it may land", mayLand("ci-1"))
	lands()
	eventually(t, "that it may not", mayLand(""))
	c.system.Done()
	changed := time.Now()
	spec.Web.ExternalURL = "https://ci.example.com"
	lands()
	eventually(t, "another web server", func() bool { return slices.Contains(c.system.Done(), "start "+concourse.ServerUnit) })
	lands("ci/1")
	eventually(t, "that it may land again", mayLand("ci-1"))
	require.GreaterOrEqual(t, time.Since(changed), takeUp)
}

// What a web server knows of a worker is of one registration, and of one process of its own.
func TestListedByOneProcess(t *testing.T) {
	const takeUp = 30 * time.Second
	var l supervisor.Listed
	spec := supervisor.Spec{Unit: "ci/0", Members: []string{"ci/1"}, Web: &concourse.Web{Address: "10.0.0.1"}}
	now := time.Unix(1000, 0)
	takenUp := func(after time.Duration, port string) bool {
		now = now.Add(after)
		l.Read(now, spec, supervisor.Listing{Workers: []concourse.ListedWorker{{Name: "ci-1", State: "running", Address: "10.0.0.1:" + port}}})
		seen := supervisor.Seen{WebServes: true}
		l.Tell(now, spec, time.Minute, takeUp, &seen, &supervisor.Status{})
		return seen.TakenUp["ci-1"]
	}
	require.True(t, l.Forget(7), "the first process")
	require.False(t, takenUp(0, "40001"))
	require.True(t, takenUp(takeUp, "40001"))
	require.False(t, takenUp(time.Second, "40002"), "it has registered again")
	require.True(t, takenUp(takeUp, "40002"))
	require.False(t, l.Forget(7))
	require.True(t, takenUp(0, "40002"))
	require.True(t, l.Forget(8), "another process")
	require.False(t, takenUp(0, "40002"))
}

// A worker without builds ends as soon as it takes no new ones: Concourse itself looks for
// that every 30 s.
func TestEndsWithoutBuilds(t *testing.T) {
	web := newWebServer(t, map[string]string{"ci-0": "landing"})
	m, c := newMirror(t), start(t)
	spec := web.serving(m, t.TempDir(), "ci/0")
	spec.Worker = &concourse.Worker{Name: "ci-0"}
	require.NoError(t, c.files.PutSpec(spec))
	works := func() bool { return slices.Contains(c.system.Up(), concourse.WorkerUnit) }
	eventually(t, "the worker", works)
	spec.Worker, spec.Land, spec.DrainTimeout = nil, true, time.Hour
	for _, busy := range []string{web.builds, "nonsense"} {
		web.mu.Lock()
		web.builds = busy
		web.mu.Unlock()
		require.NoError(t, c.files.PutSpec(spec))
		time.Sleep(200 * time.Millisecond)
		require.True(t, works(), "it may have builds: %s", busy)
	}
	web.mu.Lock()
	web.builds = `[{"status":"succeeded"},{"status":"pending"}]`
	web.mu.Unlock()
	eventually(t, "its end", func() bool { return !works() })
}

// A worker that has to end, and cannot register with the web server that took its place,
// ends after the drain timeout: such as one that the former charm has started, which knows
// the address of the web server before.
func TestWorkerThatNeverRegistersHereEnds(t *testing.T) {
	web := newWebServer(t, map[string]string{"ci-0": "running elsewhere"})
	m, c := newMirror(t), start(t)
	spec := web.serving(m, t.TempDir(), "ci/0")
	spec.Worker = &concourse.Worker{Name: "ci-0"}
	require.NoError(t, c.files.PutSpec(spec))
	eventually(t, "both services", func() bool { return len(c.system.Up()) == 2 })
	spec.Worker, spec.Land, spec.DrainTimeout = nil, true, 200*time.Millisecond
	require.NoError(t, c.files.PutSpec(spec))
	time.Sleep(200 * time.Millisecond)
	web.set("ci-0", "stalled elsewhere")
	require.Eventually(t, func() bool { return !slices.Contains(c.system.Up(), concourse.WorkerUnit) }, 5*time.Second, 20*time.Millisecond,
		"the worker goes on for ever, 25 drain timeouts later")
}

// A worker is replaced in its turn, when it has landed. It is told so while a web server
// answers, as else it would end with its builds; who was told is known to the next supervisor.
func TestLandsInItsTurn(t *testing.T) {
	web := newWebServer(t, map[string]string{})
	m, c := newMirror(t), newCharm(t)
	end := c.run(t)
	const signal, begin = "SIGUSR1 " + concourse.WorkerUnit, "start " + concourse.WorkerUnit
	did := func(what string) func() bool {
		return func() bool { return slices.Contains(c.system.Done(), what) }
	}
	spec := m.serving(t.TempDir(), 1, "7.14.3")
	spec.Web, spec.Turn, spec.DrainTimeout = nil, supervisor.Wait, time.Hour
	require.NoError(t, c.files.PutSpec(spec))
	eventually(t, "the worker", did(begin))
	eventually(t, "that it is known", c.saw(func(s supervisor.Status) bool { return s.Process != "" && s.Due == "" }))
	spec.Worker = &concourse.Worker{Name: "ci-0", LogLevel: "debug"}
	require.NoError(t, c.files.PutSpec(spec))
	eventually(t, "that it is due", c.saw(func(s supervisor.Status) bool { return s.Due == "7.14.3" }))
	spec.Turn, spec.MayLand, spec.Watch = supervisor.TakeTurn, true, []string{"127.0.0.1:1"}
	require.NoError(t, c.files.PutSpec(spec))
	eventually(t, "why it cannot land", c.saw(func(s supervisor.Status) bool { return strings.Contains(s.Stuck, "no web server answers") }))
	require.Empty(t, c.system.Done(), "it goes on as it is")
	spec.Watch = []string{fmt.Sprintf("127.0.0.1:%d", web.port)}
	require.NoError(t, c.files.PutSpec(spec))
	eventually(t, "the signal", did(signal))
	eventually(t, "that it lands", c.saw(func(s supervisor.Status) bool { return s.Landing }))
	end()
	spec.Turn, spec.MayLand = supervisor.Wait, false
	require.NoError(t, c.files.PutSpec(spec))
	end = c.run(t)
	time.Sleep(200 * time.Millisecond)
	require.Empty(t, c.system.Done(), "who was told is not told again, nor started anew")
	c.system.Stop(concourse.WorkerUnit)
	eventually(t, "the next worker", did(begin))
	eventually(t, "that it is through", c.saw(func(s supervisor.Status) bool { return !s.Landing && s.Due == "" }))

	// One whose builds do not end is not waited for.
	spec.Worker = &concourse.Worker{Name: "ci-0", LogLevel: "info"}
	spec.Turn, spec.MayLand = supervisor.TakeTurn, true
	require.NoError(t, c.files.PutSpec(spec))
	eventually(t, "the signal again", did(signal))
	end()
	spec.DrainTimeout = time.Millisecond
	require.NoError(t, c.files.PutSpec(spec))
	c.run(t)
	eventually(t, "the worker after that", did(begin))
}

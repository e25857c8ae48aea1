package sim

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/concourse"
)

// cluster is what Concourse keeps in its database, with the builds that its web servers
// give to its workers.
type cluster struct {
	*world
	down     bool // nothing reaches the database
	password int
	schema   int
	migrates *migration // that has the lock
	refuses  bool       // a step of the schema fails
	workers  map[string]*registration
	builds   []*build // that run

	started int // builds
	ports   int
}

// registration is a worker as a web server lists it.
type registration struct {
	name, state, version string
	at                   string // address of the web server with which it has registered
	port                 int    // there, another for each time
	heard                time.Duration
	began                int64   // when its process began, in seconds
	worker               *worker // the process that registered last
}

// build runs on a worker, whether a web server is there or not.
type build struct {
	number int
	worker *worker
	by     *webServer // that follows it; it may be over
	ended  bool
}

// release is what the mirror has.
type release struct {
	schema int
	broken bool // its web server never answers
}

// releases that can be asked for. The second of them needs a newer schema, and the third one,
// which never answers.
var releases = map[string]release{
	"7.14.2": {schema: 10}, "7.14.3": {schema: 14}, "7.14.4": {schema: 12, broken: true},
}

const (
	firstVersion, newerVersion, brokenVersion = "7.14.2", "7.14.3", "7.14.4"
	stalledAfter                              = 30 * time.Second
	trackerInterval                           = 10 * time.Second
)

func newCluster(w *world) *cluster { return &cluster{world: w, workers: map[string]*registration{}} }

func (c *cluster) credentials() map[string]string {
	return map[string]string{"username": "concourse", "password": fmt.Sprintf("password-%d", c.password)}
}

// servers are the web servers that answer users.
func (c *cluster) servers() []*webServer {
	var all []*webServer
	for _, address := range sortedKeys(c.machines) {
		if web := c.machines[address].web; web.serves() {
			all = append(all, web)
		}
	}
	return all
}

// tick has the web servers do what they do now and then.
func (c *cluster) tick() {
	servers := c.servers()
	for _, s := range servers {
		if c.now >= s.tracks {
			s.tracks = c.now + trackerInterval
			s.takeUp()
		}
	}
	for _, name := range sortedKeys(c.workers) {
		r := c.workers[name]
		switch {
		case r.state == concourse.Running && c.now-r.heard > stalledAfter:
			r.state = concourse.Stalled
			c.say("concourse", "%s is stalled", name)
		case r.state == "retiring" && (r.worker == nil || len(r.worker.builds) == 0) && len(servers) > 0:
			delete(c.workers, name)
			c.say("concourse", "%s is forgotten", name)
		case r.state == concourse.Landing && len(r.worker.builds) == 0 && len(servers) > 0:
			r.state, r.at = concourse.Landed, ""
			c.say("concourse", "%s has landed", name)
			if r.worker.connected() {
				r.worker.landed()
			}
		}
		if len(servers) > 0 && r.state == concourse.Running && r.worker.connected() && len(r.worker.builds) < 2 && c.chance(20) {
			c.start(r.worker, servers[0])
		}
	}
	c.after(time.Second, c.tick)
}

func (c *cluster) start(w *worker, by *webServer) {
	c.started++
	b := &build{number: c.started, worker: w, by: by}
	w.builds, c.builds = append(w.builds, b), append(c.builds, b)
	c.soon(10*time.Second, 60*time.Second, func() {
		if !b.ended {
			c.finish(b)
		}
	})
}

func (c *cluster) finish(b *build) {
	b.ended = true
	same := func(other *build) bool { return other == b }
	b.worker.builds, c.builds = slices.DeleteFunc(b.worker.builds, same), slices.DeleteFunc(c.builds, same)
}

// webServer is a process of concourse web, with the TSA in it.
type webServer struct {
	*machine
	version  string
	env      map[string]string
	keys     []string // that may register
	hostKey  string
	up       bool // it answers
	hung     bool
	draining bool // it was told to end
	over     bool
	tracks   time.Duration // when it looks next for builds that nobody follows
}

// takeUp follows builds that nobody does. One whose worker takes no builds just then is
// begun again on another.
func (s *webServer) takeUp() {
	for _, b := range slices.Clone(s.ci.builds) {
		if b.by.serves() {
			continue
		}
		b.by = s
		if r := s.ci.workers[b.worker.unit.worker()]; r != nil && r.worker == b.worker && r.state != concourse.Running && r.state != concourse.Stalled {
			s.judge.loses(b.worker, b, "it is "+r.state+" when its web server takes builds up")
			s.ci.finish(b)
		}
	}
}

func newWebServer(m *machine, version string, env map[string]string) *webServer {
	return &webServer{machine: m, version: version, env: env}
}

// begin reads the files, connects to the database, takes the schema up, and answers.
func (s *webServer) begin() {
	s.reload()
	s.hostKey = s.files[s.env["CONCOURSE_TSA_HOST_KEY"]]
	s.soon(100*time.Millisecond, 5*time.Second, func() {
		if s.over {
			return
		}
		password := s.ci.credentials()["password"]
		switch {
		case s.cut || s.ci.down || s.env["CONCOURSE_POSTGRES_PASSWORD"] != password:
			s.fail("it cannot connect to the database")
		case releases[s.version].broken:
			s.fail("its release is broken")
		default:
			s.migrate()
		}
	})
}

// migrate takes the schema up, as every web server does where nobody has before. A newer one is met without a complaint, and no job runs
// from then on: see judge.
func (s *webServer) migrate() {
	least, most := 100*time.Millisecond, 3*time.Second
	if schema := releases[s.version].schema; schema > s.ci.schema {
		least, most = 2*time.Second, 15*time.Second
	}
	s.soon(least, most, func() {
		if s.over {
			return
		}
		s.judge.meets(s, s.ci.schema)
		if s.ci.schema > 0 && s.ci.schema < releases[s.version].schema {
			s.judge.violate(ErrBeside, "%s takes it up as it starts", s.unit.name)
		}
		s.ci.schema = max(s.ci.schema, releases[s.version].schema)
		s.up, s.tracks = true, s.now+trackerInterval
		s.say(s.unit.name, "the web server answers with %s", s.version)
		s.judge.serves(s)
	})
}

func (s *webServer) fail(why string) {
	s.end(why)
	s.failed(concourse.ServerUnit)
}

func (s *webServer) end(why string) {
	if s.over {
		return
	}
	s.over, s.up = true, false
	s.machine.web = nil
	s.say(s.unit.name, "the web server ends: %s", why)
}

func (s *webServer) reload() {
	s.keys = strings.Split(strings.TrimSpace(s.files[s.env["CONCOURSE_TSA_AUTHORIZED_KEYS"]]), "\n")
}

// listens tells whether anything answers, though it may be with an error.
func (s *webServer) listens() bool { return s != nil && s.up && !s.hung && !s.draining }

// serves tells whether it answers as it should: it reaches its database.
func (s *webServer) serves() bool { return s.listens() && !s.cut && !s.ci.down }

// registers tells whether a worker that shows a key, and expects another, gets through.
func (s *webServer) registers(w *worker) bool {
	public, err := concourse.PublicKey(s.hostKey)
	return s.serves() && err == nil && public == w.hostKey && slices.Contains(s.keys, w.key)
}

package supervisor_test

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/concourse"
	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/supervisor"
)

// A web server that is watched answers, or answers with an error, or not at all.
func TestWatch(t *testing.T) {
	var failing atomic.Bool
	port := service(t, func(w http.ResponseWriter, _ *http.Request) {
		if failing.Load() {
			w.WriteHeader(http.StatusInternalServerError)
		}
	})
	c := start(t)
	well, gone := fmt.Sprintf("127.0.0.1:%d", port), "127.0.0.1:1"
	spec := supervisor.Spec{Unit: "ci/1", Root: t.TempDir(), Watch: []string{well, gone}, Silence: time.Hour}
	require.NoError(t, c.files.PutSpec(spec))
	eventually(t, "the one that answers", c.saw(func(s supervisor.Status) bool { return s.Answering == well && s.Silent == "" }))
	spec.Silence = 300 * time.Millisecond
	require.NoError(t, c.files.PutSpec(spec))
	eventually(t, "the one that is silent", c.saw(func(s supervisor.Status) bool { return s.Answering == well && s.Silent == gone }))
	spec.Watch = append(spec.Watch, gone+"#again", well+"#again")
	require.NoError(t, c.files.PutSpec(spec))
	eventually(t, "the silence that begins again", c.saw(func(s supervisor.Status) bool { return s.Silent == gone }))
	eventually(t, "it has gone on long enough", c.saw(func(s supervisor.Status) bool {
		return s.Answering == well+" "+well+"#again" && s.Silent == gone+" "+gone+"#again"
	}))
	spec.Watch = []string{well, gone}
	failing.Store(true)
	require.NoError(t, c.files.PutSpec(spec))
	eventually(t, "one that is neither", c.saw(func(s supervisor.Status) bool { return s.Answering == "" && s.Silent == gone }))
	spec.Watch = nil
	require.NoError(t, c.files.PutSpec(spec))
	eventually(t, "nothing", c.saw(func(s supervisor.Status) bool { return s.Answering == "" && s.Silent == "" }))
}

// The TSA's name stands in the machine's file of host names before a worker starts, is
// put there again when it is lost, and moves without a restart. All else stays.
func TestHosts(t *testing.T) {
	m, c := newMirror(t), newCharm(t)
	hosts := filepath.Join(t.TempDir(), "hosts")
	write := func(content string) { require.NoError(t, os.WriteFile(hosts, []byte(content), 0o644)) }
	reads := func(want string) func() bool {
		return func() bool {
			content, err := os.ReadFile(hosts)
			require.NoError(t, err)
			return string(content) == want
		}
	}
	name := func(address string) string {
		return "# concourse-ci-machine begin\n" + address + " tsa.concourse-ci.internal\n# concourse-ci-machine end\n"
	}
	write("127.0.0.1 localhost")
	var named atomic.Bool
	c.system.Fail = func(what string) error {
		if what == "start "+concourse.WorkerUnit {
			named.Store(reads("127.0.0.1 localhost\n" + name("10.0.0.1"))())
		}
		return nil
	}
	end := c.run(t, func(s *supervisor.Supervisor) { s.Hosts = hosts })
	spec := m.serving(t.TempDir(), 1, "7.14.3")
	spec.Web, spec.TSA, spec.Worker.TSAHost = nil, "10.0.0.1", concourse.TSAName+":2222"
	require.NoError(t, c.files.PutSpec(spec))
	eventually(t, "the worker", func() bool { return len(c.system.Up()) == 1 })
	require.True(t, named.Load(), "the worker cannot find the web server")

	write("# written anew\n127.0.0.1 localhost\n")
	eventually(t, "the name that was lost", reads("# written anew\n127.0.0.1 localhost\n"+name("10.0.0.1")))
	write("::1 before\n" + name("10.0.0.1") + "::1 after\n")
	c.system.Done()
	spec.TSA = "10.0.0.2"
	require.NoError(t, c.files.PutSpec(spec))
	eventually(t, "another address", reads("::1 before\n"+name("10.0.0.2")+"::1 after\n"))
	time.Sleep(100 * time.Millisecond)
	require.Empty(t, c.system.Done(), "a web server that moves restarts no worker")
	spec.TSA = "10.0.0.3 10.0.0.2"
	require.NoError(t, c.files.PutSpec(spec))
	eventually(t, "two addresses", reads("::1 before\n"+strings.Replace(name("10.0.0.3"), "\n# concourse-ci-machine end", "\n10.0.0.2 tsa.concourse-ci.internal\n# concourse-ci-machine end", 1)+"::1 after\n"))
	write("before\n# concourse-ci-machine begin\n10.0.0.1 tsa.concourse-ci.internal\nafter\n")
	eventually(t, "a block without an end", reads("before\n"+strings.Replace(name("10.0.0.3"), "\n# concourse-ci-machine end", "\n10.0.0.2 tsa.concourse-ci.internal\n# concourse-ci-machine end", 1)+"after\n"))
	write("::1 before\n" + name("10.0.0.2") + "::1 after\n")
	end()
	require.NoError(t, supervisor.Remove(t.Context(), c.system, filepath.Join(t.TempDir(), "state"), hosts))
	require.True(t, reads("::1 before\n::1 after\n")())
}

// A worker that the charm before this one has started, by the web server's address, goes
// on until that changes.
func TestWorkerOfTheFormerCharm(t *testing.T) {
	m, root := newMirror(t), t.TempDir()
	former := m.serving(root, 1, "7.14.3")
	former.Web, former.Worker = nil, &concourse.Worker{Name: "ci-0", TSAHost: "10.0.0.9:2222", HostPublicKey: "ssh-rsa TSA"}
	c := newCharm(t)
	end := c.run(t)
	require.NoError(t, c.files.PutSpec(former))
	eventually(t, "the worker", c.saw(func(s supervisor.Status) bool { return s.Worker.Is == former.Worker.Identity() }))
	end()
	c.system.Done()

	spec := former
	worker := *former.Worker
	worker.TSAHost = concourse.TSAName + ":2222"
	spec.Worker, spec.TSA = &worker, "10.0.0.9"
	require.NoError(t, c.files.PutSpec(spec))
	port := service(t, func(http.ResponseWriter, *http.Request) {})
	c.run(t, workerAt(port))
	eventually(t, "the worker as it is described now", c.saw(func(s supervisor.Status) bool {
		return s.Worker == supervisor.Answer{Version: "7.14.3", Is: worker.Identity()}
	}))
	time.Sleep(100 * time.Millisecond)
	require.Empty(t, c.system.Done())
	spec.TSA = "10.0.0.8"
	require.NoError(t, c.files.PutSpec(spec))
	eventually(t, "a restart", func() bool { return len(c.system.Done()) == 1 })
}

// Between its start by upgrade-charm and the first spec that a hook writes, the supervisor
// of this charm works with the spec of the former one. It leaves that one's worker alone.
func TestWorkerOfTheFormerCharmBeforeTheFirstHook(t *testing.T) {
	dir := t.TempDir()
	certs := filepath.Join(dir, "certs")
	require.NoError(t, os.Mkdir(certs, 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(certs, "ca-certificates.crt"), []byte("ONE"), 0o644))

	m, root := newMirror(t), t.TempDir()
	former := m.serving(root, 1, "7.14.3")
	former.Web, former.Worker = nil, &concourse.Worker{Name: "ci-0", TSAHost: "10.0.0.9:2222", HostPublicKey: "ssh-rsa TSA"}
	c := newCharm(t)
	end := c.run(t) // tells the worker nothing of its machine, as the former charm
	require.NoError(t, c.files.PutSpec(former))
	eventually(t, "the worker", c.saw(func(s supervisor.Status) bool { return s.Worker.Is == former.Worker.Identity() }))
	end()
	c.system.Done()
	c.setBusy(true) // the hook that has installed the supervisor still reads from Juju

	c.run(t, func(s *supervisor.Supervisor) { s.Machine = supervisor.Machine{Certificates: certs} })
	time.Sleep(500 * time.Millisecond)
	require.Empty(t, c.system.Done(), "the refresh has restarted the worker, and its builds are lost")
}

package supervisor_test

import (
	"fmt"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/concourse"
	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/supervisor"
)

// healthy runs a unit whose web server and worker answer until they are made silent.
func healthy(t *testing.T, changes ...func(*supervisor.Supervisor)) (c *charm, spec supervisor.Spec, silent *atomic.Bool) {
	t.Helper()
	silent = &atomic.Bool{}
	port := service(t, func(w http.ResponseWriter, _ *http.Request) {
		if silent.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		fmt.Fprint(w, `{"version":"7.14.3"}`)
	})
	spec = newMirror(t).serving(t.TempDir(), port, "7.14.3")
	spec.Web.Database.Password, spec.Worker.Options = "hunter2", "TOKEN=hunter3"
	c = start(t, append(changes, workerAt(port))...)
	require.NoError(t, c.files.PutSpec(spec))
	eventually(t, "both answer", c.saw(func(f supervisor.Status) bool { return f.Web.Version != "" && f.Worker.Version != "" }))
	return c, spec, silent
}

// A service that ends again and again says why, without its secrets, until it answers.
func TestEndsAgainAndAgain(t *testing.T) {
	stable := func(s *supervisor.Supervisor) { s.Stable = time.Hour }
	for _, unit := range []string{concourse.ServerUnit, concourse.WorkerUnit} {
		t.Run(unit, func(t *testing.T) {
			c, spec, silent := healthy(t, stable)
			of := func(f supervisor.Status) supervisor.Answer {
				if unit == concourse.ServerUnit {
					return f.Web
				}
				return f.Worker
			}
			silent.Store(true)
			for range 2 {
				c.system.Crash(unit, "exit status 1", "error: no such user: hunter2:hunter3")
			}
			eventually(t, "that it does not answer", c.saw(func(f supervisor.Status) bool { return of(f).Version == "" }))
			require.True(t, c.saw(func(f supervisor.Status) bool { return of(f).Exits == "" })(), "twice is not again and again")
			c.system.Crash(unit, "exit status 1", "error: no such user: hunter2:hunter3")
			eventually(t, "how it ends", c.saw(func(f supervisor.Status) bool {
				return of(f).Exits == "(exit status 1): error: no such user: REDACTED:REDACTED"
			}))
			silent.Store(false)
			c.system.Start(unit)
			eventually(t, "that it answers", c.saw(func(f supervisor.Status) bool {
				return of(f).Version == spec.Run && of(f).Exits == ""
			}))
			// It has not answered for long, so that once more is enough.
			silent.Store(true)
			c.system.Crash(unit, "killed by SIGSEGV", "")
			eventually(t, "how it ends", c.saw(func(f supervisor.Status) bool { return of(f).Exits == "(killed by SIGSEGV)" }))
		})
	}
}

// A service that has answered for a while may end as if it never had before.
func TestEndsNowAndThen(t *testing.T) {
	c, _, silent := healthy(t, func(s *supervisor.Supervisor) { s.Stable = 100 * time.Millisecond })
	for range 5 {
		silent.Store(true)
		c.system.Crash(concourse.ServerUnit, "exit status 1", "")
		eventually(t, "that it does not answer", c.saw(func(f supervisor.Status) bool {
			require.Empty(t, f.Web.Exits)
			return f.Web.Version == ""
		}))
		silent.Store(false)
		c.system.Start(concourse.ServerUnit)
		eventually(t, "that it answers", c.saw(func(f supervisor.Status) bool { return f.Web.Version != "" }))
		time.Sleep(200 * time.Millisecond) // it answers for a while
	}
}

// systemd does not start what ends without an error: the supervisor does, and counts.
func TestEndsWithoutAnError(t *testing.T) {
	c, _, silent := healthy(t, func(s *supervisor.Supervisor) { s.Stable = time.Hour })
	silent.Store(true)
	for range 3 {
		c.system.Done()
		c.system.Stop(concourse.WorkerUnit)
		eventually(t, "its next start", func() bool { return len(c.system.Done()) > 0 })
	}
	eventually(t, "how it ends", c.saw(func(f supervisor.Status) bool { return f.Worker.Exits != "" }))
}

// What answers counts only if it executes the release of its version.
func TestExecutesAnotherProgram(t *testing.T) {
	c, spec, _ := healthy(t)
	const other = "/var/lib/concourse/store/7.14.2.1/bin/concourse"
	c.system.Execs(concourse.WorkerUnit, other)
	eventually(t, "the other program", c.saw(func(f supervisor.Status) bool {
		return f.Worker == supervisor.Answer{Is: spec.Worker.Identity(), Executes: other}
	}))
	require.True(t, c.saw(func(f supervisor.Status) bool { return f.Web.Version == spec.Run })())
	c.system.Execs(concourse.WorkerUnit, "/var/lib/concourse/store/7.14.3.2/bin/concourse (deleted)")
	eventually(t, "its own", c.saw(func(f supervisor.Status) bool {
		return f.Worker == supervisor.Answer{Version: spec.Run, Is: spec.Worker.Identity()}
	}))
}

// A process that systemd has started anew, and answers at once, is found by its program.
func TestStartedAnewBySystemd(t *testing.T) {
	c, spec, _ := healthy(t)
	c.system.Crash(concourse.WorkerUnit, "exit status 1", "")
	c.system.Start(concourse.WorkerUnit)
	for began := time.Now(); time.Since(began) < 500*time.Millisecond; time.Sleep(time.Millisecond) {
		status, err := c.files.Status()
		require.NoError(t, err)
		require.Equal(t, spec.Run, status.Worker.Version, "it is well before its silence is one")
	}
	c.system.Execs(concourse.WorkerUnit, "/usr/bin/other")
	eventually(t, "what it executes", c.saw(func(f supervisor.Status) bool { return f.Worker.Executes == "/usr/bin/other" }))
	c.system.Crash(concourse.WorkerUnit, "exit status 1", "")
	c.system.Start(concourse.WorkerUnit)
	eventually(t, "its own", c.saw(func(f supervisor.Status) bool { return f.Worker.Version == spec.Run }))
}

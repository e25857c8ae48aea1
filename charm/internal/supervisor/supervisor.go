// Package supervisor is the part of the charm that works and may wait. A hook writes
// what the unit should be, a Spec, and ends. The supervisor, a service of its own, looks
// at the volume and at the services once a second, does what is due, writes how the unit
// is, a Status, and wakes the charm when that has changed.
package supervisor

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"os"
	"reflect"
	"sync"
	"time"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/concourse"
	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/options"
	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator"
	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/probe"
)

// Unit is the systemd unit of the supervisor.
const Unit = "concourse-ci-supervisor.service"

// Volume is what the supervisor needs of a coordinator.Coordinator. A call with a
// context ends with it, also on a mount that hangs.
type Volume interface {
	VolumeID() string
	Check(ctx context.Context) error
	Executable(ctx context.Context, version string, uid, gid int) error
	Current(ctx context.Context) (coordinator.Activation, error)
	Installed(ctx context.Context, version string) (coordinator.Release, error)
	Recheck(ctx context.Context, version string) (coordinator.Release, error)
	Verify(ctx context.Context, version string, progress func(done, total int64)) error
	WorkerDir(ctx context.Context) (string, error)
	WorkerDirBelow(ctx context.Context, dir string, made []string) (string, error)
	RemoveWorkerDir(ctx context.Context) error
	Ensure(ctx context.Context, version string) (coordinator.Release, error)
	Reinstall(ctx context.Context, version string) (coordinator.Release, error)
	Activate(ctx context.Context, version string) (coordinator.Activation, error)
	Pin(ctx context.Context, version string) (coordinator.Release, error)
	Collect(ctx context.Context) ([]string, error)
	Leave(ctx context.Context) error
	Units(ctx context.Context) ([]string, error)
	Forget(ctx context.Context, unit string) error
	Probe(ctx context.Context) (probe.Result, error)
}

// Supervisor makes the Spec of one unit true. It knows what it has done from Memory, and
// all else from looking.
type Supervisor struct {
	Paths  concourse.Paths
	System concourse.System
	Open   func(ctx context.Context, root string, o coordinator.Options) (Volume, error)
	Newest func(ctx context.Context, client *http.Client, source string) (string, error)
	// Schema asks a database for the version of its schema, see concourse.SchemaReader.
	Schema func(ctx context.Context, db concourse.Database) (int64, error)
	Wake   func(ctx context.Context) error // run one hook; it may block for minutes
	Client *http.Client                    // asks the services for their health
	Log    *slog.Logger                    // of the supervisor itself

	Machine    Machine       // what a worker's containers take of it
	WorkerPort int           // where a worker answers whether it is well
	Interval   time.Duration // between two looks
	Progress   time.Duration // between two wakes for no news but progress
	Backoff    time.Duration // longest pause between two tries
	Deadline   time.Duration // for the web server to answer with a new version
	Workers    time.Duration // between two lists of the workers
	TakeUp     time.Duration // after which a web server has taken up the builds of a worker that registers
	Watch      time.Duration // between two questions to a web server that is watched
	Absence    time.Duration // without an answer after which it is not Answering
	Hosts      string        // the machine's file of host names
	Database   time.Duration // between two questions to the database
	Stable     time.Duration // for which a service answers that has not to be told how it ended before
	Parting    time.Duration // that a web server serves on when its unit leaves
	Gone       time.Duration // that a unit is gone before its files are removed

	files  Files
	spec   Spec
	memory Memory
	status Status

	prepared  bool        // see prepare
	uid, gid  int         // of the web server's user
	first     time.Time   // when the spec was written that was there at first
	stale     bool        // no hook has written another one than the first
	latest    os.FileInfo // file of the one that was read last; nil before
	heard     time.Time   // when that was read
	volume    volumeView
	workers   workersView
	watched   map[string]*watched // by address
	services  serviceView
	machine   machineView
	workDirs  workDirsView
	requests  *downloads
	schema    schemaView
	migration migrationView
	jobs      map[string]*job
	soon      chan struct{} // see lookSoon
	wake      waking
	tries     sync.WaitGroup // of attempts
	verified  sync.Map       // contents of releases that were read, by volume and version
	reported  *Status        // nil before the first look: an earlier life may have left other news
}

// Defaults fills in the intervals, the port and the database of production.
func (s *Supervisor) Defaults() {
	s.Schema, s.Database = new(concourse.SchemaReader).Version, 10*time.Second
	s.WorkerPort = concourse.WorkerHealthPort
	s.Interval, s.Progress, s.Backoff, s.Deadline = time.Second, 5*time.Second, 10*time.Second, 3*time.Minute
	s.Workers = 10 * time.Second // within 30 s a worker that is not heard of shows as such
	s.Watch, s.Absence = 5*time.Second, 20*time.Second
	// Concourse looks for builds every 10 s. It runs those of a worker that lands already
	// once more, on another one.
	s.TakeUp = 30 * time.Second
	s.Hosts = "/etc/hosts"
	s.Stable = time.Minute
	s.Gone = time.Minute
	s.Parting = 10 * time.Second // the others are told by a hook each, which takes seconds on a busy machine
}

// Run works until ctx ends. It returns when all that it began has ended: who
// comes next has the volume and the files to itself. It waits without a limit,
// because all of it ends with its context: see Volume, and a wake kills its process.
func (s *Supervisor) Run(ctx context.Context) error {
	s.files = Files(s.Paths.State)
	s.watched, s.schema.releases = map[string]*watched{}, map[string]*supports{}
	s.jobs, s.soon = map[string]*job{}, make(chan struct{}, 1)
	s.requests = newDownloads(s.Machine)
	s.requests.use(options.Proxies{})
	var err error
	if s.memory, err = read[Memory](s.files, memoryFile); err != nil {
		return err
	}
	defer s.tries.Wait()
	s.first, s.stale = s.files.written(specFile), true
	tick := time.NewTicker(s.Interval)
	defer tick.Stop()
	for {
		if err := s.round(ctx); err != nil {
			s.Log.Warn("cannot look at the unit", "error", err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		case <-s.soon:
		}
	}
}

// lookSoon does not wait for the next tick: what has ended may let another thing begin.
func (s *Supervisor) lookSoon() {
	select {
	case s.soon <- struct{}{}:
	default:
	}
}

// round reads the spec, looks, does what is due, and says how the unit is.
func (s *Supervisor) round(ctx context.Context) error {
	s.status.Stuck = ""
	err := s.prepare(ctx)
	if err = errors.Join(err, s.readSpec()); err == nil && s.spec.Unit != "" {
		err = s.look(ctx)
	}
	if ctx.Err() != nil {
		return ctx.Err() // and says nothing of what it could not see
	}
	if err != nil {
		s.status.Stuck = err.Error()
	}
	err = errors.Join(err, s.report())
	s.wake.consider(ctx, s)
	return err
}

// beats is how often a supervisor shows hooks that it looks, though nothing has changed.
const beats = 30 * time.Second

func (s *Supervisor) report() error {
	written := s.files.written(statusFile)
	if s.reported != nil && s.status == *s.reported && !written.IsZero() {
		if now := time.Now(); now.Sub(written) >= beats {
			return os.Chtimes(s.files.path(statusFile), now, now)
		}
		return nil
	}
	status := s.status
	if err := s.files.PutStatus(status); err != nil {
		return err
	}
	s.reported = &status
	return nil
}

// readSpec takes over a changed spec, and gives up what it makes pointless.
func (s *Supervisor) readSpec() error {
	file, _ := os.Stat(s.files.path(specFile)) // nil before the first hook
	if os.SameFile(file, s.latest) && file.ModTime().Equal(s.latest.ModTime()) {
		return nil
	}
	spec, err := s.files.Spec()
	if err != nil {
		return err
	}
	if old := s.spec; !reflect.DeepEqual(old, spec) {
		if err := s.keep(s.memory.Note(spec)); err != nil {
			return err
		}
		s.spec = spec
		s.requests.use(spec.Proxies)
		s.changeVolumeSpec(old)
	}
	if s.latest, s.heard = file, time.Now(); file != nil {
		s.stale = s.stale && file.ModTime().Equal(s.first)
	}
	return nil
}

func (s *Supervisor) look(ctx context.Context) error {
	var seen Seen
	looked := s.lookAtVolume(ctx)
	s.lookForNewest(ctx)
	s.lookAtReleases(ctx, &seen)
	s.lookAtWorkDir(ctx, &seen)
	s.lookForLost(ctx, &seen)
	s.collectReleases(ctx)
	s.verifyVolume(ctx)
	s.lookAtWatched(ctx)
	s.lookAtHosts(&seen)
	s.lookAtMachine(&seen)
	s.lookAtSchema(ctx, &seen)
	err := s.lookAtServices(ctx, &seen)
	if err != nil {
		return err
	}
	if err := s.lookAtMigration(ctx, &seen); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return ctx.Err() // what was seen may be due to this alone
	}
	if !looked { // it is decided with the next look
		s.do(ctx, Due{})
		return nil
	}
	seen.Busy, seen.WebChanges, seen.Stale = s.busy(), !s.job("web").idle(), s.stale
	due := Next(s.Paths, s.spec, seen, s.memory)
	memory := s.memory
	memory.Stays = due.Stays
	if err := s.keep(memory); err != nil {
		return err
	}
	s.status.Note(s.spec, seen, s.memory, due)
	s.do(ctx, due)
	return nil
}

// keep writes what was done, before it counts.
func (s *Supervisor) keep(m Memory) error {
	if reflect.DeepEqual(m, s.memory) {
		return nil
	}
	if err := s.files.write(memoryFile, m); err != nil {
		return err
	}
	s.memory = m
	return nil
}

// pause doubles from one look to the longest pause.
func (s *Supervisor) pause(failed int) time.Duration {
	return min(s.Interval<<min(failed-1, 16), s.Backoff)
}

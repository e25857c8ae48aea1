package supervisor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/concourse"
	"github.com/concourse-ci-machine/concourse-ci-machine/charm/product"
	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator"
)

// Limits of what a unit does: past them it is taken for failed, and tried again.
const (
	changeLimit  = 20 * time.Second // a change of a file
	volumeWork   = 30 * time.Minute // to read a release, activate and pin it: a mount that hangs is seen by the looks
	serviceLimit = 2 * time.Minute  // to start or stop a service: a worker has one minute to end
	retireLimit  = 20 * time.Second // to have the web server let a worker go
	leaveLimit   = 5 * time.Minute  // to remove what a worker has left
	clearLimit   = 30 * time.Minute // to do so when nobody waits for it
)

// work is something to do. The zero value is nothing.
type work struct {
	what  string // identifies it: other work has no pause of this one to wait for
	limit time.Duration
	try   func(context.Context) error
	// excuse says of a failure that it does not matter, with %v for the error; else it is
	// tried again.
	excuse string
	done   func(m *Memory) // remembers that it succeeded; may be nil
	after  func()          // and what is to be known then; may be nil
}

// job is where one kind of work is done: one at a time, and the looks go on beside it.
type job struct {
	attempt attempt[struct{}]
	work    work
	unkept  bool // what was done is still to be remembered
}

// idle tells whether other work can begin.
func (j *job) idle() bool { return !j.attempt.busy() && !j.unkept }

// do begins what is due, goes on with what is under way, and says what fails.
func (s *Supervisor) do(ctx context.Context, due Due) {
	s.run(ctx, "volume", s.changeVolume(due))
	s.run(ctx, "hosts", s.nameTSA(due.TSA))
	for kind, task := range map[string]Task{"web": due.Web, "worker": due.Worker, "migration": due.Migrate} {
		if task.Verb == Start && s.job(kind).idle() {
			task.At = time.Now()
			if err := s.keep(s.memory.Begun(task)); err != nil {
				s.status.Stuck = err.Error()
				continue
			}
		}
		s.run(ctx, kind, s.changeService(task))
	}
	s.run(ctx, "retire", s.retireOther(due))
	s.run(ctx, "prune", s.prune(due.Prune))
	s.run(ctx, "leave", s.leave(due))
	s.run(ctx, "forget", s.forget(due.Forget))
	s.run(ctx, "clear", s.clear(due.Clear))
}

func (s *Supervisor) job(kind string) *job {
	if s.jobs[kind] == nil {
		s.jobs[kind] = &job{attempt: attempt[struct{}]{ended: s.lookSoon}}
	}
	return s.jobs[kind]
}

// run tries to do one kind of work until it succeeds. With nothing to do, it forgets what
// failed, but lets a try under way end: what is due next depends on how it ends.
func (s *Supervisor) run(ctx context.Context, kind string, w work) {
	j := s.job(kind)
	if j.unkept {
		s.finish(j)
		return
	}
	if !j.attempt.busy() {
		if w.what != j.work.what {
			j.attempt.giveUp()
		}
		if j.work = w; w.what == "" {
			return
		}
	}
	_, ok, err := j.attempt.poll(ctx, s, func(ctx context.Context) (struct{}, error) {
		ctx, cancel := context.WithTimeout(ctx, w.limit)
		defer cancel()
		err := w.try(ctx)
		if err != nil && w.excuse != "" {
			s.say(w.excuse, err)
			err = nil
		}
		return struct{}{}, err
	})
	if err != nil {
		s.Log.Warn("will try again", "error", err)
	}
	if ok {
		s.finish(j)
	}
	s.status.Stuck = cmp.Or(s.status.Stuck, j.attempt.trouble())
}

// finish remembers what was done. Until that can be written nothing else of the kind
// begins, or it would be done again and again.
func (s *Supervisor) finish(j *job) {
	memory := s.memory.clone()
	if j.work.done != nil {
		j.work.done(&memory)
	}
	if err := s.keep(memory); err != nil {
		j.unkept, s.status.Stuck = true, err.Error()
		return
	}
	after := j.work.after
	j.unkept, j.work = false, work{}
	if after != nil {
		after()
	}
}

// busy tells whether something that writes to the volume, or changes a service, is under
// way.
func (s *Supervisor) busy() bool {
	for _, kind := range []string{"volume", "web", "worker", "migration"} {
		if !s.job(kind).idle() {
			return true
		}
	}
	return s.volume.busy()
}

func (s *Supervisor) changeVolume(due Due) work {
	if due.Activate == "" && due.Pin == "" {
		return work{}
	}
	volume, contents := s.volume.open, s.volume.installed[due.Pin].contents
	return work{
		what:  "activate " + due.Activate + " pin " + due.Pin,
		limit: volumeWork,
		try: func(ctx context.Context) error {
			if due.Activate != "" {
				_, err := volume.Activate(ctx, due.Activate)
				if errors.Is(err, coordinator.ErrOvertaken) {
					// By the leader of another application: decided anew with that in sight.
					s.say("Not activated: %v", err)
				} else if err != nil {
					return product.Explain(err)
				}
			}
			if due.Pin == "" {
				return nil
			}
			err := s.verify(ctx, volume, due.Pin, contents)
			if err == nil {
				_, err = volume.Pin(ctx, due.Pin)
			}
			return product.Explain(err)
		},
		done: func(m *Memory) { m.Running = cmp.Or(due.Pin, m.Running) },
	}
}

// verify reads a release before the unit runs anything of it: its files are as its manifest
// says. It does so once for what the manifest says.
func (s *Supervisor) verify(ctx context.Context, volume Volume, version, contents string) error {
	key := volume.VolumeID() + " " + version
	if done, ok := s.verified.Load(key); ok && done == contents {
		return nil
	}
	if err := volume.Verify(ctx, version, nil); err != nil {
		return err
	}
	s.verified.Store(key, contents)
	return nil
}

// nameTSA has the worker of this machine find the web server.
func (s *Supervisor) nameTSA(addresses string) work {
	return work{what: addresses, limit: changeLimit, try: func(context.Context) error { return writeHosts(s.Hosts, addresses) }}
}

func (s *Supervisor) changeService(t Task) work {
	if t.Verb == "" {
		return work{}
	}
	t.At = time.Now()
	return work{
		what:  string(t.Verb) + " " + t.Service.RestartDigest() + t.Service.ReloadDigest(),
		limit: serviceLimit,
		try: func(ctx context.Context) error {
			switch t.Verb {
			case Start:
				if err := s.writeFiles(ctx, t.Service); err != nil {
					return err
				}
				if _, err := s.System.Define(ctx, t.Service.Unit, t.Service.Definition()); err != nil {
					return err
				}
				s.say("Starting %s from Concourse v%s", t.Service.Unit, t.Version)
				for _, option := range t.Service.Unknown {
					s.say("Concourse v%s does not know the option %s, and does not get it", t.Version, option)
				}
				return s.System.Restart(ctx, t.Service.Unit)
			case Reload:
				if err := s.writeFiles(ctx, t.Service); err != nil {
					return err
				}
				return s.System.Reload(ctx, t.Service.Unit)
			case Land:
				if err := s.findWeb(ctx); err != nil {
					return err
				}
				s.say("Landing the worker %s: it ends with its builds", s.spec.why())
				return s.System.Signal(ctx, t.Service.Unit, "SIGUSR1")
			}
			return s.System.Remove(ctx, t.Service.Unit)
		},
		done: func(m *Memory) { *m = m.Did(t, s.spec) },
		after: func() {
			switch t.Verb {
			case Land: // or it would be told again before the web server has heard of it
				s.workers.told = time.Now()
				s.workers.listed.SetState(concourse.WorkerName(s.spec.Unit), concourse.Landing)
			case Start, Stop:
				if t.Service.Unit == concourse.MigrationUnit {
					s.migration.asked = time.Time{} // what systemd has said is of another process
				} else {
					s.startedAnew(t.Service.Unit)
				}
			}
		},
	}
}

// why says what a worker lands for.
func (s Spec) why() string {
	switch {
	case s.Worker == nil || s.Leaving:
		return "for good"
	case s.Paused:
		return "to pause it"
	}
	return "in its turn"
}

// findWeb returns an error unless a web server answers right now: a worker that is told to
// land and cannot say so to one ends with its builds.
func (s *Supervisor) findWeb(ctx context.Context) (err error) {
	if s.spec.Web != nil {
		_, err = concourse.WebVersion(ctx, s.Client, s.spec.Web.Port)
		return err
	}
	for _, address := range s.spec.Watch {
		well := false
		if well, err = concourse.WebAnswers(ctx, s.Client, address); well {
			return nil
		}
	}
	return fmt.Errorf("land the worker: no web server answers: %w", cmp.Or(err, errors.New("it has an error")))
}

// retireOther has the web server of this unit forget a worker. Any key that is authorized
// may ask for any worker.
func (s *Supervisor) retireOther(due Due) work {
	if due.Retire == "" {
		return work{}
	}
	web := *s.spec.Web
	return work{
		what:  due.Retire,
		limit: retireLimit,
		try: func(ctx context.Context) error {
			public, err := concourse.PublicKey(web.Keys.HostKey)
			if err == nil {
				err = concourse.WriteFile(s.Paths.HostPublicKey(), public+"\n", 0o600)
			}
			if err == nil {
				err = s.retire(ctx, due.Run, due.Retire, net.JoinHostPort(web.Address, strconv.Itoa(concourse.TSAPort)))
			}
			return err
		},
		// Its own unit has done it, or the web server will in time.
		excuse: "Worker of " + due.Retire + " was not retired here: %v",
		done: func(m *Memory) {
			m.Retire = slices.DeleteFunc(m.Retire, func(unit string) bool { return unit == due.Retire })
		},
	}
}

func (s *Supervisor) prune(worker string) work {
	api := s.workers.api
	return work{
		what: worker, limit: retireLimit,
		try: func(ctx context.Context) error { return api.Prune(ctx, worker) },
		after: func() {
			s.say("Pruned worker %s, which no unit has", worker)
			s.workers.listed.SetState(worker, "")
		},
	}
}

// leave takes one of the steps in which a unit leaves. None of them keeps it from being
// removed: what is left behind takes room, and does no harm.
func (s *Supervisor) leave(due Due) work {
	memory, spec, volume := s.memory, s.spec, s.volume.open
	switch {
	case due.RetireSelf:
		return work{
			what: "retire", limit: retireLimit,
			try: func(ctx context.Context) error {
				return s.retire(ctx, memory.Running, spec.Unit, memory.TSAHost)
			},
			excuse: "Worker was not retired, the web server will do it: %v",
			done:   func(m *Memory) { m.Retired = true },
		}
	case due.Part:
		return work{
			what: "part", limit: s.Parting + time.Minute,
			try: func(ctx context.Context) error {
				select {
				case <-time.After(s.Parting):
					return nil
				case <-ctx.Done():
					return ctx.Err()
				}
			},
			done: func(m *Memory) { m.Parted = true },
		}
	case due.LeaveVolume:
		return work{
			what: "leave the volume", limit: leaveLimit,
			try: func(ctx context.Context) error {
				s.leaveLocalDirs(ctx, spec, memory)
				if volume == nil {
					return errors.New("the volume is not there")
				}
				return volume.Leave(ctx)
			},
			excuse: "Left " + spec.volumeWorkDir() + " behind: %v",
			done:   func(m *Memory) { m.LeftVolume = true },
		}
	}
	return work{}
}

// retire asks the web server at host to forget a unit's worker.
func (s *Supervisor) retire(ctx context.Context, version, unit, host string) error {
	return s.System.Execute(ctx, filepath.Join(s.Paths.Release(version), "bin", "concourse"), "retire-worker",
		"--name="+concourse.WorkerName(unit), "--tsa-host="+host,
		"--tsa-public-key="+s.Paths.HostPublicKey(), "--tsa-worker-private-key="+s.Paths.WorkerKey())
}

// say writes a line for Juju's log; a hook brings it there.
func (s *Supervisor) say(format string, args ...any) {
	s.files.Journal().Log().Info(fmt.Sprintf(format, args...))
}

func (s *Supervisor) writeFiles(ctx context.Context, service concourse.Service) error {
	for _, f := range service.Files {
		if err := concourse.WriteFile(f.Path, f.Content, 0o600); err != nil {
			return err
		}
		if f.Owner == "" {
			continue
		}
		uid, gid, err := s.System.Account(ctx, f.Owner)
		if err == nil {
			err = chown(f.Path, uid, gid)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// chown is for root; tests run as whoever they are. It follows no link: the web
// server's user could have put one in its directory.
func chown(path string, uid, gid int) error {
	if os.Geteuid() != 0 {
		return nil
	}
	return os.Lchown(path, uid, gid)
}

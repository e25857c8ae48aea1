package supervisor

import (
	"context"
	"path/filepath"
	"slices"
	"time"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/concourse"
	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator"
)

// workDirsView is what the supervisor knows from look to look of the directories in which
// the worker of its unit keeps, or has kept, its state.
type workDirsView struct {
	below, dir string    // concourse.Worker.LocalDir, and what was made there; empty if nothing could be
	looked     time.Time // when that was made, or found to be as it should
	failure    error     // why it could not be made
	blocked    bool      // the worker is to get what Memory.Clearing is
	kept       time.Time // when that could not be removed
	keptFor    error     // and why
}

// localDir is that of the worker; empty while it works on the volume, or there is none.
func (s Spec) localDir() string {
	if s.Worker == nil {
		return ""
	}
	return s.Worker.LocalDir
}

// volumeWorkDir is where coordinator.WorkerDir is.
func (s Spec) volumeWorkDir() string {
	return filepath.Join(s.Root, "worker", concourse.WorkerName(s.Unit))
}

// worksOnVolume tells whether the unit has a directory on the volume.
func (s *Supervisor) worksOnVolume() bool {
	return !s.spec.Leaving && s.spec.localDir() == "" && s.memory.Clearing != s.spec.volumeWorkDir()
}

// lookAtWorkDir finds the directory for the worker's state, and has it made where an
// operator wants it. One that cannot be made, or used any more, stops no worker.
func (s *Supervisor) lookAtWorkDir(ctx context.Context, seen *Seen) {
	v := &s.workDirs
	wanted := s.spec.volumeWorkDir()
	switch local := s.spec.localDir(); {
	case local == "" || s.spec.Leaving:
		v.below, v.dir, v.failure = "", "", nil
		seen.WorkDir = s.volume.workDir
	case s.volume.open == nil: // nor is there a worker
		return
	default:
		s.volume.workDir = "" // the worker leaves it
		if local != v.below || time.Since(v.looked) >= s.Backoff {
			s.makeLocalDir(ctx, local)
		}
		wanted = v.dir
		if v.failure == nil {
			seen.WorkDir = v.dir
		}
	}
	failure := v.failure
	if v.blocked = wanted != "" && wanted == s.memory.Clearing; v.blocked {
		seen.WorkDir, failure = "", v.keptFor
	}
	if failure != nil {
		s.status.Stuck = failure.Error()
	}
}

// makeLocalDir remembers a directory before a worker gets it, and with it the one on the
// volume, where the worker may have been before.
func (s *Supervisor) makeLocalDir(ctx context.Context, below string) {
	v := &s.workDirs
	limited, cancel := context.WithTimeout(ctx, volumeLimit)
	defer cancel()
	dir, err := s.volume.open.WorkerDirBelow(limited, below, s.memory.WorkDirs)
	if err == nil {
		dirs := []string{dir}
		if dir != v.dir {
			dirs = append(dirs, s.spec.volumeWorkDir())
		}
		err = s.keep(s.memory.withWorkDirs(dirs...))
	}
	if err == nil {
		v.dir = dir
	} else if below != v.below {
		v.dir = ""
	}
	v.below, v.looked, v.failure = below, time.Now(), err
}

// clear removes a directory that the worker has left. What cannot be removed takes room,
// and does no harm, unless the worker is to have that directory again.
func (s *Supervisor) clear(dir string) work {
	v := &s.workDirs
	pause := keptPause
	if v.blocked {
		pause = s.Backoff
	}
	if dir == "" || s.volume.open == nil || v.keptFor != nil && time.Since(v.kept) < pause {
		return work{}
	}
	m := s.memory.clone()
	m.Clearing = dir
	if err := s.keep(m); err != nil {
		s.status.Stuck = err.Error()
		return work{}
	}
	remove := func(ctx context.Context) error { return coordinator.RemoveWorkerDir(ctx, dir) }
	if dir == s.spec.volumeWorkDir() {
		remove = s.volume.open.RemoveWorkerDir
	}
	var kept error
	return work{
		what: dir, limit: clearLimit,
		try:    func(ctx context.Context) error { kept = remove(ctx); return kept },
		excuse: "What the worker has left there stays for now: %v",
		done: func(m *Memory) {
			if kept == nil {
				*m = m.withoutWorkDir(dir)
			}
		},
		after: func() {
			if v.kept, v.keptFor = time.Now(), kept; kept == nil && dir == v.dir {
				v.below, v.dir = "", "" // it has to be made anew before a worker gets it
			}
		},
	}
}

// leaveLocalDirs removes what the worker of a unit that leaves has outside of the volume.
func (s *Supervisor) leaveLocalDirs(ctx context.Context, spec Spec, m Memory) {
	for _, dir := range m.WorkDirs {
		if dir == spec.volumeWorkDir() {
			continue // it goes with all that the unit has there
		}
		if err := coordinator.RemoveWorkerDir(ctx, dir); err != nil {
			s.say("Left %s behind: %v", dir, err)
		}
	}
}

func (m Memory) withWorkDirs(dirs ...string) Memory {
	m = m.clone()
	for _, dir := range dirs {
		if !slices.Contains(m.WorkDirs, dir) {
			m.WorkDirs = append(m.WorkDirs, dir)
		}
	}
	return m
}

func (m Memory) withoutWorkDir(dir string) Memory {
	m = m.clone()
	m.Clearing = ""
	m.WorkDirs = slices.DeleteFunc(m.WorkDirs, func(other string) bool { return other == dir })
	return m
}

package sim

import (
	"errors"
	"time"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/supervisor"
)

var errNoAgent = errors.New("juju-exec: no agent")

// volumeView is what the supervisor knows of the volume: volume.go of that package.
type volumeView struct {
	open    bool
	current activation
	workDir string
	hung    int
	known   map[string]time.Duration // sound releases, and when they were looked at
	ensured string
	tidy    string

	install, newest, tidying attempt
}

const (
	volumeLimit = 3 * time.Second
	hungLooks   = 3
	recheck     = 10 * time.Second
)

// mount is the volume that the unit uses.
func (u *unit) mount() *mount {
	if m := &u.machine.mount; u.files.spec.Shared {
		m.volume = u.world.volume
	}
	return &u.machine.mount
}

func (v *volumeView) forget() { v.open, v.known, v.workDir, v.current = false, nil, "", activation{} }

func (d *driver) acceptVolume(old supervisor.Spec) {
	v, s := &d.volume, &d.status
	place := old.Root != d.spec.Root || old.Shared != d.spec.Shared || old.Unit != d.spec.Unit || old.Owner != d.spec.Owner
	if place || old.Source != d.spec.Source || old.Digest != d.spec.Digest {
		v.forget()
	}
	if !v.open || old.Fetch != d.spec.Fetch {
		v.install.giveUp()
		v.tidying.giveUp()
		v.ensured = ""
		s.Installed, s.Trying, s.Holder, s.Percent, s.Failure = "", "", "", 0, ""
	}
	if old.Leaving && !d.spec.Leaving {
		v.forget()
	}
	if d.spec.Leaving {
		v.install.giveUp()
		v.tidying.giveUp()
	}
	if !d.spec.Newest {
		v.newest.giveUp()
		s.Newest, s.NewestFailure = "", ""
	}
}

// lookAtVolume tells whether there is something to be said of the volume.
func (d *driver) lookAtVolume(err error) bool {
	v, s := &d.volume, &d.status
	if !errors.Is(err, errHung) {
		v.hung = 0
	} else if v.hung++; v.hung < hungLooks {
		return false
	}
	switch s.Fault, s.Detail = supervisor.Healthy, ""; {
	case errors.Is(err, errHung):
		s.Fault, s.Detail = supervisor.Hung, err.Error()
	case err != nil:
		s.Fault, s.Detail = supervisor.NotMounted, err.Error()
	case d.unit.mount().volume.full:
		s.Fault, s.Detail = supervisor.Full, errFull.Error()
	}
	if err != nil {
		v.forget()
		s.Current, s.CurrentAs, s.Installed = "", 0, ""
		s.VolumeID = d.unit.files.memory.VolumeID
		return true
	}
	if !v.open {
		v.open, v.known = true, map[string]time.Duration{}
	}
	v.current = d.unit.mount().volume.current()
	if v.workDir == "" && !d.spec.Leaving {
		v.workDir = paths.Volume + "/worker/" + d.unit.worker()
	}
	s.Current, s.CurrentAs = v.current.version, v.current.generation
	if d.spec.Shared {
		d.unit.files.memory.VolumeID, s.VolumeID = "volume", "volume"
	}
	return true
}

func (d *driver) lookForNewest() {
	if !d.spec.Newest || d.spec.Leaving || d.status.Newest != "" {
		return
	}
	done, err := d.volume.newest.poll(d, func(f *flight) {
		d.unit.soon(200*time.Millisecond, 3*time.Second, func() {
			if d.unit.mirror.down || d.unit.machine.cut {
				f.end(errMirror)
				return
			}
			f.end(nil)
		})
	})
	if err != nil {
		d.status.NewestFailure = err.Error()
	}
	if done {
		d.status.Newest, d.status.NewestFailure = firstVersion, ""
	}
}

func (d *driver) lookAtReleases() supervisor.Seen {
	v := &d.volume
	seen := supervisor.Seen{
		Fault: d.status.Fault, Current: v.current.version, CurrentBy: v.current.unit, CurrentAs: v.current.generation, WorkDir: v.workDir,
		Installed: map[string]string{}, Contents: map[string]string{},
	}
	if v.open {
		for _, version := range []string{d.spec.Run, d.unit.files.memory.Running, d.spec.Fetch} {
			d.lookAtRelease(version)
		}
		if g := d.spec.Migrate; g != nil {
			d.lookAtRelease(g.Version)
		}
		if !d.spec.Leaving {
			d.lookAtInstall()
		}
	}
	for version := range v.known {
		seen.Installed[version], seen.Contents[version] = "sha256:"+version, "contents-"+version
	}
	d.status.Contents = seen.Contents[d.status.Installed]
	return seen
}

func (d *driver) lookAtRelease(version string) {
	v, m := &d.volume, d.unit.mount()
	at, there := v.known[version]
	if version == "" || m.hung || there && d.unit.now-at < recheck {
		return
	}
	if delete(v.known, version); m.volume.installed[version] {
		v.known[version] = d.unit.now
	}
}

func (d *driver) lookAtInstall() {
	v, s, version := &d.volume, &d.status, d.spec.Fetch
	if _, there := v.known[version]; !there {
		v.ensured = ""
	}
	if version == "" || version == v.ensured {
		s.Installed = version
		return
	}
	s.Installed, s.Trying = "", version
	done, err := v.install.poll(d, func(f *flight) {
		d.unit.mount().ensure(f, d.unit.name, version, func(holder string, percent int) {
			if !f.cancelled && !f.over && d.spec.Fetch == version {
				d.unit.files.journal = max(d.unit.files.journal, boolean(s.Holder != holder))
				s.Holder, s.Percent = holder, percent
			}
		})
	})
	if err != nil {
		s.Failure, s.Holder, s.Percent = err.Error(), "", 0
	}
	if done {
		v.known[version] = d.unit.now
		v.ensured, s.Installed = version, version
		s.Trying, s.Holder, s.Percent, s.Failure = "", "", 0, ""
		d.unit.files.journal++
	}
}

func boolean(b bool) int {
	if b {
		return 1
	}
	return 0
}

// collect removes old releases once for each version that all units came to run.
func (d *driver) collect() {
	v := &d.volume
	if !d.spec.Collect || d.stale || d.spec.Leaving || !v.open || v.tidy == d.spec.Fetch {
		return
	}
	done, _ := v.tidying.poll(d, func(f *flight) {
		d.unit.soon(100*time.Millisecond, 2*time.Second, func() {
			m := d.unit.mount()
			err := m.check()
			if f.cancelled {
				err = errCancelled
			}
			if err == nil && !f.dead() {
				m.volume.collect()
			}
			f.end(err)
		})
	})
	if done {
		v.tidy = d.spec.Fetch
	}
}

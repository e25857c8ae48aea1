package supervisor

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/product"
	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator"
	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/probe"
)

// volumeView is what the supervisor knows of the volume from look to look.
type volumeView struct {
	open      Volume // nil while it is not there
	current   coordinator.Activation
	workDir   string
	hung      int              // looks in a row that the mount has not answered
	installed map[string]known // releases that are sound
	ensured   string           // Spec.Fetch once it was installed, or its reuse was said

	install  attempt[coordinator.Release]
	newest   attempt[string]
	collect  attempt[[]string]
	check    attempt[Checked]
	probe    attempt[probe.Result]
	probed   bool   // the volume, since it was opened
	tidy     string // the version for which was collected
	lost     lostUnits
	looks    int                                  // spaces the questions for access
	asked    string                               // the release about which that was last; empty for none
	denied   error                                // and coordinator.ErrNoAccess, if the web server's user is shut out
	progress atomic.Pointer[coordinator.Progress] // that nobody has looked at yet
}

// known is a release that was sound when it was looked at.
type known struct {
	digest, contents string
	at               time.Time
}

// busy tells whether something that writes to the volume is under way.
func (v *volumeView) busy() bool {
	return v.install.busy() || v.collect.busy() || v.check.busy() || v.probe.busy()
}

// changeVolumeSpec gives up what a changed spec makes pointless.
func (s *Supervisor) changeVolumeSpec(old Spec) {
	place := old.Accepted != s.spec.Accepted || old.Root != s.spec.Root || old.Shared != s.spec.Shared || old.Unit != s.spec.Unit || old.Owner != s.spec.Owner
	origin := old.Source != s.spec.Source || old.Digest != s.spec.Digest
	if place || origin {
		s.forgetVolume()
	}
	if s.volume.open == nil || old.Fetch != s.spec.Fetch {
		s.volume.install.giveUp()
		s.volume.collect.giveUp()
		s.volume.ensured = ""
		s.status.Installed, s.status.Trying, s.status.Holder, s.status.Percent, s.status.Failure = "", "", "", 0, ""
	}
	if old.Check != s.spec.Check {
		s.volume.check.giveUp()
	}
	if old.Leaving && !s.spec.Leaving {
		s.forgetVolume() // what was there of this unit is gone
	}
	if s.spec.Leaving { // nothing writes to the volume beside its leaving
		s.volume.install.giveUp()
		s.volume.collect.giveUp()
		s.volume.check.giveUp()
		s.volume.probe.giveUp()
	}
	if origin || !s.spec.Newest {
		s.volume.newest.giveUp()
		s.status.Newest, s.status.NewestFailure = "", ""
	}
}

func (s *Supervisor) forgetVolume() {
	s.volume.open, s.volume.installed, s.volume.workDir, s.volume.current = nil, nil, "", coordinator.Activation{}
	s.volume.check.giveUp()
	s.volume.probe.giveUp()
}

// volumeLimit bounds a look at the volume: where its mount hangs, the services are
// looked at none the less. One that is slow for a moment stops no worker: it takes hungLooks
// in a row.
const (
	volumeLimit = 3 * time.Second
	hungLooks   = 3
)

// lookAtVolume tells whether there is something to be said of the volume.
func (s *Supervisor) lookAtVolume(ctx context.Context) bool {
	limited, cancel := context.WithTimeout(ctx, volumeLimit)
	defer cancel()
	err := s.openVolume(limited)
	if ctx.Err() != nil {
		return false
	}
	if !errors.Is(err, coordinator.ErrHung) && !errors.Is(err, context.DeadlineExceeded) {
		s.volume.hung = 0
	} else if s.volume.hung++; s.volume.hung < hungLooks {
		return false
	}
	s.status.Fault, s.status.Detail, s.status.Mounted = faultOf(err), detailOf(err), ""
	if foreign := (*coordinator.ForeignVolume)(nil); errors.As(err, &foreign) {
		s.status.Mounted = foreign.State
	}
	if s.status.Fault.severe() || s.volume.open == nil { // such as one that is full before it is one
		s.forgetVolume()
		s.status.Current, s.status.CurrentAs, s.status.Installed = "", 0, ""
		s.status.VolumeID = s.spec.volumeID(s.memory)
		return true
	}
	s.status.Current, s.status.CurrentAs = s.volume.current.Version, s.volume.current.Generation
	if s.spec.Shared {
		s.status.VolumeID = s.volume.open.VolumeID()
	}
	if !s.volume.probed && !s.spec.Leaving {
		s.lookAtMount(ctx)
	}
	return true
}

// openVolume returns the fault of a volume, one that is not severe for one that is open.
func (s *Supervisor) openVolume(ctx context.Context) error {
	v := &s.volume
	if v.open == nil {
		o := s.spec.options(s.memory)
		o.Client, o.Log = s.requests.client(), s.files.Journal().Log()
		o.Progress = func(p coordinator.Progress) { v.progress.Store(&p) }
		volume, err := s.Open(ctx, s.spec.Root, o)
		if err != nil {
			return err
		}
		v.open, v.probed, v.installed, v.asked = volume, false, map[string]known{}, ""
	}
	fault := v.open.Check(ctx)
	if faultOf(fault).severe() {
		return fault
	}
	if s.spec.Shared {
		m := s.memory.clone().onVolume(v.open.VolumeID())
		m.Accepted = s.spec.Accepted
		if err := s.keep(m); err != nil {
			return err
		}
	}
	current, err := v.open.Current(ctx)
	switch {
	case err == nil || errors.Is(err, coordinator.ErrNotActivated):
		v.current = current
	case errors.Is(err, coordinator.ErrHung):
		return err
	default:
		s.Log.Warn("cannot read what is active", "error", err)
	}
	if v.workDir == "" && s.worksOnVolume() { // for whatever role it gets
		if v.workDir, err = v.open.WorkerDir(ctx); err != nil {
			return err
		}
	}
	if fault == nil {
		return s.lookAtAccess(ctx)
	}
	return fault
}

// accessLooks spaces the questions for the rights of the web server's user, each of which
// costs a thread. While that user is shut out each look asks.
const accessLooks = 5

func (s *Supervisor) lookAtAccess(ctx context.Context) error {
	v, run := &s.volume, s.status.Run
	if s.spec.Web == nil || run == "" {
		v.asked = ""
		return nil
	}
	if v.looks++; v.looks%accessLooks != 0 && v.asked == run && v.denied == nil {
		return nil
	}
	err := v.open.Executable(ctx, run, s.uid, s.gid)
	if v.asked, v.denied = run, nil; errors.Is(err, coordinator.ErrNoAccess) {
		v.denied = err
	}
	return v.denied
}

// faults are in the order in which they explain an error of several kinds.
var faults = []struct {
	kind  error
	fault Fault
}{
	{nil, Healthy},
	{coordinator.ErrHung, Hung}, {context.DeadlineExceeded, Hung},
	{coordinator.ErrUnmarked, Unmarked}, {coordinator.ErrNotMounted, NotMounted},
	{coordinator.ErrDamaged, Broken},
	{coordinator.ErrOtherOwner, OtherModel}, {coordinator.ErrNewerLayout, Newer}, {coordinator.ErrForeignVolume, Foreign},
	{coordinator.ErrReadOnly, ReadOnly}, {coordinator.ErrNoExec, NoExec},
	{coordinator.ErrNoAccess, NoAccess}, {coordinator.ErrNoSpace, Full},
}

func faultOf(err error) Fault {
	for _, f := range faults {
		if errors.Is(err, f.kind) {
			return f.fault
		}
	}
	return Broken
}

// detailOf leaves out what was attempted, where the status says what is wrong.
func detailOf(err error) string {
	var e *coordinator.Error
	if fault := faultOf(err); fault == Healthy {
		return ""
	} else if errors.As(err, &e) && (fault == Unmarked || fault == NoAccess || fault == Full) {
		return e.Err.Error()
	}
	return product.Explain(err).Error()
}

// lookAtMount has a volume probed once it is there: operators see the result
// with ccbench volume inspect.
func (s *Supervisor) lookAtMount(ctx context.Context) {
	result, done, err := s.volume.probe.poll(ctx, s, s.volume.open.Probe)
	if err != nil {
		s.Log.Warn("cannot probe the volume", "error", err)
	}
	if done {
		s.volume.probed = true
		s.Log.Info("probed the volume", "result", result.String(), "took", result.Took)
	}
}

// recheck is how often an installed release is compared with its manifest.
const recheck = 10 * time.Second

// lookAtReleases looks at the releases that the unit may run, and has the one that is
// wanted installed.
func (s *Supervisor) lookAtReleases(ctx context.Context, seen *Seen) {
	v := &s.volume
	seen.Fault, seen.Current, seen.CurrentBy, seen.CurrentAs = s.status.Fault, v.current.Version, v.current.Unit, v.current.Generation
	if v.open != nil {
		for _, version := range []string{s.spec.Run, s.memory.Running, s.spec.Fetch, s.spec.Migrate.program()} {
			s.lookAtRelease(ctx, version)
		}
		if !s.spec.Leaving {
			s.lookAtInstall(ctx)
		}
	}
	seen.Installed, seen.Contents, s.status.Changed = map[string]string{}, map[string]string{}, ""
	for version, k := range v.installed {
		seen.Installed[version], seen.Contents[version] = k.digest, k.contents
		if expected := s.spec.Contents[version]; expected != "" && expected != k.contents && version == s.spec.Run {
			s.status.Changed = version
		}
	}
	s.status.Contents = seen.Contents[s.status.Installed]
}

func (s *Supervisor) lookAtRelease(ctx context.Context, version string) {
	k, there := s.volume.installed[version]
	if version == "" || there && time.Since(k.at) < recheck {
		return
	}
	look := s.volume.open.Installed
	if there {
		look = s.volume.open.Recheck
	}
	limited, cancel := context.WithTimeout(ctx, volumeLimit)
	defer cancel()
	r, err := look(limited, version)
	switch {
	case err == nil:
		s.volume.installed[version] = known{r.Digest, r.Contents, time.Now()}
	case errors.Is(err, coordinator.ErrNotInstalled) || errors.Is(err, coordinator.ErrCorrupt):
		delete(s.volume.installed, version)
	}
}

func (s *Supervisor) lookAtInstall(ctx context.Context) {
	if p := s.volume.progress.Swap(nil); p != nil && p.Version == s.spec.Fetch {
		s.status.Holder, s.status.Percent = p.Unit, 0
		if p.Unit == s.spec.Unit && p.Total > 0 {
			s.status.Percent = int(100 * p.Bytes / p.Total)
		}
	}
	version := s.spec.Fetch
	if _, there := s.volume.installed[version]; !there {
		s.volume.ensured = ""
	}
	if version == "" || version == s.volume.ensured {
		s.status.Installed = version
		return
	}
	s.status.Installed, s.status.Trying = "", version
	volume := s.volume.open // of this try, whatever is wanted later
	r, done, err := s.volume.install.poll(ctx, s, func(ctx context.Context) (coordinator.Release, error) {
		return volume.Ensure(ctx, version)
	})
	if err != nil {
		s.status.Failure = product.Explain(err).Error()
		s.status.Holder, s.status.Percent = "", 0
	}
	if done {
		s.volume.installed[version] = known{r.Digest, r.Contents, time.Now()}
		s.volume.ensured, s.status.Installed = version, version
		s.status.Trying, s.status.Holder, s.status.Percent, s.status.Failure = "", "", 0, ""
	}
}

func (s *Supervisor) lookForNewest(ctx context.Context) {
	if !s.spec.Newest || s.spec.Leaving || s.status.Newest != "" {
		return
	}
	source := s.spec.Source
	version, done, err := s.volume.newest.poll(ctx, s, func(ctx context.Context) (string, error) {
		ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
		defer cancel()
		return s.Newest(ctx, s.requests.client(), source)
	})
	if err != nil {
		s.status.NewestFailure = err.Error()
	}
	if done {
		s.status.Newest, s.status.NewestFailure = version, ""
	}
}

// collectReleases collects once for each version that all units came to run. A spec of
// before the unit was off may know nothing of a release that the others want.
func (s *Supervisor) collectReleases(ctx context.Context) {
	if !s.spec.Collect || s.stale || s.spec.Leaving || s.volume.open == nil || s.volume.tidy == s.spec.Fetch {
		return
	}
	removed, done, err := s.volume.collect.poll(ctx, s, s.volume.open.Collect)
	if err != nil {
		s.Log.Warn("cannot remove old releases", "error", err)
	}
	if done {
		s.volume.tidy = s.spec.Fetch
		s.Log.Info("removed old releases", "versions", removed)
	}
}

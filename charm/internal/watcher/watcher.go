// Package watcher is the part of the charm that may wait. A hook writes what
// the unit wants and ends; the watcher, a service of its own, installs the
// release, looks at the volume and at the services once a second, writes what
// it found, and wakes the charm when something changed.
package watcher

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"time"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/concourse"
	"github.com/concourse-ci-machine/concourse-ci-machine/charm/product"
	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator"
	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/probe"
)

// Unit is the systemd unit of the watcher.
const Unit = "concourse-ci-watcher.service"

// Want is what a hook asks for.
type Want struct {
	Unit     string `json:"unit"`
	Owner    string `json:"owner,omitempty"` // of a shared volume: the model
	Root     string `json:"root"`            // of the volume
	Shared   bool   `json:"shared"`
	VolumeID string `json:"volume_id,omitempty"` // seen before, only of a shared volume
	Source   string `json:"source"`
	Digest   string `json:"digest,omitempty"`
	Version  string `json:"version,omitempty"` // to install; empty for none
	Newest   bool   `json:"newest,omitempty"`  // find out the newest version
	Again    bool   `json:"again,omitempty"`   // wake the charm soon, whatever happens
	Collect  bool   `json:"collect,omitempty"` // remove releases that no unit needs
	// WebPort, WebVersion and WebService are set on a unit that runs the web
	// server, those of the worker on one that runs a worker. A service with
	// another digest was started anew: what was known of its health is void.
	WebPort       int    `json:"web_port,omitempty"`
	WebVersion    string `json:"web_version,omitempty"`
	WebService    string `json:"web_service,omitempty"` // concourse.Service.Digest
	WorkerPort    int    `json:"worker_port,omitempty"`
	WorkerVersion string `json:"worker_version,omitempty"`
	WorkerService string `json:"worker_service,omitempty"`
}

// Options opens the volume that is wanted.
func (w Want) Options(log *slog.Logger, progress func(coordinator.Progress)) coordinator.Options {
	o := coordinator.Options{
		Unit: w.Unit, Product: product.Concourse, Owner: w.Owner, VolumeID: w.VolumeID,
		Source: w.Source, Digest: w.Digest, Log: log, Progress: progress,
	}
	if w.Shared {
		o.Marker = product.Marker
	}
	return o
}

// Found is what the watcher saw last.
type Found struct {
	Mounted   bool   `json:"mounted"`
	Fault     string `json:"fault,omitempty"`     // of the volume, when it is not mounted
	Current   string `json:"current,omitempty"`   // the active release
	Installed string `json:"installed,omitempty"` // Want.Version once it is there
	// Trying is the version that is being installed, Holder the unit that
	// downloads it, Percent how far this unit's own download is, and Failure
	// why the last try failed.
	Trying  string `json:"trying,omitempty"`
	Holder  string `json:"holder,omitempty"`
	Percent int    `json:"percent,omitempty"`
	Failure string `json:"failure,omitempty"`
	// Newest is the newest version at the source, or NewestFailure says why it is unknown.
	Newest        string `json:"newest,omitempty"`
	NewestFailure string `json:"newest_failure,omitempty"`
	// Web is the version that the web server answers with. Overdue is a version
	// that it should have answered with for longer than the deadline.
	Web     string `json:"web,omitempty"`
	Overdue string `json:"overdue,omitempty"`
	// Worker is Want.WorkerVersion while the worker is healthy.
	Worker string `json:"worker,omitempty"`
}

// Volume is what the watcher needs of a coordinator.Coordinator. A call with a
// context ends with it, also on a mount that hangs.
type Volume interface {
	Check(ctx context.Context) error
	Ensure(ctx context.Context, version string) (coordinator.Release, error)
	Recheck(ctx context.Context, version string) (coordinator.Release, error)
	Current(ctx context.Context) (coordinator.Activation, error)
	Collect(ctx context.Context) ([]string, error)
	Probe(ctx context.Context) (probe.Result, error)
}

// Watcher has no state that a restart would miss but its timers.
type Watcher struct {
	Files  Files
	Open   func(ctx context.Context, root string, o coordinator.Options) (Volume, error)
	Newest func(ctx context.Context, client *http.Client, source string) (string, error)
	Wake   func(ctx context.Context) error // run one hook; it may block for minutes
	Client *http.Client                    // asks the services for their health
	Log    *slog.Logger                    // of the watcher itself

	Interval time.Duration // between two looks
	Progress time.Duration // between two wakes for no news but progress
	Backoff  time.Duration // longest pause between two tries
	Deadline time.Duration // for the web server to answer with a new version

	want   Want
	volume Volume
	found  Found

	install  attempt[coordinator.Release]
	newest   attempt[string]
	collect  attempt[[]string]
	probe    attempt[probe.Result]
	probed   bool   // the volume, since it was opened
	tidy     string // the wanted version for which was collected
	progress chan coordinator.Progress
	checked  time.Time // last quick check of the installed release
	silent   time.Time // since when the web server owes an answer
	healthy  int       // interval counter that spaces health checks

	webMissed, workerMissed int // checks in a row

	wake    waking
	written *Found // nil before the first look: an earlier life may have left other news
}

// Defaults fills in the intervals of production.
func (w *Watcher) Defaults() {
	w.Interval, w.Progress, w.Backoff, w.Deadline = time.Second, 5*time.Second, 10*time.Second, 3*time.Minute
}

// Run watches until ctx ends. It returns when all that it began has ended: who
// comes next has the volume and the files to itself. It waits without a limit,
// because all of it ends with its context: see Volume, and a wake kills its process.
func (w *Watcher) Run(ctx context.Context) error {
	defer func() {
		w.install.end()
		w.newest.end()
		w.collect.end()
		w.probe.end()
		w.wake.attempt.end()
	}()
	w.progress = make(chan coordinator.Progress, 16)
	tick := time.NewTicker(w.Interval)
	defer tick.Stop()
	for {
		if err := w.look(ctx); err != nil {
			w.Log.Warn("cannot look at the unit", "error", err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// look is one round: read what is wanted, move towards it, say what was found.
func (w *Watcher) look(ctx context.Context) error {
	want, err := w.Files.Want()
	if err != nil {
		return err
	}
	if want.Unit == "" {
		return nil // no hook has asked for anything yet
	}
	w.accept(want)
	w.lookAtVolume(ctx)
	w.lookAtMount(ctx)
	w.lookForNewest(ctx)
	w.lookAtRelease(ctx)
	w.lookForLitter(ctx)
	w.lookAtServices(ctx)
	if w.written == nil || w.found != *w.written {
		if err := w.Files.PutFound(w.found); err != nil {
			return err
		}
		found := w.found
		w.written = &found
	}
	w.wake.consider(ctx, w)
	return nil
}

// accept takes over a changed wish and gives up what it makes pointless.
func (w *Watcher) accept(want Want) {
	old := w.want
	w.want = want
	place := old.Root != want.Root || old.Shared != want.Shared || old.Unit != want.Unit
	origin := old.Source != want.Source || old.Digest != want.Digest
	if place || origin || old.VolumeID != "" && old.VolumeID != want.VolumeID {
		w.volume = nil
	}
	if w.volume == nil {
		w.probe.giveUp()
	}
	if w.volume == nil || old.Version != want.Version {
		w.install.giveUp()
		w.collect.giveUp()
		w.found.Installed, w.found.Trying, w.found.Holder, w.found.Percent, w.found.Failure = "", "", "", 0, ""
	}
	if origin || !want.Newest {
		w.newest.giveUp()
		w.found.Newest, w.found.NewestFailure = "", ""
	}
	if old.WebService != want.WebService {
		w.found.Web, w.silent, w.found.Overdue = "", time.Time{}, ""
	}
	if old.WorkerService != want.WorkerService {
		w.found.Worker = ""
	}
}

// volumeLimit bounds a look at the volume: where its mount hangs, the services are
// looked at none the less.
const volumeLimit = 5 * time.Second

func (w *Watcher) lookAtVolume(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, volumeLimit)
	defer cancel()
	if w.volume == nil {
		volume, err := w.Open(ctx, w.want.Root, w.want.Options(
			slog.New(slog.NewJSONHandler(w.Files.Journal(), nil)), w.report))
		if err != nil {
			w.lost(err)
			return
		}
		w.volume, w.probed = volume, false
	}
	if err := w.volume.Check(ctx); err != nil {
		w.volume = nil
		w.lost(err)
		return
	}
	w.found.Mounted, w.found.Fault = true, ""
	w.found.Current = ""
	if current, err := w.volume.Current(ctx); err == nil {
		w.found.Current = current.Version
	}
}

// lost says that the volume is not there. Why is news of its own: another volume in its
// place is not the same as none.
func (w *Watcher) lost(err error) {
	w.found.Mounted, w.found.Fault, w.found.Current, w.found.Installed = false, err.Error(), "", ""
}

// lookAtMount has a volume probed once it is there: operators see the result
// with ccbench volume inspect.
func (w *Watcher) lookAtMount(ctx context.Context) {
	if w.probed || w.volume == nil {
		return
	}
	result, done, err := w.probe.poll(ctx, w.pause, w.volume.Probe)
	if err != nil {
		w.Log.Warn("cannot probe the volume", "error", err)
	}
	if done {
		w.probed = true
		w.Log.Info("probed the volume", "result", result.String(), "took", result.Took)
	}
}

// report is called by the coordinator; it must not block the download.
func (w *Watcher) report(p coordinator.Progress) {
	select {
	case w.progress <- p:
	default:
	}
}

// recheck is how often an installed release is compared with its manifest.
const recheck = 10 * time.Second

func (w *Watcher) lookAtRelease(ctx context.Context) {
	for len(w.progress) > 0 {
		p := <-w.progress
		if p.Version != w.want.Version {
			continue
		}
		w.found.Holder, w.found.Percent = p.Unit, 0
		if p.Unit == w.want.Unit && p.Total > 0 {
			w.found.Percent = int(100 * p.Bytes / p.Total)
		}
	}
	if w.volume == nil || w.want.Version == "" {
		return
	}
	if w.found.Installed == w.want.Version {
		if time.Since(w.checked) < recheck {
			return
		}
		w.checked = time.Now()
		limited, cancel := context.WithTimeout(ctx, volumeLimit)
		_, err := w.volume.Recheck(limited, w.want.Version)
		cancel()
		if !errors.Is(err, coordinator.ErrNotInstalled) && !errors.Is(err, coordinator.ErrCorrupt) {
			return // sound, or not to be seen at present
		}
		w.found.Installed = ""
	}
	w.found.Trying = w.want.Version
	volume, version := w.volume, w.want.Version // of this try, whatever is wanted later
	_, done, err := w.install.poll(ctx, w.pause, func(ctx context.Context) (coordinator.Release, error) {
		return volume.Ensure(ctx, version)
	})
	if err != nil {
		w.found.Failure = product.Explain(err).Error()
		w.found.Holder, w.found.Percent = "", 0
	}
	if done {
		w.found.Installed, w.checked = version, time.Now()
		w.found.Trying, w.found.Holder, w.found.Percent, w.found.Failure = "", "", 0, ""
	}
}

func (w *Watcher) lookForNewest(ctx context.Context) {
	if !w.want.Newest || w.found.Newest != "" {
		return
	}
	source := w.want.Source
	version, done, err := w.newest.poll(ctx, w.pause, func(ctx context.Context) (string, error) {
		ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
		defer cancel()
		return w.Newest(ctx, nil, source)
	})
	if err != nil {
		w.found.NewestFailure = err.Error()
	}
	if done {
		w.found.Newest, w.found.NewestFailure = version, ""
	}
}

// lookForLitter collects once for each version that all units came to run.
func (w *Watcher) lookForLitter(ctx context.Context) {
	if !w.want.Collect || w.volume == nil || w.tidy == w.want.Version {
		return
	}
	removed, done, err := w.collect.poll(ctx, w.pause, w.volume.Collect)
	if err != nil {
		w.Log.Warn("cannot remove old releases", "error", err)
	}
	if done {
		w.tidy = w.want.Version
		w.Log.Info("removed old releases", "versions", removed)
	}
}

// steady spaces the health checks of services that answered last time: a
// change still shows within seconds, and no access log fills up.
const steady = 5

// patience is how many checks in a row a service must miss to count as down: one
// that is busy for a moment is not.
const patience = 3

// check asks a service once, in a time of its own.
func check(ctx context.Context, answer *string, missed *int, ask func(context.Context) (string, error)) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	got, err := ask(ctx)
	if err == nil {
		*answer, *missed = got, 0
		return
	}
	// Which error it is does not matter.
	if *missed++; *missed >= patience {
		*answer = ""
	}
}

func (w *Watcher) lookAtServices(ctx context.Context) {
	w.healthy++
	switch {
	case w.want.WebPort == 0:
		w.found.Web = ""
	case w.found.Web != w.want.WebVersion || w.webMissed > 0 || w.healthy%steady == 0:
		check(ctx, &w.found.Web, &w.webMissed, func(ctx context.Context) (string, error) {
			return concourse.WebVersion(ctx, w.Client, w.want.WebPort)
		})
	}
	switch {
	case w.want.WebVersion == "" || w.found.Web == w.want.WebVersion:
		w.silent, w.found.Overdue = time.Time{}, ""
	case w.silent.IsZero():
		w.silent = time.Now()
	case time.Since(w.silent) > w.Deadline:
		w.found.Overdue = w.want.WebVersion
	}
	switch {
	case w.want.WorkerPort == 0:
		w.found.Worker = ""
	case w.found.Worker != w.want.WorkerVersion || w.workerMissed > 0 || w.healthy%steady == 0:
		check(ctx, &w.found.Worker, &w.workerMissed, func(ctx context.Context) (string, error) {
			return w.want.WorkerVersion, concourse.WorkerHealthy(ctx, w.Client, w.want.WorkerPort)
		})
	}
}

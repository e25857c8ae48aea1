package coordinator

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"
	"golang.org/x/sys/unix"

	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/claim"
	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/durable"
	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/fetch"
)

// waiting looks at the volume while another unit holds the claim. Most looks read the
// release's link and no more: a corrupt release stays as it is until its link leads
// elsewhere.
type waiting struct {
	u       *unit
	goal    goal
	release Release
	local   bool     // nobody has to be asked for what is looked at
	links   *os.Root // the directory of the link, open: to read it there is one request
	link    string   // as it was when it was followed; empty while there is none

	reported Progress
	looked   time.Time // at more than the link
}

// lookPause is how often who waits looks at more than the link, in requests that a
// file server has to answer: the volume itself, and how far the download is.
const lookPause = 8 * time.Second

func (w *waiting) look(holder claim.Holder) error {
	now, due := time.Now(), time.Second
	if !w.local {
		due = lookPause
	}
	thorough := w.links == nil || holder.Unit != w.reported.Unit || now.Sub(w.looked) >= due
	if thorough {
		w.looked = now
		if err := w.u.check(); err != nil {
			return err
		}
		links, err := durable.OpenRoot(w.u.root, releasesDir) // it may be another one
		if err != nil {
			return fmt.Errorf("cannot look for the release: %w", err)
		}
		w.close()
		w.links = links
	}
	link, err := w.links.Readlink(w.goal.version)
	if errors.Is(err, unix.EINVAL) {
		link, err = ".", nil // a directory, of the first layout
	}
	if link != w.link || err != nil && !errors.Is(err, fs.ErrNotExist) {
		if w.release, err = w.u.wanted(w.goal); err == nil {
			return errPublished
		} else if !absent(err) {
			return err
		}
		w.link = link
	}
	if thorough {
		w.report(holder)
	}
	return nil
}

func (w *waiting) close() {
	if w.links != nil {
		w.links.Close()
	}
}

func (w *waiting) report(holder claim.Holder) {
	p := Progress{Version: w.goal.version, State: Waiting, Unit: holder.Unit, Started: holder.Since}
	if other, err := w.u.progress(); err == nil && other.Version == p.Version && other.Unit == p.Unit {
		p.Bytes, p.Total, p.Started = other.Bytes, other.Total, other.Started
	}
	w.reported = p
	w.u.c.options.Progress(p)
}

// changes tells, until enough is called, when a release may have appeared or a
// claim been given up. It is nil where nobody tells: where other machines may be
// at work, whose changes this kernel does not see, and where the kernel has no
// watch left.
func (u *unit) changes(version string) (changed <-chan struct{}, enough func()) {
	if !durable.Local(u.root) {
		return nil, func() {}
	}
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, func() {}
	}
	for _, dir := range []string{releasesDir, path.Join(claimsDir, version)} {
		if w.Add(filepath.Join(u.view.dir, dir)) != nil {
			w.Close()
			return nil, func() {}
		}
	}
	pulse := make(chan struct{}, 1)
	go func() {
		for open := true; open; {
			select {
			case _, open = <-w.Events:
			case _, open = <-w.Errors: // events were lost: anything may have changed
			}
			select {
			case pulse <- struct{}{}:
			default: // who waits has not looked yet
			}
		}
	}()
	return pulse, func() { w.Close() }
}

// sleep returns early when ctx ends, and why it did.
func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
	return context.Cause(ctx)
}

// meter reports how far a download is, once a second.
type meter struct {
	Progress
	u    *unit
	d    *fetch.Download
	lost error
}

// start returns what ends it, and tells why the volume cannot be used any more, if it
// cannot.
func (m *meter) start(ctx context.Context) (stop func() error) {
	m.report(ctx)
	done := make(chan struct{})
	var reports sync.WaitGroup
	reports.Go(func() {
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for m.lost == nil {
			select {
			case <-done:
				return
			case <-tick.C:
				m.report(ctx)
			}
		}
	})
	return func() error {
		close(done)
		reports.Wait()
		return m.lost
	}
}

// report writes down how far the download is, for the others. It stops the
// download when the volume is no longer there.
func (m *meter) report(ctx context.Context) {
	if m.lost = m.u.allow(ctx); m.lost != nil {
		m.d.Stop(m.lost)
		return
	}
	m.Bytes = m.d.Stats().Present
	m.u.c.options.Progress(m.Progress)
	// For people and for waiting units; no decision rests on it, so that a
	// power cut may have it, and a failure is no reason to give up.
	tmp := progressFile + "." + m.u.name()
	if err := durable.Write(m.u.root, tmp, encode(m.Progress)); err != nil {
		m.u.root.Remove(tmp)
		return
	}
	m.u.root.Rename(tmp, progressFile)
}

func (v *volume) progress() (Progress, error) { return readJSON[Progress](v.root, progressFile) }

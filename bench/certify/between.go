package certify

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// meeting is a check between machines. All of them make it at the same time, and come to
// the same verdict, since each tells the others what it has seen: who meets an error
// goes on to the end.
type meeting struct {
	name, proves, means string
	needed              bool
	do                  func(ctx context.Context, p *party) (found string, err error)
}

var meetings = []meeting{
	{name: "lock between machines", do: locksBetween,
		proves: "A lock of one machine keeps the others out, and is free when its process is killed.",
		means:  "Locks only save time, so nothing breaks: after a crash the others wait for a lease of 20 s. Over NFS mount without nolock and without local_lock; over Lustre with flock."},
	{name: "rename between machines", needed: true, do: renamesBetween,
		proves: "A rename replaces a file in one step: no other machine finds it missing or mixed.",
		means:  "A unit could read half of what another one writes. Use a server that passes rename on; no sync folder and no object store mounted as one."},
	{name: "link between machines", needed: true, do: linksBetween,
		proves: "Of several machines that link one name, one succeeds.",
		means:  "Units claim a download by a hard link: two would take it at once. See that all machines mount the same file system, and that it is one for clusters."},
	{name: "visible between machines", do: visibleBetween,
		proves: "What one machine writes, the others see as it is, usually within 1.5 s.",
		means:  "Units see late what others have done: they wait longer, and may download once more. Over NFS mount with lookupcache=positive or actimeo=1, over SMB with cache=strict and actimeo=1."},
	{name: "one download between machines", needed: true, do: installsBetween,
		proves: "All machines install one release at once, it is downloaded once, and each reads it as it was.",
		means:  "Each unit would download for itself, or run what is damaged. See the checks that failed; the coordinator's error says what it met."},
}

func (r *run) skipTogether(why string) {
	if r.Machines < 2 {
		return
	}
	for _, m := range meetings {
		r.record(Check{Name: m.name, Proves: m.proves, Needed: m.needed, Verdict: NotTold, Found: why})
	}
}

// together makes the checks between machines, unless this one has found the mount unfit.
func (r *run) together(ctx context.Context) error {
	for _, c := range r.report.Checks {
		if c.Needed && c.Verdict != OK {
			r.skipTogether("the mount of this machine is not fit: " + c.Name)
			return nil
		}
	}
	p, err := r.meet(ctx)
	if err != nil {
		return err
	}
	r.Say("%d machines have met", len(p.ids))
	for _, id := range p.ids {
		r.report.Hosts = append(r.report.Hosts, p.hosts[id])
	}
	for _, m := range meetings {
		start := time.Now()
		c := Check{Name: m.name, Proves: m.proves, Needed: m.needed, Verdict: OK}
		found, err := m.do(ctx, p)
		var broken *brokenHarness
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, ErrLeft) || errors.As(err, &broken):
			return err
		case err != nil:
			c.Verdict, c.Found, c.Means = Failed, oneLine(err), m.means
		default:
			c.Found = found
		}
		c.Seconds = time.Since(start).Seconds()
		r.record(c)
	}
	return p.part(ctx)
}

// part ends the meeting: who leads stays until all others have read everything.
func (p *party) part(ctx context.Context) error {
	if !p.leads() {
		return harness(put(p.path("bye."+p.ids[p.me]), []byte("bye\n")))
	}
	for _, id := range p.ids[1:] {
		watch := p.watch(id)
		for !watch.left() {
			if _, err := os.Stat(p.path("bye." + id)); err == nil {
				break
			}
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(pollEvery):
			}
		}
	}
	return nil
}

// seen is what a machine tells the others of what it has tried.
type seen struct {
	Error string        `json:"error,omitempty"`
	Got   bool          `json:"got,omitempty"` // the lock
	Won   []string      `json:"won,omitempty"`
	Took  time.Duration `json:"took_ns,omitempty"`
	Unit  installed     `json:"unit,omitzero"`
	Begun int           `json:"begun,omitempty"` // downloads from its source
	Sound bool          `json:"sound,omitempty"` // it reads the release as it was written
}

func (s *seen) note(err error) {
	if err != nil && s.Error == "" {
		s.Error = oneLine(err)
	}
}

// firstError is the first of what machines have met.
func (p *party) firstError(all []seen) error {
	for i, s := range all {
		if s.Error != "" {
			return fmt.Errorf("on %s: %s", p.host(i), s.Error)
		}
	}
	return nil
}

// host names a machine so that two processes on one machine have two names.
func (p *party) host(i int) string { return fmt.Sprintf("%s (%.6s)", p.hosts[p.ids[i]], p.ids[i]) }

func locksBetween(ctx context.Context, p *party) (string, error) {
	path := p.path("lock")
	holder, err := p.r.start(ctx)
	if err != nil {
		return "", err
	}
	defer holder.end()
	var mine seen
	if p.leads() {
		got, err := holder.ask(request{Do: "lock", Path: path})
		mine.Got = got.Got
		mine.note(err)
	}
	held, err := gather(ctx, p, "lock-held", mine)
	if err != nil {
		return "", err
	}
	mine = seen{}
	if !p.leads() {
		l, got, err := p.r.files.Lock(path)
		if mine.Got = got; got {
			defer l.Unlock()
		}
		mine.note(err)
	}
	tried, err := gather(ctx, p, "lock-tried", mine)
	if err != nil {
		return "", err
	}
	holder.kill()
	if _, err := gather(ctx, p, "lock-killed", 0); err != nil {
		return "", err
	}
	mine = seen{}
	if !tried[p.me].Got {
		mine.Took, err = p.r.obtain(ctx, path, 10*time.Second)
		mine.note(err)
	}
	free, err := gather(ctx, p, "lock-free", mine)
	if err != nil {
		return "", err
	}
	if err := p.firstError(held); err != nil {
		return "", err
	}
	if !held[0].Got {
		return "", errors.New("nobody has the lock, and it is refused")
	}
	if err := p.firstError(tried); err != nil {
		return "", err
	}
	for i, s := range tried {
		if s.Got {
			return "", fmt.Errorf("%s has got the lock that %s holds", p.host(i), p.host(0))
		}
	}
	return "", p.firstError(free)
}

func renamesBetween(ctx context.Context, p *party) (string, error) {
	path := p.path("page")
	watcher, err := p.r.start(ctx)
	if err != nil {
		return "", err
	}
	defer watcher.end()
	var mine seen
	if p.leads() {
		mine.note(p.r.files.Write(path, page(0), 0o644))
	}
	there, err := gather(ctx, p, "page-there", mine)
	if err != nil {
		return "", err
	}
	mine = seen{}
	if !p.leads() {
		_, err := watcher.ask(request{Do: "watch", Path: path})
		mine.note(err)
		mine.Got = err == nil
	}
	watched, err := gather(ctx, p, "page-watched", mine)
	if err != nil {
		return "", err
	}
	mine = seen{}
	if p.leads() {
		mine.note(p.r.replace(path))
	}
	replaced, err := gather(ctx, p, "page-replaced", mine)
	if err != nil {
		return "", err
	}
	mine = seen{}
	if watched[p.me].Got {
		_, err := watcher.ask(request{Do: "watched"})
		mine.note(err)
	}
	judged, err := gather(ctx, p, "page-seen", mine)
	if err != nil {
		return "", err
	}
	return "", errors.Join(p.firstError(there), p.firstError(watched), p.firstError(replaced), p.firstError(judged))
}

func linksBetween(ctx context.Context, p *party) (string, error) {
	dir := p.path("links")
	var mine seen
	if p.leads() {
		mine.note(p.r.files.Mkdir(dir))
	}
	made, err := gather(ctx, p, "links-there", mine)
	if err != nil {
		return "", err
	}
	runner, err := p.r.start(ctx)
	if err != nil {
		return "", err
	}
	defer runner.end()
	mine = seen{}
	own := filepath.Join(dir, "own-"+p.ids[p.me])
	mine.note(p.r.files.Write(own, []byte(p.ids[p.me]), 0o644))
	if _, err := gather(ctx, p, "links-ready", 0); err != nil {
		return "", err
	}
	got, err := runner.ask(request{Do: "race", Path: dir, Names: raceNames(), How: own})
	mine.note(err)
	mine.Won = got.Won
	all, err := gather(ctx, p, "links-won", mine)
	if err != nil {
		return "", err
	}
	if err := errors.Join(p.firstError(made), p.firstError(all)); err != nil {
		return "", err
	}
	won := make([][]string, len(all))
	for i, s := range all {
		won[i] = s.Won
	}
	return oneWinner(won)
}

package certify

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// planFile, in the directory of the run that leads, says who takes part.
const planFile = "plan.json"

// sharedDir, there, is where they work together.
const sharedDir = "together"

// pollEvery is the pause between two looks for what others have written.
const pollEvery = 20 * time.Millisecond

// party is the machines that have met.
type party struct {
	r     *run
	ids   []string // of their runs, the one that leads first
	me    int      // which of them is this one
	hosts map[string]string
	dir   string
}

func (p *party) leads() bool { return p.me == 0 }

// path returns that of a file that they share.
func (p *party) path(name string) string { return filepath.Join(p.dir, name) }

// meet waits until as many runs as were asked for have met. No time limit ends it.
func (r *run) meet(ctx context.Context) (*party, error) {
	start := time.Now()
	first := map[string]string{} // the first sign that was seen of each run
	lives := map[string]time.Time{}
	last := map[string]string{}
	var told string
	var toldAt time.Time
	for {
		found, err := r.place.others()
		if err != nil {
			return nil, harness(fmt.Errorf("cannot look for the other machines: %w", err))
		}
		hosts := map[string]string{r.place.id: r.place.owner.Host}
		taken := map[string]bool{} // by others, who do not wait for this one
		for _, o := range found {
			if !o.ours || o.owner.Machines != r.Machines || o.owner.Schema != Schema {
				continue // another meeting, or another version of this program
			}
			if _, seen := first[o.id]; !seen {
				first[o.id], last[o.id] = o.beat, o.beat
			} else if last[o.id] != o.beat {
				last[o.id], lives[o.id] = o.beat, time.Now()
			}
			if since, ok := lives[o.id]; !ok || time.Since(since) > r.pace.stale {
				continue
			}
			hosts[o.id] = o.owner.Host
			var ids []string
			data, err := os.ReadFile(filepath.Join(o.dir, planFile))
			if err != nil || json.Unmarshal(data, &ids) != nil {
				continue
			}
			if me := slices.Index(ids, r.place.id); me >= 0 {
				return &party{r: r, ids: ids, me: me, hosts: hosts, dir: filepath.Join(o.dir, sharedDir)}, nil
			}
			for _, id := range ids {
				taken[id] = true
			}
		}
		var ids []string
		for id := range hosts {
			if !taken[id] {
				ids = append(ids, id)
			}
		}
		slices.Sort(ids)
		switch {
		case len(ids) == r.Machines && ids[0] == r.place.id:
			dir := filepath.Join(r.place.dir, sharedDir)
			data, err := json.Marshal(ids)
			err = errors.Join(err, os.Mkdir(dir, 0o755))
			if err == nil {
				err = put(filepath.Join(r.place.dir, planFile), data)
			}
			if err != nil {
				return nil, harness(fmt.Errorf("cannot tell the other machines: %w", err))
			}
			return &party{r: r, ids: ids, hosts: hosts, dir: dir}, nil
		case len(ids) > r.Machines:
			told = r.tell(told, &toldAt, fmt.Sprintf("%d machines are here, and %d were to come: stop the others", len(ids), r.Machines))
		case len(ids) < r.Machines:
			told = r.tell(told, &toldAt, fmt.Sprintf("waiting: %d of %d machines are here, since %.0f s: run `ccbench volume certify --machines %d` on the others, too, on the same directory of the mount",
				len(ids), r.Machines, time.Since(start).Seconds(), r.Machines))
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(r.pace.beat / 2):
		}
	}
}

// tell says something when it has changed, but for numbers of seconds, and every half
// minute.
func (r *run) tell(told string, at *time.Time, text string) string {
	key, _, _ := strings.Cut(text, ", since")
	if key != told || time.Since(*at) > 30*time.Second {
		r.Say("%s", text)
		*at = time.Now()
	}
	return key
}

// put writes a file that others see as a whole or not at all.
func put(path string, data []byte) error {
	if err := os.WriteFile(path+".new", data, 0o644); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// gather tells the others something under a name, and returns what all have told, in the
// order of party.ids. It waits for all. The error is ErrLeft if one has gone.
func gather[T any](ctx context.Context, p *party, name string, mine T) ([]T, error) {
	file := func(id string) string { return p.path(name + "." + id) }
	data, err := json.Marshal(mine)
	if err == nil {
		err = put(file(p.ids[p.me]), data)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil, p.left(p.ids[0])
	}
	if err != nil {
		return nil, harness(fmt.Errorf("cannot tell the other machines: %w", err))
	}
	all := make([]T, len(p.ids))
	for i, id := range p.ids {
		watch := p.watch(id)
		for {
			data, err := os.ReadFile(file(id))
			if err == nil && json.Unmarshal(data, &all[i]) == nil {
				break
			}
			if watch.left() {
				return nil, p.left(id)
			}
			select {
			case <-ctx.Done():
				return nil, ctx.Err()
			case <-time.After(pollEvery):
			}
		}
	}
	return all, nil
}

func (p *party) left(id string) error {
	return fmt.Errorf("%w: %s (%.6s)", ErrLeft, p.hosts[id], id)
}

// watch is for finding out that a machine has left.
type watch struct {
	o     other
	limit time.Duration
	beat  string
	since time.Time // of the last change
	next  time.Time // look
}

func (p *party) watch(id string) *watch {
	return &watch{o: other{id: id, dir: filepath.Join(p.r.place.parent, Prefix+id)}, limit: p.r.pace.stale, since: time.Now()}
}

// left tells whether there was no sign of life for long. A directory that is gone has
// none, but it may only be seen late.
func (w *watch) left() bool {
	now := time.Now()
	if now.Before(w.next) {
		return false
	}
	w.next = now.Add(100 * time.Millisecond)
	if sign := w.o.sign(); sign != w.beat {
		w.beat, w.since = sign, now
	}
	limit := w.limit
	if w.o.gone() {
		limit /= 6
	}
	return now.Sub(w.since) > limit
}

package coordinator

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/claim"
	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/durable"
	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/probe"
)

// probed is what a unit has found out about its mount, as it notes it down.
type probed struct {
	probe.Result
	Boot string `json:"boot"` // of the kernel whose mount it is
}

// Probe finds out within 2 s what the unit's mount can do, and notes it on the
// volume, for Inspect and for the unit's own attempts to lock: one that is of no
// use is not made again until the machine boots or is probed anew. What file
// locks are worth between two machines no unit can find out alone: it is noted
// when one waits for the other. Errors are ErrNoSpace and those of starting the
// helper.
func (c *Coordinator) Probe(ctx context.Context) (probe.Result, error) {
	return write(ctx, c, "probe", c.dir, func(ctx context.Context, u *unit) (probe.Result, error) { return u.probe(ctx) })
}

func (u *unit) probe(ctx context.Context) (probe.Result, error) {
	r, err := probeMount(ctx, u.root, u.view.dir, u.c.options.Helper)
	if err != nil {
		return probe.Result{}, err
	}
	if old, ok := u.probed(); ok && r.Locks == probe.Exclusive && (old.Locks == probe.Shared || old.Locks == probe.NodeLocal) {
		r.Locks = old.Locks // more than one unit can see
	}
	if err := u.allow(ctx); err != nil {
		return probe.Result{}, err
	}
	return r, u.note(r)
}

// noteLocks notes what two machines have seen of their locks.
func (u *unit) noteLocks(exclusive bool) {
	old, ok := u.probed()
	if !ok {
		old.Result = probe.Result{Link: probe.Unknown, Rename: probe.Unknown, SyncDir: probe.Unknown, TmpFile: probe.Unknown, Reflink: probe.Unknown}
	}
	was := old.Locks
	old.Locks = probe.NodeLocal
	if exclusive {
		old.Locks = probe.Shared
	}
	if was == old.Locks || u.check() != nil {
		return
	}
	if err := u.note(old.Result); err != nil {
		u.c.options.Log.Warn("cannot note what file locks are worth", "error", err)
	}
}

// probed returns what this unit has noted since the machine was booted.
func (u *unit) probed() (probed, bool) {
	p, err := u.readProbe(u.name())
	if err != nil || p.Boot == "" || p.Boot != claim.Boot() {
		return probed{}, false
	}
	return p, true
}

func (u *unit) note(r probe.Result) error {
	data, err := json.Marshal(probed{r, claim.Boot()})
	if err != nil {
		return err
	}
	if err := durable.Mkdir(u.root, probesDir, 0o755); err != nil {
		return err
	}
	return durable.Replace(u.root, path.Join(probesDir, u.name()), append(data, '\n'))
}

func (v *volume) readProbe(unit string) (probed, error) {
	var p probed
	data, err := durable.ReadFile(v.root, path.Join(probesDir, unit))
	if err != nil {
		return p, err
	}
	return p, json.Unmarshal(data, &p)
}

// probes returns what units have noted, by unit as a file name.
func (v *volume) probes() (map[string]probe.Result, error) {
	found := map[string]probe.Result{}
	names, err := durable.Names(v.root, probesDir)
	if errors.Is(err, fs.ErrNotExist) {
		return found, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cannot list the probes: %w", err)
	}
	for _, name := range names {
		if strings.HasPrefix(name, ".") {
			continue // not named yet
		}
		if p, err := v.readProbe(name); err == nil {
			found[name] = p.Result
		}
	}
	return found, nil
}

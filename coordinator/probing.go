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
// when one waits for the other. Errors are ErrNoSpace,
// those of Check, of starting the helper, and of ctx.
func (c *Coordinator) Probe(ctx context.Context) (probe.Result, error) {
	var r probe.Result
	err := c.within(func(v *volume) (err error) {
		r, err = v.probe(ctx)
		return err
	})
	if err != nil {
		return probe.Result{}, fmt.Errorf("cannot probe the volume: %w", err)
	}
	return r, nil
}

// Probe is the method of that name for who is no unit: it finds out what the
// mount at root can do, with a helper as in Options, and notes nothing. Errors
// are ErrNoVolume, ErrForeignVolume for an unknown layout, those of writing on the
// volume and of starting the helper, and that of ctx.
func Probe(ctx context.Context, root string, helper ...string) (probe.Result, error) {
	c, err := look(root)
	if err != nil {
		return probe.Result{}, err
	}
	v, err := c.enter()
	if err != nil {
		return probe.Result{}, fmt.Errorf("cannot probe %s: %w", c.dir, err)
	}
	defer v.leave()
	return probe.Mount(ctx, v.root, helper...)
}

func (v *volume) probe(ctx context.Context) (probe.Result, error) {
	r, err := probe.Mount(ctx, v.root, v.options.Helper...)
	if err != nil {
		return probe.Result{}, err
	}
	if old, ok := v.probed(); ok && r.Locks == probe.Exclusive && (old.Locks == probe.Shared || old.Locks == probe.NodeLocal) {
		r.Locks = old.Locks // more than one unit can see
	}
	if err := v.check(); err != nil {
		return probe.Result{}, err
	}
	return r, v.note(r)
}

// witness notes what two machines have seen of their locks.
func (v *volume) witness(exclusive bool) {
	old, ok := v.probed()
	if !ok {
		old.Result = probe.Result{Link: probe.Unknown, Rename: probe.Unknown, SyncDir: probe.Unknown, TmpFile: probe.Unknown, Reflink: probe.Unknown}
	}
	was := old.Locks
	old.Locks = probe.NodeLocal
	if exclusive {
		old.Locks = probe.Shared
	}
	if was == old.Locks || v.check() != nil {
		return
	}
	if err := v.note(old.Result); err != nil {
		v.options.Log.Warn("cannot note what file locks are worth", "error", err)
	}
}

// probed returns what this unit has noted since the machine was booted.
func (v *volume) probed() (probed, bool) {
	p, err := v.readProbe(v.unit)
	if err != nil || p.Boot == "" || p.Boot != claim.Boot() {
		return probed{}, false
	}
	return p, true
}

func (v *volume) note(r probe.Result) error {
	data, err := json.Marshal(probed{r, claim.Boot()})
	if err != nil {
		return err
	}
	if err := durable.Mkdir(v.root, probesDir, 0o755); err != nil {
		return err
	}
	return durable.Replace(v.root, path.Join(probesDir, v.unit), append(data, '\n'))
}

func (v *volume) readProbe(unit string) (probed, error) {
	var p probed
	data, err := v.root.ReadFile(path.Join(probesDir, unit))
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

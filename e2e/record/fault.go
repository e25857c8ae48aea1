package record

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/cluster"
	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/observation"
)

// fault is one that was injected, perhaps healed.
type fault struct {
	observation.Fault
	down string // the unit whose machine or agent it takes away, if any
}

// Down returns the units whose machines or agents are down on purpose, or were until a
// moment ago: waits are told of them, see cluster.Wait.
func (r *Recorder) Down() []string {
	return slices.Sorted(maps.Keys(r.down(returning)))
}

// down returns the units that are down on purpose, or were until so long ago.
func (r *Recorder) down(ago time.Duration) map[string]bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	units := map[string]bool{}
	for _, f := range r.faults {
		if f.down != "" && (f.End.IsZero() || time.Since(f.End) < ago) {
			units[f.down] = true
		}
	}
	return units
}

// Fault returns the fault with its beginnings and ends recorded. The faults of the
// recorder's own cluster are so already.
func (r *Recorder) Fault(f cluster.Fault) cluster.Fault { return r.fault(f, "") }

// fault records a fault that takes a unit's machine or agent away, if down names one.
//
// A fault that could not be injected, or not be healed, may still have begun, or ended:
// it is recorded as one that lasts.
func (r *Recorder) fault(f cluster.Fault, down string) cluster.Fault {
	inject, heal := f.Inject, f.Heal
	var injected *fault // the last time
	f.Inject = func(ctx context.Context) error {
		entry := &fault{Fault: observation.Fault{Name: f.Name, Units: f.Units, Begin: time.Now().UTC()}, down: down}
		r.mu.Lock()
		r.faults = append(r.faults, entry)
		injected = entry
		r.mu.Unlock()
		r.o.T.Logf("fault: %s", f.Name)
		err := inject(ctx)
		if err == nil && heal == nil {
			r.end(entry)
		}
		return err
	}
	if heal == nil {
		return f
	}
	f.Heal = func(ctx context.Context) error {
		if err := heal(ctx); err != nil {
			return err
		}
		r.mu.Lock()
		entry := injected
		r.mu.Unlock()
		if entry != nil {
			r.end(entry)
		}
		r.o.T.Logf("healed: %s", f.Name)
		return nil
	}
	return f
}

func (r *Recorder) end(f *fault) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f.End = time.Now().UTC()
}

// recordedMachine is a machine whose faults are recorded.
type recordedMachine struct {
	cluster.Machine
	r *Recorder
}

func (m recordedMachine) Kill(service string) cluster.Fault {
	return m.r.fault(m.Machine.Kill(service), "")
}

func (m recordedMachine) Stop() cluster.Fault   { return m.r.fault(m.Machine.Stop(), m.Unit()) }
func (m recordedMachine) Freeze() cluster.Fault { return m.r.fault(m.Machine.Freeze(), m.Unit()) }
func (m recordedMachine) CutOff() cluster.Fault { return m.r.fault(m.Machine.CutOff(), m.Unit()) }
func (m recordedMachine) BlockPort(port int) cluster.Fault {
	return m.r.fault(m.Machine.BlockPort(port), "")
}
func (m recordedMachine) LockTable(database, table string) cluster.Fault {
	return m.r.fault(m.Machine.LockTable(database, table), "")
}
func (m recordedMachine) FreezeAgent() cluster.Fault {
	return m.r.fault(m.Machine.FreezeAgent(), m.Unit())
}
func (m recordedMachine) StopAgent() cluster.Fault {
	return m.r.fault(m.Machine.StopAgent(), m.Unit())
}

// recordedVolume is a volume whose acts and faults are recorded.
type recordedVolume struct {
	cluster.Volume
	r *Recorder
}

func (v recordedVolume) Attach(ctx context.Context, unit string, how ...cluster.Attachment) error {
	v.r.Act("attach the volume %s to %s", v.Name(), unit)
	return v.Volume.Attach(ctx, unit, how...)
}

func (v recordedVolume) Detach(ctx context.Context, unit string) error {
	v.r.Act("detach the volume %s from %s", v.Name(), unit)
	return v.Volume.Detach(ctx, unit)
}

func (v recordedVolume) Lost(unit string) cluster.Fault { return v.r.fault(v.Volume.Lost(unit), "") }
func (v recordedVolume) ReadOnly(unit string) cluster.Fault {
	return v.r.fault(v.Volume.ReadOnly(unit), "")
}
func (v recordedVolume) Full(leaving int64) cluster.Fault {
	return v.r.fault(v.Volume.Full(leaving), "")
}

func (v recordedVolume) Change(ctx context.Context, path string, edit func([]byte) []byte) error {
	v.r.Act("change %s on the volume %s", path, v.Name())
	return v.Volume.Change(ctx, path, edit)
}

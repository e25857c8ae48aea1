package supervisor_test

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/concourse"
	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/supervisor"
	"github.com/concourse-ci-machine/concourse-ci-machine/charm/product"
	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator"
)

// pair is a leader and another unit that share a volume.
type pair struct {
	testing.TB
	charms [2]*charm
	opened atomic.Int32 // how often one of them has opened the volume
	spec   supervisor.Spec
}

func newPair(t testing.TB, owner string) *pair {
	p := &pair{TB: t, spec: supervisor.Spec{Root: t.TempDir(), Shared: true, Owner: owner}}
	for i := range p.charms {
		p.charms[i] = start(t, onADirectory, func(s *supervisor.Supervisor) {
			open := s.Open
			s.Open = func(ctx context.Context, root string, o coordinator.Options) (supervisor.Volume, error) {
				p.opened.Add(1)
				return open(ctx, root, o)
			}
		})
	}
	return p
}

func (p *pair) put(change func(*supervisor.Spec)) {
	change(&p.spec)
	for i, unit := range []string{"ci/0", "ci/1"} {
		spec := p.spec
		spec.Unit, spec.Activate = unit, i == 0
		require.NoError(p, p.charms[i].files.PutSpec(spec))
	}
}

func (p *pair) await(what string, ready func(supervisor.Status) bool) {
	p.Helper()
	for _, c := range p.charms {
		eventually(p, what, c.saw(ready))
	}
}

// volumeOf makes a volume and returns its id.
func volumeOf(t testing.TB, root, owner string) string {
	c, err := coordinator.Open(t.Context(), root, coordinator.Options{Unit: "other/0", Product: product.Concourse, Owner: owner})
	require.NoError(t, err)
	return c.VolumeID()
}

func uses(id string) func(supervisor.Status) bool {
	return func(s supervisor.Status) bool {
		return s.Fault == supervisor.Healthy && s.VolumeID == id && s.Mounted == ""
	}
}

// An operator's word brings all units to a volume that replaces a lost one, and to no
// other one that comes later.
func TestAcceptAnotherVolume(t *testing.T) {
	p := newPair(t, "ours")
	lost := volumeOf(t, p.spec.Root, "ours")
	p.put(func(*supervisor.Spec) {})
	p.await("the volume", uses(lost))

	p.replace()
	next := volumeOf(t, p.spec.Root, "ours")
	p.await("another volume to be refused", func(s supervisor.Status) bool {
		return s.Fault == supervisor.Foreign && s.VolumeID == lost && s.Mounted == next+".0"
	})
	p.put(func(spec *supervisor.Spec) { spec.Accepted = next + ".0" })
	p.await("the volume that was accepted", uses(next))

	p.put(func(spec *supervisor.Spec) { spec.Accepted = "ELSEWHERE.0" })
	p.await("the volume that is not accepted any more to be refused", func(s supervisor.Status) bool {
		return s.Fault == supervisor.Foreign && s.VolumeID == "ELSEWHERE" && s.Mounted == next+".0"
	})
	p.put(func(spec *supervisor.Spec) { spec.Accepted = next + ".0" })
	p.await("the volume that was accepted again", uses(next))

	p.replace()
	p.await("one that is empty to be refused", func(s supervisor.Status) bool {
		return s.Fault == supervisor.Foreign && s.VolumeID == next && s.Mounted == ""
	})
	p.put(func(spec *supervisor.Spec) { spec.Accepted = "NEW" })
	p.await("the empty one that was accepted", uses("NEW"))

	p.replace()
	p.await("another empty one to be refused", func(s supervisor.Status) bool {
		return s.Fault == supervisor.Foreign && s.VolumeID == "NEW"
	})
	some := p.opened.Load() + 6 // of both: some of them by the leader
	eventually(t, "more looks", func() bool { return p.opened.Load() >= some })
	left, err := os.ReadDir(p.spec.Root)
	require.NoError(t, err)
	require.Empty(t, left, "it was not accepted")
}

// Services run from the volume that was accepted, with its pin, and not from the one that
// is lost.
func TestServicesMoveToAnotherVolume(t *testing.T) {
	m, root, c := newMirror(t), t.TempDir(), newCharm(t)
	c.run(t, onADirectory)
	spec := m.serving(root, 1, "7.14.3")
	spec.Worker, spec.Shared = nil, true
	require.NoError(t, c.files.PutSpec(spec))
	serves := func() bool { return slices.Contains(c.system.Done(), "start "+concourse.ServerUnit) }
	eventually(t, "the web server", serves)
	require.NoError(t, os.Rename(root, t.TempDir()+"/lost"))
	require.NoError(t, os.MkdirAll(root, 0o755))
	eventually(t, "the refusal", c.saw(func(s supervisor.Status) bool { return s.Fault == supervisor.Foreign }))
	require.Empty(t, c.system.Done(), "a web server goes on meanwhile")
	spec.Accepted = "NEW"
	require.NoError(t, c.files.PutSpec(spec))
	eventually(t, "the web server from there", serves)
	require.FileExists(t, filepath.Join(root, "pins", "ci-0"))
}

// replace has another, empty volume in the place of the one that is there.
func (p *pair) replace() {
	require.NoError(p, os.Rename(p.spec.Root, p.TempDir()+"/lost"))
	require.NoError(p, os.MkdirAll(p.spec.Root, 0o755)) // who looks may have made it
}

func TestAcceptTheVolumeOfAnotherModel(t *testing.T) {
	p := newPair(t, "ours")
	id := volumeOf(t, p.spec.Root, "theirs")
	p.put(func(*supervisor.Spec) {})
	p.await("the volume of another model to be refused", func(s supervisor.Status) bool {
		return s.Fault == supervisor.OtherModel && s.Mounted == id+".0"
	})
	p.put(func(spec *supervisor.Spec) { spec.Accepted = id + ".0" })
	p.await("the volume that was accepted", uses(id))

	// It is theirs again, and what was accepted was another state.
	_, err := coordinator.Open(t.Context(), p.spec.Root, coordinator.Options{
		Unit: "other/0", Product: product.Concourse, Owner: "theirs", Accept: id + ".1",
	})
	require.NoError(t, err)
	p.await("it to be refused", func(s supervisor.Status) bool {
		return s.Fault == supervisor.OtherModel && s.Mounted == id+".2"
	})
}

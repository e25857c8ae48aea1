package coordinator

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/claim"
	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/durable"
	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/mount"
	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/probe"
)

// Probe finds out what the mount at root can do, be it a volume or not, with a
// helper as in Options, and notes nothing. It takes 2 s at most. Errors are
// ErrNoVolume if there is no such directory, ErrHung, and those of starting the
// helper.
func Probe(ctx context.Context, root string, helper ...string) (probe.Result, error) {
	dir, err := filepath.Abs(root)
	if err != nil {
		return probe.Result{}, failed("probe", root, err)
	}
	r, err := mount.Call(ctx, mount.At(dir), func(ctx context.Context) (probe.Result, error) {
		opened, err := os.OpenRoot(dir)
		if err != nil {
			return probe.Result{}, noVolume(dir, err)
		}
		defer opened.Close()
		return probeMount(ctx, opened, dir, helper)
	})
	return r, failed("probe", dir, err)
}

// probers has one for each mount and helper, so that a mount that hangs holds what one
// probe has started. It has to be one for the process, as in package mount.
var probers sync.Map

// probeMount is probe.Prober.Mount, which is back before the mount has answered. A
// mount that works answers in milliseconds.
func probeMount(ctx context.Context, root *os.Root, dir string, helper []string) (probe.Result, error) {
	prober, _ := probers.LoadOrStore(dir+"\x00"+strings.Join(helper, "\x00"), probe.NewProber(helper...))
	r, err := prober.(*probe.Prober).Mount(ctx, root)
	if err != nil && ctx.Err() != nil {
		err = fmt.Errorf("%w: %s: %w", ErrHung, dir, err)
	}
	return r, err
}

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
	return write(ctx, c, task{doing: "probe", what: c.dir}, func(ctx context.Context, u *unit) (probe.Result, error) {
		return u.probe(ctx)
	})
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
		old.Result = probe.Result{Link: probe.Unknown, Rename: probe.Unknown, SyncDir: probe.Unknown}
	}
	was := old.Locks
	old.Locks = probe.NodeLocal
	if exclusive {
		old.Locks = probe.Shared
	}
	if was == old.Locks || u.check() != nil {
		return
	}
	u.warn("cannot note what file locks are worth", u.note(old.Result))
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
	if err := durable.Mkdir(u.root, probesDir, 0o755); err != nil {
		return err
	}
	return durable.Replace(u.root, path.Join(probesDir, u.name()), encode(probed{r, claim.Boot()}))
}

func (v *volume) readProbe(unit string) (probed, error) {
	return readJSON[probed](v.root, path.Join(probesDir, unit))
}

// room is what can still be written to a volume.
type room struct{ bytes, files uint64 }

func (v *volume) room() (room, error) {
	var s unix.Statfs_t
	dir, err := v.root.Open(".")
	if err == nil {
		defer dir.Close()
		err = unix.Fstatfs(int(dir.Fd()), &s)
	}
	if err != nil {
		return room{}, fmt.Errorf("cannot measure the free space of %s: %w", v.root.Name(), err)
	}
	r := room{bytes: math.MaxInt64, files: math.MaxUint64}
	if s.Blocks > 0 { // else the file system does not count them
		r.bytes = s.Bavail * uint64(s.Bsize)
	}
	if s.Files > 0 { // else the file system makes inodes as it needs them
		r.files = s.Ffree
	}
	return r, nil
}

// describe tells what is exhausted when a write has failed with err.
func (r room) describe(err error) string {
	switch {
	case errors.Is(err, unix.EDQUOT): // what the file system says is free is not
		return "the quota is used up"
	case r.files == 0:
		return fmt.Sprintf("no inode is free, though %s are", megabytes(r.bytes))
	}
	return megabytes(r.bytes) + " are free"
}

// leastFiles is how many inodes an installation needs at least, besides those of the
// release, of which nobody knows how many they are: its directories, claims and notes.
const leastFiles = 100

// preflight refuses a mount that cannot carry a release.
func (u *unit) preflight() error {
	needs := probe.Needs{Inodes: leastFiles, Execute: len(u.view.product.Executables) > 0}
	return probe.Preflight(u.root, needs, stagingDir, storeDir, releasesDir)
}

// explain says of a claim that could not be made what is wrong with the mount, if it
// is that.
func (u *unit) explain(err error) error {
	if unfit := u.preflight(); errors.Is(unfit, probe.ErrUnfit) {
		return unfit
	}
	return err
}

// preflight does that before anything is fetched. A volume that is full gets what no
// unit needs removed first.
func (s *stage) preflight(ctx context.Context) error {
	err := s.u.preflight()
	if !noSpace(err) && !errors.Is(err, probe.ErrNoInodes) {
		return err
	}
	_, collectErr := s.u.collect(ctx, s)
	if err = s.u.preflight(); err != nil {
		err = errors.Join(err, collectErr)
	}
	return err
}

// makeRoom refuses a download that cannot fit: the archive, of which a part may be
// there, and what is unpacked beside it. That is larger than the archive, by how
// much nobody knows yet; three times was never seen. Below that, what no unit needs
// makes room first.
func (s *stage) makeRoom(ctx context.Context, size, there int64) error {
	least, enough := uint64(2*size-there), uint64(4*size-there)
	free, err := s.u.room()
	if err != nil || free.bytes >= enough {
		return err
	}
	_, collectErr := s.u.collect(ctx, s)
	if errors.Is(collectErr, ErrHeld) {
		collectErr = nil
	}
	if free, err = s.u.room(); err != nil {
		return err
	}
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case free.bytes < least:
		s.needs = least
		return errors.Join(fmt.Errorf("%w: it needs at least %s, %s are free", ErrNoSpace, megabytes(least), megabytes(free.bytes)), collectErr)
	}
	s.u.warn("cannot make room", collectErr) // it may fit
	return nil
}

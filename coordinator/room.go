package coordinator

import (
	"context"
	"errors"
	"fmt"
	"math"

	"golang.org/x/sys/unix"

	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/probe"
)

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
	r := room{bytes: s.Bavail * uint64(s.Bsize), files: math.MaxUint64}
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
	case collectErr != nil: // it may fit
		s.u.c.options.Log.Warn("cannot make room", "error", collectErr)
	}
	return nil
}

package supervisor

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/internal/concourse"
)

// prepare makes, once, what every later part relies on: the user of the web server, the
// directories, and the unit's own key.
func (s *Supervisor) prepare(ctx context.Context) error {
	if s.prepared {
		return nil
	}
	uid, gid, err := s.System.Account(ctx, concourse.User)
	if err != nil {
		return err
	}
	// The web server's user passes through the state directory to its own
	// files; it can list nothing there.
	for _, dir := range []struct {
		path     string
		mode     os.FileMode
		uid, gid int
	}{
		{s.Paths.State, 0o710, 0, gid},
		{s.Paths.WebDir(), 0o700, uid, gid},
		{s.Paths.WorkerDir(), 0o700, 0, 0},
	} {
		err := os.Mkdir(dir.path, 0o700)
		if err != nil && !errors.Is(err, os.ErrExist) {
			return fmt.Errorf("make state directory: %w", err)
		}
		if err := errors.Join(chown(dir.path, dir.uid, dir.gid), os.Chmod(dir.path, dir.mode)); err != nil {
			return fmt.Errorf("make state directory: %w", err)
		}
	}
	if s.status.WorkerKey, err = concourse.WorkerKey(s.Paths.WorkerKey()); err != nil {
		return err
	}
	s.prepared, s.uid, s.gid = true, uid, gid
	return nil
}

package coordinator

import (
	"path"
	"path/filepath"

	"github.com/fsnotify/fsnotify"

	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/durable"
)

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

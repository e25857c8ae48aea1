package certify

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator"
)

// unit names the unit that an actor is.
func unit(i int) string { return fmt.Sprintf("certify/%d", i) }

// begin has a unit begin to install, and returns when it downloads or waits. One that
// has the release at once returns it.
func (a *actor) begin(i install) (reply, error) {
	return a.ask(request{Do: "install", Install: &i})
}

// finish returns the release that a unit got which has begun so.
func (a *actor) finish(began reply) (installed, error) {
	for began.Release == nil {
		var err error
		if began, err = a.hear(); err != nil {
			return installed{}, err
		}
	}
	return *began.Release, nil
}

func (r *run) volume() string { return filepath.Join(r.place.dir, "one-download", "volume") }

func installsOnce(ctx context.Context, r *run, _ string) (string, error) {
	root := r.volume()
	s, err := serve(r.place.id)
	if err != nil {
		return "", err
	}
	defer s.close()
	actors, end, err := r.startAll(ctx, r.Units)
	if err != nil {
		return "", err
	}
	defer end()
	s.hold() // nobody ends before all have begun
	begun, err := askAll(actors, func(i int) request {
		return request{Do: "install", Install: &install{Root: root, Unit: unit(i), Source: s.URL()}}
	})
	if err == nil {
		err = s.held(ctx)
	}
	s.resume()
	if err != nil {
		return "", err
	}
	var got []installed
	for i, a := range actors {
		release, err := a.finish(begun[i])
		if err != nil {
			return "", err
		}
		got = append(got, release)
	}
	if err := sameRelease(got, s.begun()); err != nil {
		return "", err
	}
	return fmt.Sprintf("%d processes, one download", len(actors)), nil
}

// sameRelease wants units to have one release, which was downloaded once.
func sameRelease(got []installed, downloads int) error {
	for _, release := range got {
		if release.Contents != got[0].Contents {
			return errors.New("two units have got releases that differ")
		}
	}
	if downloads != 1 {
		return fmt.Errorf("the release was downloaded %d times", downloads)
	}
	return nil
}

func takesOver(ctx context.Context, r *run, dir string) (string, error) {
	s, err := serve(r.place.id)
	if err != nil {
		return "", err
	}
	defer s.close()
	actors, end, err := r.startAll(ctx, 2)
	if err != nil {
		return "", err
	}
	defer end()
	dead, heir := actors[0], actors[1]
	task := func(i int) install {
		return install{Root: filepath.Join(dir, "volume"), Unit: unit(i), Source: s.URL(), Lease: r.pace.lease}
	}
	s.hold()
	if _, err := dead.begin(task(0)); err != nil {
		return "", err
	}
	if err := s.held(ctx); err != nil {
		return "", err
	}
	began, err := heir.begin(task(1))
	if err != nil {
		return "", err
	}
	if began.State != string(coordinator.Waiting) {
		return "", errors.New("a second process did not wait for the one that downloads")
	}
	dead.kill()
	s.resume()
	start := time.Now()
	release, err := heir.finish(began)
	if err != nil {
		return "", err
	}
	if !release.Downloaded {
		return "", errors.New("the release is there, and the process that was killed was not replaced")
	}
	took := time.Since(start).Round(10 * time.Millisecond)
	from := "and went on with what was there"
	if s.begun() > 1 {
		from = "and began anew"
	}
	return fmt.Sprintf("it took %v, %s", took, from), nil
}

func findsFlipped(ctx context.Context, r *run, _ string) (string, error) {
	task := install{Root: r.volume()}
	reader, err := r.start(ctx)
	if err != nil {
		return "", err
	}
	defer reader.end()
	before, err := reader.ask(request{Do: "verify", Install: &task})
	if err != nil {
		return "", err
	}
	if !before.Got {
		return "", errors.New("the release is damaged that was just installed")
	}
	if err := r.flip(filepath.Join(task.Root, "releases", version, "fly-assets", "3")); err != nil {
		return "", err
	}
	after, err := reader.ask(request{Do: "verify", Install: &task})
	if err != nil {
		return "", err
	}
	if after.Got {
		return "", errors.New("a byte has changed, and another process still reads the old one")
	}
	return "", nil
}

// flip changes a byte in the middle of a file that is read-only.
func (r *run) flip(path string) error {
	data, err := r.files.Read(path)
	if err != nil {
		return err
	}
	data[len(data)/2] ^= 1
	if err := r.files.Chmod(path, 0o644); err != nil {
		return err
	}
	if err := r.files.Write(path, data, 0o644); err != nil {
		return err
	}
	return r.files.Chmod(path, 0o444)
}

package coordinator

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/mount"
	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/publish"
	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/probe"
)

// View reads a volume, for whoever asks: who uses it need be no unit. It changes
// nothing, and works beside a download. It is safe for concurrent use and needs no
// closing. Errors of its methods are *Error, and may be ErrHung or ErrForeignVolume
// beside what each method lists.
type View struct {
	dir     string // where the volume is mounted
	mount   *mount.Mount
	product Product
	id      string
	marker  string // demanded; empty for none
	owner   string
}

// Look returns a View of the volume at root, which need not be mounted there: a copy
// of a volume will do. Errors are ErrNoVolume, ErrForeignVolume for a newer layout,
// ErrHung, and ErrOptions for a product that cannot be meant.
func Look(ctx context.Context, root string, p Product) (*View, error) {
	dir, err := filepath.Abs(root)
	if err == nil {
		err = p.check()
	}
	if err != nil {
		return nil, failed("look at", root, err)
	}
	v := &View{dir: dir, mount: mount.At(dir), product: p}
	found, err := mount.Call(ctx, v.mount, func(context.Context) (identity, error) { return lookAt(dir) })
	if err != nil {
		return nil, failed("look at", dir, err)
	}
	v.id = found.ID
	return v, nil
}

func lookAt(dir string) (identity, error) {
	root, err := openDir(dir)
	if err != nil {
		return identity{}, err
	}
	defer root.Close()
	found, err := identify(root)
	if errors.Is(err, fs.ErrNotExist) {
		return identity{}, fmt.Errorf("%w: it has no %s: name the directory where the units mount it", ErrNoVolume, volumeFile)
	}
	return found, err
}

// openDir says in plain words why a directory cannot be opened.
func openDir(dir string) (*os.Root, error) {
	root, err := os.OpenRoot(dir)
	if err == nil {
		return root, nil
	}
	if info, statErr := os.Stat(dir); statErr == nil && !info.IsDir() {
		return nil, fmt.Errorf("%w but a file: name the directory where the units mount it", ErrNoVolume)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: there is no such directory: name the one where the units mount it", ErrNoVolume)
	}
	return nil, err
}

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
		opened, err := openDir(dir)
		if err != nil {
			return probe.Result{}, err
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

// Current returns the release that the units of this volume should run. The
// error is ErrNotActivated while there is none.
func (v *View) Current(ctx context.Context) (Activation, error) {
	return read(ctx, v, "tell the current release of", v.dir, func(_ context.Context, in *volume) (Activation, error) {
		h, err := in.history()
		return h.current, err
	})
}

// Installed returns a release after a quick check of names, sizes and modes.
// Errors are ErrVersion, ErrNotInstalled and ErrCorrupt.
func (v *View) Installed(ctx context.Context, version string) (Release, error) {
	version, what, err := v.named("use", version)
	if err != nil {
		return Release{}, err
	}
	return read(ctx, v, "use", what, func(_ context.Context, in *volume) (Release, error) {
		r, _, err := in.release(version)
		return r, err
	})
}

// Damage is what Verify found wrong with a release, file by file. It is an
// ErrCorrupt.
type Damage = publish.Damage

// Verify reads every file of a release and compares it with the manifest, on all
// processors. What differs is a *Damage, which is an ErrCorrupt, and which
// Coordinator.Reinstall mends; other errors are ErrVersion and ErrNotInstalled.
// progress, unless nil, is told how many bytes of how many are compared; it is called
// by several goroutines, one at a time.
func (v *View) Verify(ctx context.Context, version string, progress func(done, total int64)) error {
	version, what, err := v.named("trust", version)
	if err != nil {
		return err
	}
	_, err = read(ctx, v, "trust", what, func(ctx context.Context, in *volume) (place, error) {
		p, err := in.place(version)
		if err == nil {
			_, err = publish.Verify(ctx, in.root, p.dir(), version, progress)
		}
		return p, err
	})
	return err
}

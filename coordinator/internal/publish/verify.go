package publish

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/durable"
	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/unpack"
)

// Difference is one file that is not as the manifest says.
type Difference struct {
	Path string `json:"path"` // below the release
	Why  string `json:"why"`  // goes on after the path: "is missing"
}

func (d Difference) String() string { return d.Path + " " + d.Why }

// Damage is everything in a release that is not as the manifest says, sorted by
// path. It is an ErrCorrupt.
type Damage struct {
	Dir   string
	Files []Difference
}

// Error names the first few files: it may end up in a status.
func (d *Damage) Error() string {
	const few = 3
	var names []string
	for _, f := range d.Files[:min(few, len(d.Files))] {
		names = append(names, f.String())
	}
	if more := len(d.Files) - few; more > 0 {
		names = append(names, fmt.Sprintf("and %d more", more))
	}
	return fmt.Sprintf("%s: %v: %s", d.Dir, ErrCorrupt, strings.Join(names, "; "))
}

func (d *Damage) Unwrap() error { return ErrCorrupt }

// Verify is Check that reads the contents too, on all processors, and goes on
// to the end: it returns a *Damage with every file that differs. progress,
// unless nil, is told how many bytes of how many are compared, by one goroutine
// at a time.
func Verify(ctx context.Context, root *os.Root, dir, version string, progress func(done, total int64)) (Manifest, error) {
	release, err := open(root, dir)
	if err != nil {
		return Manifest{}, err
	}
	defer release.Close()
	m, err := read(release, version)
	if err != nil {
		return m, err
	}
	damage := &Damage{Dir: release.Name()}
	other := map[string]bool{} // differs already
	err = compare(release, m, func(d Difference) error {
		damage.Files = append(damage.Files, d)
		other[d.Path] = true
		return nil
	})
	if err != nil {
		return m, err
	}
	var total int64
	for _, f := range m.Files {
		total += f.Size
	}
	var mu sync.Mutex
	var done int64
	g, ctx := errgroup.WithContext(ctx)
	work := make(chan unpack.File)
	g.Go(func() error {
		defer close(work)
		for _, f := range m.Files {
			if f.Link != "" || other[f.Path] {
				continue
			}
			select {
			case work <- f:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		return nil
	})
	for range runtime.GOMAXPROCS(0) {
		g.Go(func() error {
			r := reader{buffer: make([]byte, 1<<20), read: func(n int) error {
				if progress != nil {
					mu.Lock()
					defer mu.Unlock()
					done += int64(n)
					progress(done, total)
				}
				return ctx.Err()
			}}
			for f := range work {
				sum, err := r.sum(release, f.Path)
				if ctx.Err() != nil {
					return context.Cause(ctx)
				}
				why := ""
				switch {
				case err != nil:
					// A disk that cannot be read is the damage that is looked for.
					why = "cannot be read: " + err.Error()
				case sum != f.SHA256:
					why = "has other contents"
				default:
					continue
				}
				mu.Lock()
				damage.Files = append(damage.Files, Difference{f.Path, why})
				mu.Unlock()
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return m, fmt.Errorf("cannot verify %s: %w", release.Name(), err)
	}
	if len(damage.Files) == 0 {
		return m, nil
	}
	// Collected while it was read?
	if _, err := Read(root, dir, version); errors.Is(err, ErrNotInstalled) {
		return m, err
	}
	slices.SortFunc(damage.Files, func(a, b Difference) int { return strings.Compare(a.Path, b.Path) })
	return m, damage
}

// reader sums files up through one buffer.
type reader struct {
	buffer []byte
	read   func(n int) error
}

func (r reader) sum(release *os.Root, name string) (sum unpack.Sum, err error) {
	f, err := durable.Open(release, name)
	if err != nil {
		return sum, err
	}
	defer f.Close()
	h := sha256.New()
	for {
		n, err := f.Read(r.buffer)
		h.Write(r.buffer[:n])
		if err := r.read(n); err != nil {
			return sum, err
		}
		if err == io.EOF {
			return unpack.Sum(h.Sum(nil)), nil
		}
		if err != nil {
			return sum, err
		}
	}
}

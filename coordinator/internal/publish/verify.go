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
	var mu sync.Mutex // of what follows, and of damage
	var done int64
	read := func(n int) {
		mu.Lock()
		defer mu.Unlock()
		done += int64(n)
		if progress != nil {
			progress(done, total)
		}
	}
	buffers := sync.Pool{New: func() any { b := make([]byte, 1<<20); return &b }}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(runtime.GOMAXPROCS(0))
	for _, f := range m.Files {
		if f.Link != "" || other[f.Path] {
			continue
		}
		g.Go(func() error {
			buffer := buffers.Get().(*[]byte)
			defer buffers.Put(buffer)
			sum, err := sumOf(ctx, release, f.Path, *buffer, read)
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			why := "has other contents"
			if err != nil {
				// A disk that cannot be read is the damage that is looked for.
				why = "cannot be read: " + err.Error()
			} else if sum == f.SHA256 {
				return nil
			}
			mu.Lock()
			defer mu.Unlock()
			damage.Files = append(damage.Files, Difference{f.Path, why})
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

// sumOf reads a file through a buffer, and tells how much it has read.
func sumOf(ctx context.Context, release *os.Root, name string, buffer []byte, read func(n int)) (sum unpack.Sum, err error) {
	if ctx.Err() != nil {
		return sum, ctx.Err()
	}
	f, err := durable.Open(release, name)
	if err != nil {
		return sum, err
	}
	defer f.Close()
	for h := sha256.New(); ctx.Err() == nil; {
		n, err := f.Read(buffer)
		h.Write(buffer[:n])
		read(n)
		if err == io.EOF {
			return unpack.Sum(h.Sum(nil)), nil
		}
		if err != nil {
			return sum, err
		}
	}
	return sum, ctx.Err()
}

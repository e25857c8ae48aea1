package bench

import (
	"context"
	"fmt"
	"io/fs"
	"path/filepath"
	"runtime"
)

// installed measures Ensure of a release that is there.
func installed(ctx context.Context, r *run) ([]Row, error) {
	a, err := r.small(ctx)
	if err != nil {
		return nil, err
	}
	var ours, stats, tail, statsTail []float64
	err = r.disk.on(func(dir string) error {
		if _, err := r.installCold(ctx, dir, a); err != nil {
			return err
		}
		root := volumeBelow(dir)
		m, err := join(root, "bench/1", r.source.url)
		if err != nil {
			return err
		}
		for range r.Samples {
			calls, walks := make([]float64, r.repeats()), make([]float64, r.repeats())
			for i := range calls {
				s, err := timed(func() error {
					_, err := m.ensure(ctx, a.version())
					return err
				})
				if err != nil {
					return err
				}
				calls[i] = 1000 * s
				if s, err = timed(func() error { return statAll(releaseDir(root, a.version())) }); err != nil {
					return err
				}
				walks[i] = 1000 * s
			}
			ours, tail = append(ours, calls...), append(tail, quantile(calls, 0.99))
			stats, statsTail = append(stats, walks...), append(statsTail, quantile(walks, 0.99))
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return []Row{Row{
		Measure: "p99", Name: fmt.Sprintf("Ensure when installed, %d files, p99", a.Files), Unit: "ms",
		Floor: fmt.Sprintf("%.1f ms: p99 of looking at every file's size and mode", quantile(statsTail, 0.5)),
		Note:  fmt.Sprintf("a sample is the p99 of %d", r.repeats()),
	}.of(series("p99", "ms", tail), series("ensure", "ms", ours), series("size and mode of every file", "ms", stats))}, nil
}

// statAll looks at the size and mode of every file below dir.
func statAll(dir string) error {
	// A link is walked to, not into.
	dir, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return err
	}
	return filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err == nil {
			_, err = d.Info()
		}
		return err
	})
}

// installedMany measures what the quick check costs where there are very many
// files. Their sizes do not matter to it.
func installedMany(ctx context.Context, r *run) ([]Row, error) {
	a, err := r.archive(ctx, compressible, r.files(60_000), min(smallMB, r.MB))
	if err != nil {
		return nil, err
	}
	var took, allocated, stats []float64
	err = r.disk.with(a.Files)(func(dir string) error {
		if _, err := r.installCold(ctx, dir, a); err != nil {
			return err
		}
		root := volumeBelow(dir)
		var err error
		if took, allocated, err = r.check(ctx, root, a, r.Samples); err != nil {
			return err
		}
		for range r.Samples {
			s, err := timed(func() error { return statAll(releaseDir(root, a.version())) })
			if err != nil {
				return err
			}
			stats = append(stats, 1000*s)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	walks := series("size and mode of every file", "ms", stats)
	return []Row{
		Row{
			Measure: "check_time", Name: fmt.Sprintf("quick check when installed, %d files: time", a.Files), Unit: "ms",
			Floor: fmt.Sprintf("%.1f ms: looking at every file's size and mode", walks.Median),
		}.of(series("check", "ms", took), walks),
		Row{
			Measure: "check_memory", Name: fmt.Sprintf("quick check when installed, %d files: memory allocated", a.Files), Unit: "MiB",
			Floor: "none",
		}.of(series("allocated by a check", "MiB", allocated)),
	}, nil
}

// check returns the milliseconds of some quick checks of a release, and the MiB
// that each allocated.
func (r *run) check(ctx context.Context, root string, a archive, times int) (took, allocated []float64, err error) {
	m, err := join(root, "bench/0", r.source.url)
	if err != nil {
		return nil, nil, err
	}
	var before, after runtime.MemStats
	for range times {
		runtime.ReadMemStats(&before)
		s, err := timed(func() error { return m.check(ctx, a.version()) })
		if err != nil {
			return nil, nil, err
		}
		runtime.ReadMemStats(&after)
		took = append(took, 1000*s)
		allocated = append(allocated, mib(int64(after.TotalAlloc-before.TotalAlloc)))
	}
	return took, allocated, nil
}

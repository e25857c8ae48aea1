package bench

import (
	"context"
	"fmt"
	"io/fs"
	"path/filepath"
	"syscall"
	"time"

	"github.com/concourse-ci-machine/concourse-ci-machine/charm/product"
	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator"
)

// changeTime returns the time at which an inode was changed.
func changeTime(info fs.FileInfo) (time.Time, error) {
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return time.Time{}, fmt.Errorf("cannot tell when %s was changed", info.Name())
	}
	return time.Unix(stat.Ctim.Unix()), nil
}

// often is how many times something short is measured.
func (r *run) often() int {
	if r.Quick {
		return 200
	}
	return 1000
}

// claiming measures the claim through the one method that takes it, has next to
// nothing to do on a fresh volume, and releases it.
func claiming(ctx context.Context, r *run) ([]Row, error) {
	var ours, plain []float64
	err := r.disk.on(func(dir string) error {
		c, err := coordinator.Open(context.Background(), filepath.Join(dir, "volume"), coordinator.Options{Product: product.Concourse, Unit: "bench/0"})
		if err != nil {
			return err
		}
		for i := range r.often() {
			s, err := timed(func() error {
				_, err := c.Collect(ctx)
				return err
			})
			if err != nil {
				return err
			}
			ours = append(ours, 1000*s)
			if s, err = timed(func() error { return plainWrite(filepath.Join(dir, fmt.Sprint("plain", i)), 200) }); err != nil {
				return err
			}
			plain = append(plain, 1000*s)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return []Row{{
		Name: "claim without contention, p99", Unit: "ms", Value: quantile(ours, 0.99), Limit: 10,
		Floor:  fmt.Sprintf("%.1f ms if made durable: p99 of one small file, written and synced", quantile(plain, 0.99)),
		Note:   "claim, look for what to collect, release: an upper bound of the claim alone",
		Series: []Series{series("collect on a fresh volume", "ms", ours), series("write and sync 200 bytes", "ms", plain)},
	}}, nil
}

// installed measures Ensure of a release that is there.
func installed(ctx context.Context, r *run) ([]Row, error) {
	a, err := r.small(ctx)
	if err != nil {
		return nil, err
	}
	var ours, stats []float64
	err = r.disk.on(func(dir string) error {
		root := filepath.Join(dir, "volume")
		r.source.reset(-1)
		if _, err := r.ensure(ctx, task{Root: root, Version: a.version(), App: "bench", Units: 1}); err != nil {
			return err
		}
		c, err := coordinator.Open(context.Background(), root, coordinator.Options{Product: product.Concourse, Unit: "bench/1", Source: r.source.url})
		if err != nil {
			return err
		}
		release := filepath.Join(root, "releases", a.version())
		for range r.often() {
			s, err := timed(func() error {
				_, err := c.Ensure(ctx, a.version())
				return err
			})
			if err != nil {
				return err
			}
			ours = append(ours, 1000*s)
			if s, err = timed(func() error { return look(release) }); err != nil {
				return err
			}
			stats = append(stats, 1000*s)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return []Row{{
		Name: "Ensure when installed, 800 files, p99", Unit: "ms", Value: quantile(ours, 0.99), Limit: 50,
		Floor:  fmt.Sprintf("%.1f ms: p99 of looking at every file's size and mode", quantile(stats, 0.99)),
		Series: []Series{series("ensure", "ms", ours), series("size and mode of every file", "ms", stats)},
	}}, nil
}

func look(dir string) error {
	return filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err == nil {
			_, err = d.Info()
		}
		return err
	})
}

// check returns the milliseconds of some quick checks of a release.
func (r *run) check(root string, a archive, times int) ([]float64, error) {
	c, err := coordinator.Open(context.Background(), root, coordinator.Options{Product: product.Concourse, Unit: "bench/0", Source: r.source.url})
	if err != nil {
		return nil, err
	}
	var took []float64
	for range times {
		s, err := timed(func() error {
			_, err := c.Installed(context.Background(), a.version())
			return err
		})
		if err != nil {
			return nil, err
		}
		took = append(took, 1000*s)
	}
	return took, nil
}

// resumeMB is enough for several chunks on each connection; what is moved again
// does not depend on more.
const resumeMB = 300

// resume kills an Ensure that has nine tenths of the archive, and counts what
// the next one moves that had been moved before.
func resume(ctx context.Context, r *run) ([]Row, error) {
	a, err := r.archive(ctx, crowdFiles, min(resumeMB, r.MB))
	if err != nil {
		return nil, err
	}
	var again, took, cpu []float64
	for i := range r.Samples {
		r.Say("round %d of %d", i+1, r.Samples)
		err := r.disk.on(func(dir string) error {
			t := task{Root: filepath.Join(dir, "volume"), Version: a.version(), App: "bench", Units: 1}
			h := r.source.reset(a.Size / 10 * 9)
			p, err := r.start(ctx, t)
			if err != nil {
				return err
			}
			if err := p.begin(); err != nil {
				p.kill()
				return err
			}
			if err := h.wait(ctx); err != nil {
				p.kill()
				return err
			}
			// What was sent arrives, and is what a crash can cost.
			pause(ctx, 2*time.Second)
			p.kill()
			h.resume()
			o, err := r.ensure(ctx, t)
			if err != nil {
				return err
			}
			_, sent := r.source.counted()
			again = append(again, mib(sent-a.Size))
			took = append(took, o.Installed[0].Seconds)
			cpu = append(cpu, o.CPUSeconds)
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	moved := series("moved again", "MiB", again)
	return []Row{{
		Name: "moved again after SIGKILL at 90 %", Unit: "MiB", Value: moved.Max, Limit: mib(coordinator.DefaultChunk), Floor: "0 MiB; the limit is one chunk",
		Note:   fmt.Sprintf("the archive has %.0f MiB; the second Ensure took %.1f s, %.1f s of processor time", mib(a.Size), quantile(took, 0.5), quantile(cpu, 0.5)),
		Series: []Series{moved, series("second ensure", "s", took), series("its processor time", "s", cpu)},
	}}, nil
}

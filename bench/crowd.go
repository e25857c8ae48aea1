package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"
)

const (
	crowdSize  = 64
	crowdFiles = 800
	// smallMB is the archive of those experiments that depend on the number of
	// files, not on their size.
	smallMB = 64
)

// small is that archive; with a smaller one asked for, it is that.
func (r *run) small(ctx context.Context) (archive, error) {
	return r.archive(ctx, crowdFiles, min(smallMB, r.MB))
}

// waited is how long the others wait before the download goes on: long enough
// for their waiting to have settled.
func (r *run) waited() time.Duration {
	if r.Quick {
		return time.Second
	}
	return 4 * time.Second
}

// crowd lets 64 processes ask for one release at once.
func crowd(ctx context.Context, r *run) ([]Row, error) {
	a, err := r.small(ctx)
	if err != nil {
		return nil, err
	}
	var downloads, moved, delays, checks, slowest []float64
	for i := range r.Samples {
		r.Say("round %d of %d", i+1, r.Samples)
		err := r.disk.on(func(dir string) error {
			root := filepath.Join(dir, "volume")
			h := r.source.reset(0)
			processes := make([]*process, crowdSize)
			var g errgroup.Group
			g.SetLimit(2 * cores())
			for i := range processes {
				g.Go(func() (err error) {
					processes[i], err = r.start(ctx, task{Root: root, Version: a.version(), App: "crowd", First: i, Units: 1})
					return err
				})
			}
			if err := g.Wait(); err != nil {
				h.resume()
				return err
			}
			var beginErr error
			for _, p := range processes {
				beginErr = errors.Join(beginErr, p.begin())
			}
			pause(ctx, r.waited())
			h.resume()
			outcomes := make([]outcome, crowdSize)
			for i, p := range processes {
				g.Go(func() (err error) {
					outcomes[i], err = p.end()
					return err
				})
			}
			if err := errors.Join(beginErr, g.Wait()); err != nil {
				return err
			}
			n, bytes := r.source.counted()
			downloads = append(downloads, float64(n))
			moved = append(moved, float64(bytes)/float64(a.Size))
			published, err := changed(filepath.Join(root, "releases", a.version()))
			if err != nil {
				return err
			}
			last := 0.0
			for _, o := range outcomes {
				if got := o.Installed[0]; !got.Downloaded {
					delay := milliseconds(got.Returned.Sub(published))
					delays, last = append(delays, delay), max(last, delay)
				}
			}
			slowest = append(slowest, last)
			took, err := r.check(root, a, 5)
			checks = append(checks, took...)
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	floor := fmt.Sprintf("%.0f ms: %d quick checks on %d cores", quantile(checks, 0.5)*float64(crowdSize-1)/float64(cores()), crowdSize-1, cores())
	waiters := series("publication to return of each waiter", "ms", delays)
	return []Row{
		{Name: "64 processes at once: downloads", Value: series("", "", downloads).Max, Limit: 1, Floor: "1", Series: []Series{series("downloads", "", downloads)}},
		{Name: "64 processes at once: bytes moved / size", Unit: "x", Value: series("", "", moved).Max, Limit: 1, Floor: "1.00", Series: []Series{series("bytes / size", "x", moved)}},
		{Name: "publication to the slowest of 63 waiters", Unit: "ms", Value: waiters.Max, Limit: 1000, Floor: floor, Series: []Series{series("slowest", "ms", slowest), waiters}},
		{Name: "publication to half of 63 waiters (p50)", Unit: "ms", Value: waiters.Median, Limit: 250, Floor: floor, Series: []Series{waiters}},
	}, nil
}

// changed returns when a directory got its name: a rename sets its time of
// change, and nothing in a release changes after.
func changed(path string) (time.Time, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return time.Time{}, err
	}
	return changeTime(info)
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// units compares what it costs one unit to wait for, activate and pin a release
// when 10 share a volume and when 1,000 do.
func units(ctx context.Context, r *run) ([]Row, error) {
	a, err := r.archive(ctx, 20, 2)
	if err != nil {
		return nil, err
	}
	counts := []int{10, 1000}
	cpu, wall := map[int][]float64{}, map[int][]float64{}
	for i := range r.Samples {
		r.Say("round %d of %d", i+1, r.Samples)
		for _, n := range counts {
			err := r.disk.on(func(dir string) error {
				root := filepath.Join(dir, "volume")
				h := r.source.reset(0)
				first, err := r.start(ctx, task{Root: root, Version: a.version(), App: "first", Units: 1})
				if err != nil {
					return err
				}
				others, err := r.start(ctx, task{Root: root, Version: a.version(), App: "other", Units: n, Settle: true})
				if err != nil {
					first.kill()
					return err
				}
				if err := first.begin(); err != nil {
					return err
				}
				if err := h.wait(ctx); err != nil {
					first.kill()
					others.kill()
					return err
				}
				if err := others.begin(); err != nil {
					return err
				}
				pause(ctx, r.waited())
				h.resume()
				_, firstErr := first.end()
				o, err := others.end()
				if err := errors.Join(firstErr, err); err != nil {
					return err
				}
				cpu[n] = append(cpu[n], 1000*o.CPUSeconds/float64(n))
				published, err := changed(filepath.Join(root, "releases", a.version()))
				if err != nil {
					return err
				}
				var last time.Duration
				for _, got := range o.Installed {
					last = max(last, got.Returned.Sub(published))
				}
				wall[n] = append(wall[n], milliseconds(last))
				return nil
			})
			if err != nil {
				return nil, err
			}
		}
	}
	few, many := series("processor time a unit, 10 units", "ms", cpu[10]), series("processor time a unit, 1,000 units", "ms", cpu[1000])
	ratio := series("ratio", "x", ratios(many.Values, few.Values))
	return []Row{{
		Name: "processor time a unit: 1,000 units / 10 units", Unit: "x", Value: ratio.Median, Limit: 2, Floor: "1: no unit pays for the others",
		Note: fmt.Sprintf("%.1f ms a unit of 10, %.1f ms of 1,000, to wait %v, activate and pin; the slowest Ensure of 1,000 returned %.0f ms after publication",
			few.Median, many.Median, r.waited(), quantile(wall[1000], 0.5)),
		Series: []Series{few, many, ratio, series("publication to the slowest of 10", "ms", wall[10]), series("publication to the slowest of 1,000", "ms", wall[1000])},
	}}, nil
}

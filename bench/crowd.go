package bench

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
)

const crowdSize = 64

// settling is how long units wait until their waiting has settled.
func (r *run) settling() time.Duration {
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
	var downloads, moved, delays, checks, slowest, half []float64
	for i := range r.Samples {
		r.Say("round %d of %d", i+1, r.Samples)
		err := r.disk.on(func(dir string) error {
			root := volumeBelow(dir)
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
			pause(ctx, r.settling())
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
			published, err := changed(releaseDir(root, a.version()))
			if err != nil {
				return err
			}
			var waited []float64
			for _, o := range outcomes {
				if got := o.Installed[0]; !got.Downloaded {
					waited = append(waited, milliseconds(got.Returned.Sub(published)))
				}
			}
			if len(waited) == 0 {
				return errors.New("every process has downloaded")
			}
			delays = append(delays, waited...)
			slowest, half = append(slowest, slices.Max(waited)), append(half, quantile(waited, 0.5))
			took, _, err := r.check(ctx, root, a, 5)
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
		Row{Measure: "downloads", Exact: true, Name: "64 processes at once: downloads", Worst: true, Floor: "1"}.of(series("downloads", "", downloads)),
		Row{Measure: "moved", Exact: true, Name: "64 processes at once: bytes moved / size", Unit: "x", Worst: true, Floor: "1.00"}.of(series("bytes / size", "x", moved)),
		Row{Measure: "slowest_waiter", Name: "publication to the slowest of 63 waiters", Unit: "ms", Floor: floor}.of(series("slowest", "ms", slowest), waiters),
		Row{Measure: "half_of_waiters", Name: "publication to half of 63 waiters (p50)", Unit: "ms", Floor: floor}.of(series("p50", "ms", half), waiters),
	}, nil
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

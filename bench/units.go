package bench

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// units compares what it costs one unit to wait for, activate and pin a release
// when 10 share a volume and when 1,000 do.
func units(ctx context.Context, r *run) ([]Row, error) {
	a, err := r.archive(ctx, compressible, 20, 2)
	if err != nil {
		return nil, err
	}
	counts := []int{10, 1000}
	cpu, wall := map[int][]float64{}, map[int][]float64{}
	for i := range r.Samples {
		r.Say("round %d of %d", i+1, r.Samples)
		for _, n := range counts {
			err := r.disk.on(func(dir string) error {
				root := volumeBelow(dir)
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
				pause(ctx, r.settling())
				h.resume()
				_, firstErr := first.end()
				o, err := others.end()
				if err := errors.Join(firstErr, err); err != nil {
					return err
				}
				cpu[n] = append(cpu[n], 1000*o.CPUSeconds/float64(n))
				published, err := changed(releaseDir(root, a.version()))
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
	return []Row{Row{
		Measure: "growth", Name: "processor time a unit: 1,000 units / 10 units", Unit: "x", Floor: "1: no unit pays for the others",
		Note: fmt.Sprintf("%.1f ms a unit of 10, %.1f ms of 1,000, to wait %v, activate and pin; the slowest Ensure of 1,000 returned %.0f ms after publication",
			few.Median, many.Median, r.settling(), quantile(wall[1000], 0.5)),
	}.of(series("ratio", "x", ratios(many.Values, few.Values)), few, many,
		series("publication to the slowest of 10", "ms", wall[10]), series("publication to the slowest of 1,000", "ms", wall[1000]))}, nil
}

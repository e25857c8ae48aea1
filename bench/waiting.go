package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// trickleMB is the size of an archive that trickles for twice as long as units are
// watched, and at least for four minutes.
func (r *run) trickleMB() int {
	watched := r.settling() + time.Duration(r.Samples)*r.window()
	return max(16, int(2*dripBytes*watched/dripEvery/1e6)+1)
}

// waiting counts what a unit asks of a network file system while another one
// downloads from a server that trickles.
func waiting(ctx context.Context, r *run) ([]Row, error) {
	row := Row{
		Measure: "requests", Name: "requests of a unit that waits, on FUSE", Unit: "/s",
		Floor: "none if the server told of changes",
		Note:  "the mount caches nothing; forgetting and interrupts are not counted",
	}
	a, err := r.archive(ctx, compressible, 20, r.trickleMB())
	if err != nil {
		return nil, err
	}
	var rates []float64
	sum := map[string]int{}
	err = r.disk.on(func(dir string) (err error) {
		behind := filepath.Join(dir, "server")
		if err := os.Mkdir(behind, 0o755); err != nil {
			return err
		}
		holds, err := mountOn(filepath.Join(dir, "holds"), behind, nil)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, holds.unmount()) }()
		var asked requests
		waits, err := mountOn(filepath.Join(dir, "waits"), behind, &asked)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, waits.unmount()) }()

		h := r.source.trickle()
		defer h.resume()
		holder, waiter, err := r.holderAndWaiter(ctx, h, holds.dir, waits.dir, a)
		if err != nil {
			return err
		}
		defer holder.kill()
		defer waiter.kill()
		pause(ctx, r.settling())
		for i := range r.Samples {
			r.Say("%v, %d of %d", r.window(), i+1, r.Samples)
			asked.take()
			start := time.Now()
			pause(ctx, r.window())
			count, took := asked.take(), time.Since(start)
			n := 0
			for operation, times := range count {
				n += times
				sum[operation] += times
			}
			rates = append(rates, float64(n)/took.Seconds())
		}
		ended := time.Now()
		h.resume()
		first, holderErr := holder.end()
		second, waiterErr := waiter.end()
		if err := errors.Join(holderErr, waiterErr); err != nil {
			return err
		}
		return waitedUntil(ended, first, second)
	})
	if errors.Is(err, errNoFUSE) {
		return []Row{row.skipped(err.Error())}, nil
	}
	if err != nil {
		return nil, err
	}
	row.note("a second: %s", perSecond(sum, float64(r.Samples)*r.window().Seconds()))
	return []Row{row.of(series("requests", "/s", rates))}, nil
}

// window is how long requests are counted for one sample.
func (r *run) window() time.Duration {
	if r.Quick {
		return 3 * time.Second
	}
	return 20 * time.Second
}

// holderAndWaiter returns when one unit downloads and another one has been told
// to ask for the same.
func (r *run) holderAndWaiter(ctx context.Context, h *hold, holds, waits string, a archive) (holder, waiter *process, err error) {
	t := task{Version: a.version(), App: "bench", Units: 1}
	begin := func(root string, unit int) (*process, error) {
		t.Root, t.First = root, unit
		p, err := r.start(ctx, t)
		if err != nil {
			return nil, err
		}
		if err := p.begin(); err != nil {
			p.kill()
			return nil, err
		}
		return p, nil
	}
	if holder, err = begin(holds, 0); err != nil {
		return nil, nil, err
	}
	if err = h.wait(ctx); err == nil {
		waiter, err = begin(waits, 1)
	}
	if err != nil {
		holder.kill()
		return nil, nil, err
	}
	return holder, waiter, nil
}

// waitedUntil fails unless one unit has downloaded and the other one waited that
// long: one that had given up would have asked for nothing.
func waitedUntil(ended time.Time, holder, waiter outcome) error {
	if !holder.Installed[0].Downloaded || waiter.Installed[0].Downloaded {
		return errors.New("the unit that should have waited has downloaded")
	}
	if got := waiter.Installed[0].Returned; got.Before(ended) {
		return fmt.Errorf("the unit that should have waited returned %v too early", ended.Sub(got))
	}
	return nil
}

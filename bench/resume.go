package bench

import (
	"context"
	"fmt"
	"time"
)

// resumeMB is enough for several chunks on each connection; what is moved again
// does not depend on more.
const resumeMB = 300

// resume kills an Ensure that has nine tenths of the archive, and counts what
// the next one moves that had been moved before.
func resume(ctx context.Context, r *run) ([]Row, error) {
	a, err := r.archive(ctx, compressible, smallFiles, min(resumeMB, r.MB))
	if err != nil {
		return nil, err
	}
	var again, took, cpu []float64
	for i := range r.Samples {
		r.Say("round %d of %d", i+1, r.Samples)
		err := r.disk.on(func(dir string) error {
			t := task{Root: volumeBelow(dir), Version: a.version(), App: "bench", Units: 1}
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
	return []Row{Row{
		Measure: "moved_again", Name: "moved again after SIGKILL at 90 %", Unit: "MiB", Worst: true, Floor: "0 MiB; the limit is one chunk",
		Note: fmt.Sprintf("the archive has %.0f MiB; the second Ensure took %.1f s, %.1f s of processor time", mib(a.Size), quantile(took, 0.5), quantile(cpu, 0.5)),
	}.of(series("moved again", "MiB", again), series("second ensure", "s", took), series("its processor time", "s", cpu))}, nil
}

package bench

import (
	"context"
	"fmt"
	"path/filepath"
)

// claiming measures the claim of a unit that has no rival.
func claiming(ctx context.Context, r *run) ([]Row, error) {
	var ours, plain, tail, plainTail []float64
	for range r.Samples {
		err := r.disk.on(func(dir string) error {
			m, err := join(volumeBelow(dir), "bench/0", "")
			if err != nil {
				return err
			}
			claims, writes := make([]float64, r.repeats()), make([]float64, r.repeats())
			for i := range claims {
				s, err := timed(func() error { return m.claim(ctx) })
				if err != nil {
					return err
				}
				claims[i] = 1000 * s
				if s, err = timed(func() error { return plainWrite(filepath.Join(dir, fmt.Sprint("plain", i)), 200) }); err != nil {
					return err
				}
				writes[i] = 1000 * s
			}
			ours, tail = append(ours, claims...), append(tail, quantile(claims, 0.99))
			plain, plainTail = append(plain, writes...), append(plainTail, quantile(writes, 0.99))
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return []Row{Row{
		Measure: "p99", Name: "claim without contention, p99", Unit: "ms",
		Floor: fmt.Sprintf("%.1f ms if made durable: p99 of one small file, written and synced", quantile(plainTail, 0.5)),
		Note:  fmt.Sprintf("claim, look for what to collect, release: an upper bound of the claim alone; a sample is the p99 of %d", r.repeats()),
	}.of(series("p99", "ms", tail), series("collect on a fresh volume", "ms", ours), series("write and sync 200 bytes", "ms", plain))}, nil
}

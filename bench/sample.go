package bench

import (
	"math"
	"slices"
	"time"
)

// Series is what was measured of one thing, in the order of measuring.
type Series struct {
	Name   string    `json:"name"`
	Unit   string    `json:"unit"`
	N      int       `json:"n"`
	Min    float64   `json:"min"`
	Median float64   `json:"median"`
	Max    float64   `json:"max"`
	Values []float64 `json:"values"`
}

// series sums values up. There must be at least one.
func series(name, unit string, values []float64) Series {
	return Series{
		Name: name, Unit: unit, N: len(values), Values: values,
		Min: slices.Min(values), Median: quantile(values, 0.5), Max: slices.Max(values),
	}
}

// quantile is the smallest value that at least a share q of the values do not
// exceed; for the median of an even number it is the mean of the middle two.
func quantile(values []float64, q float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	if n := len(sorted); q == 0.5 && n%2 == 0 {
		return (sorted[n/2-1] + sorted[n/2]) / 2
	}
	return sorted[max(0, int(math.Ceil(q*float64(len(sorted))))-1)]
}

// ratios divides sample by sample. Both of a pair were taken one after the
// other, so that a machine that slows down in mid-run slows both.
func ratios(above, below []float64) []float64 {
	r := make([]float64, len(above))
	for i := range above {
		r[i] = above[i] / below[i]
	}
	return r
}

// slower takes the larger one of each pair.
func slower(a, b []float64) []float64 {
	r := make([]float64, len(a))
	for i := range a {
		r[i] = max(a[i], b[i])
	}
	return r
}

// timed returns the seconds that do takes.
func timed(do func() error) (float64, error) {
	start := time.Now()
	err := do()
	return time.Since(start).Seconds(), err
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

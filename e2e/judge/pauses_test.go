package judge_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/judge"
)

func TestRarer(t *testing.T) {
	// every returns attempts at a pace, between two seconds.
	every := func(pause, from, to float64) (at []float64) {
		for s := from; s < to; s += pause {
			at = append(at, s)
		}
		return at
	}
	join := func(parts ...[]float64) (all []float64) {
		for _, part := range parts {
			all = append(all, part...)
		}
		return all
	}
	for name, test := range map[string]struct {
		attempts []float64 // in seconds
		broken   bool
	}{
		"no attempt":                       {nil, false},
		"one":                              {[]float64{3}, false},
		"too short to tell":                {every(1, 0, 110), false},
		"half as many in the third minute": {join(every(2, 0, 60), every(4, 60, 240)), false},
		"pauses that double":               {[]float64{0, 1, 3, 7, 15, 31, 63, 127, 190}, false},
		"always alike":                     {every(3, 0, 200), true},
		"begun anew":                       {join(every(2, 0, 60), every(10, 60, 120), every(2, 120, 190)), true},
	} {
		t.Run(name, func(t *testing.T) {
			var attempts []time.Time
			for _, s := range test.attempts {
				attempts = append(attempts, at(0).Add(time.Duration(s*float64(time.Second))))
			}
			require.Equal(t, test.broken, len(judge.Rarer(attempts, time.Minute)) > 0)
		})
	}
}

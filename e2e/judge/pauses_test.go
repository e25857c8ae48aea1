package judge_test

import (
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/judge"
)

func TestUnhurried(t *testing.T) {
	// every returns attempts of five requests each that begin at a pace, between two
	// seconds.
	every := func(pause, from, to float64) (at []float64) {
		for s := from; s < to; s += pause {
			at = append(at, s, s+0.5, s+1.5, s+4, s+9)
		}
		return at
	}
	for name, test := range map[string]struct {
		attempts []float64 // in seconds
		broken   bool
	}{
		"no attempt":                 {nil, false},
		"one":                        {[]float64{3}, false},
		"in haste at first":          {every(1, 0, 50), false},
		"three attempts a minute":    {every(20, 0, 300), false},
		"attempts without a pause":   {every(10, 0, 300), true},
		"in haste at last":           {slices.Concat(every(20, 0, 200), every(5, 200, 230)), true},
		"a request in three seconds": {slices.Concat(every(20, 0, 60), []float64{60, 63, 66, 69, 72, 75, 78, 81, 84, 87, 90, 93, 96, 99, 102, 105, 108, 111, 114, 117}), true},
	} {
		t.Run(name, func(t *testing.T) {
			var attempts []time.Time
			for _, s := range test.attempts {
				attempts = append(attempts, at(0).Add(time.Duration(s*float64(time.Second))))
			}
			slices.Reverse(attempts)
			require.Equal(t, test.broken, len(judge.Unhurried(attempts)) > 0)
		})
	}
}

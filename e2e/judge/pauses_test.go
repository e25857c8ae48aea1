package judge_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/judge"
)

func TestRarer(t *testing.T) {
	const longest = 10 * time.Second
	for name, test := range map[string]struct {
		pauses []float64 // in seconds
		broken bool
	}{
		"no attempt":                         {nil, false},
		"too few to tell":                    {[]float64{1, 1, 1}, false},
		"doubled":                            {[]float64{1, 2, 4, 8}, false},
		"doubled up to the longest":          {[]float64{1, 2, 4, 8, 10, 10, 10, 10.2, 10}, false},
		"grown by half, and a little unlike": {[]float64{1, 1.4, 2.3, 3.2, 5.1}, false},
		"as long as the longest at once":     {[]float64{10, 10, 10, 10, 10}, false},
		"always alike":                       {[]float64{1, 1, 1, 1}, true},
		"no longer grown":                    {[]float64{1, 2, 4, 4, 4, 4}, true},
		"begun anew":                         {[]float64{1, 2, 4, 8, 1, 2, 4}, true},
	} {
		t.Run(name, func(t *testing.T) {
			attempts := []time.Time{at(0)}
			for _, pause := range test.pauses {
				attempts = append(attempts, attempts[len(attempts)-1].Add(time.Duration(pause*float64(time.Second))))
			}
			require.Equal(t, test.broken, len(judge.Rarer(attempts, longest)) > 0)
		})
	}
	require.Equal(t, []string{"attempt 5 came at 03:00:04.000 after a pause of 1s; 3 attempts before, the pause was 1s already"},
		judge.Rarer([]time.Time{at(4), at(0), at(1), at(2), at(3)}, longest))
}

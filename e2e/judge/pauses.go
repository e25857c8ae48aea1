package judge

import (
	"slices"
	"time"
)

// Rarer judges the times of attempts, by one unit, at what fails each time: the pauses
// must grow until they are as long as the longest one. Three pauses may be alike.
func Rarer(attempts []time.Time, longest time.Duration) []string {
	const (
		alike = 3
		grown = 1.1 // times the pause three before
	)
	var f findings
	attempts = slices.SortedFunc(slices.Values(attempts), time.Time.Compare)
	var pauses []time.Duration
	for i := 1; i < len(attempts); i++ {
		pauses = append(pauses, attempts[i].Sub(attempts[i-1]))
	}
	for i := alike; i < len(pauses); i++ {
		if pauses[i] < longest && float64(pauses[i]) < grown*float64(pauses[i-alike]) {
			f.note("attempt %d came at %s after a pause of %s; %d attempts before, the pause was %s already",
				i+2, clock(attempts[i+1]), pauses[i], alike, pauses[i-alike])
		}
	}
	return f
}

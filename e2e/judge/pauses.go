package judge

import (
	"slices"
	"time"
)

// Rarer judges the times of attempts at what fails each time: in the last whole window
// there are at most half as many as in the first. An attempt may be several requests.
func Rarer(attempts []time.Time, window time.Duration) []string {
	var f findings
	if len(attempts) == 0 {
		return nil
	}
	attempts = slices.SortedFunc(slices.Values(attempts), time.Time.Compare)
	first, last := attempts[0], attempts[len(attempts)-1]
	if last.Sub(first) < 2*window {
		return nil // they have ended, or nobody has watched for long enough
	}
	within := func(from time.Time) (n int) {
		for _, at := range attempts {
			if !at.Before(from) && at.Sub(from) < window {
				n++
			}
		}
		return n
	}
	end := first.Add(last.Sub(first).Truncate(window) - window)
	if early, late := within(first), within(end); 2*late > early {
		f.note("there were %d attempts within %s of %s, and still %d within %s of %s", early, window, clock(first), late, window, clock(end))
	}
	return f
}

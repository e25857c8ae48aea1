package judge

import (
	"slices"
	"time"
)

// What a mirror that refuses can bear of each unit: an attempt of five requests, whose
// pauses grow to 5 s, and after it a pause that has grown to 10 s, are 15 a minute.
const (
	hurried     = time.Minute // until pauses have grown
	mostInAPace = 18
	pace        = time.Minute
)

// Unhurried judges the times of one unit's attempts at what fails each time: pauses grow,
// so that after the first minute there are few attempts in any minute.
func Unhurried(attempts []time.Time) []string {
	var f findings
	attempts = slices.SortedFunc(slices.Values(attempts), time.Time.Compare)
	for i, from := range attempts {
		if from.Sub(attempts[0]) < hurried {
			continue
		}
		n := 0
		for n < len(attempts[i:]) && attempts[i+n].Sub(from) < pace {
			n++
		}
		if n > mostInAPace {
			f.note("there were %d attempts within %s of %s, more than %d", n, pace, clock(from), mostInAPace)
			break
		}
	}
	return f
}

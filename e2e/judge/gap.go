package judge

import (
	"fmt"
	"time"
)

// webGap is the longest that a web server may be silent when it is started anew: it needs
// seconds to start, and none to stop, for builds go on without it.
const webGap = 8 * time.Second

// WebGap judges the longest time in which a web server that was asked all along did not
// answer.
func WebGap(longest time.Duration) []string {
	if longest <= webGap {
		return nil
	}
	return []string{fmt.Sprintf("the web server did not answer for %s, longer than %s", longest.Round(100*time.Millisecond), webGap)}
}

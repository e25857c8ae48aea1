package record

import (
	"context"
	"sync"
	"time"
)

// watchEvery is how often a web server is asked that is watched.
const watchEvery = 100 * time.Millisecond

// WatchWeb asks the web server at an address for its version, ten times a second, until
// the function that it returns is called: that returns the longest time without an answer.
func (r *Recorder) WatchWeb(ctx context.Context, url string) (longest func() time.Duration) {
	ctx, end := context.WithCancel(ctx)
	var gap time.Duration
	var watching sync.WaitGroup
	last := time.Now()
	silence := func() { gap = max(gap, time.Since(last)) }
	watching.Go(func() {
		tick := time.NewTicker(watchEvery)
		defer tick.Stop()
		for ctx.Err() == nil {
			// A process that is being stopped may take a connection and say nothing.
			asked, cancel := context.WithTimeout(ctx, 10*watchEvery)
			_, err := r.o.Version(asked, url)
			cancel()
			if err == nil {
				silence()
				last = time.Now()
			}
			select {
			case <-ctx.Done():
			case <-tick.C:
			}
		}
	})
	return func() time.Duration {
		end()
		watching.Wait()
		silence()
		return gap
	}
}

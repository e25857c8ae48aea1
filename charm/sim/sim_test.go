package sim

import (
	"flag"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

var (
	seedFlag = flag.Uint64("seed", 0, "run this order only, and print it whole")
	orders   = flag.Int("orders", 1000, "how many orders to run")
)

// TestSimulation runs orders of a deployment, a change and a fault. One that breaks a rule
// prints its seed: go test ./charm/sim -run TestSimulation -seed N prints it whole.
func TestSimulation(t *testing.T) {
	if *seedFlag != 0 {
		if err := Run(*seedFlag, Product()); err != nil {
			t.Fatal(err)
		}
		return
	}
	n := *orders
	if testing.Short() {
		n = min(n, 100)
	}
	begin := time.Now()
	broken := survey(uint64(n), Product())
	t.Logf("%d orders in %v", n, time.Since(begin).Round(time.Millisecond))
	for _, seed := range slices.Sorted(maps.Keys(broken)) {
		lines := strings.SplitN(broken[seed].Error(), "\n", 3)
		t.Errorf("%s\n%s", lines[0], lines[1])
	}
}

// survey runs the orders of the first seeds, and returns what broke a rule, by seed.
func survey(n uint64, p Protocol) map[uint64]error {
	var next atomic.Uint64
	var lock sync.Mutex
	var all sync.WaitGroup
	broken := map[uint64]error{}
	for range runtime.GOMAXPROCS(0) {
		all.Go(func() {
			for seed := next.Add(1); seed <= n; seed = next.Add(1) {
				if err := Run(seed, p); err != nil {
					lock.Lock()
					broken[seed] = err
					lock.Unlock()
				}
			}
		})
	}
	all.Wait()
	return broken
}

package coordinator

import (
	"io"
	"sync"
)

// ahead reads in a goroutine of its own, so that the network and the hashing
// go on while the reader inflates. It keeps aheadBlocks blocks at most.
type ahead struct {
	full  chan block
	empty chan []byte
	stop  chan struct{}
	done  sync.WaitGroup
	block block
	rest  []byte
}

type block struct {
	data []byte
	n    int
	err  error
}

const (
	aheadBlocks = 4
	aheadBlock  = 1 << 20
)

func readAhead(r io.Reader) *ahead {
	a := &ahead{
		full:  make(chan block, aheadBlocks),
		empty: make(chan []byte, aheadBlocks),
		stop:  make(chan struct{}),
	}
	for range aheadBlocks {
		a.empty <- make([]byte, aheadBlock)
	}
	a.done.Go(func() {
		for {
			select {
			case <-a.stop:
				return
			case data := <-a.empty:
				// Not io.ReadFull: on a slow line the reader should see bytes as they come.
				n, err := r.Read(data)
				a.full <- block{data, n, err}
				if err != nil {
					return
				}
			}
		}
	})
	return a
}

func (a *ahead) Read(p []byte) (int, error) {
	for len(a.rest) == 0 {
		if a.block.err != nil {
			return 0, a.block.err
		}
		if a.block.data != nil {
			a.empty <- a.block.data
		}
		a.block = <-a.full
		a.rest = a.block.data[:a.block.n]
	}
	n := copy(p, a.rest)
	a.rest = a.rest[n:]
	return n, nil
}

// Close waits until nobody reads from the source any more. That may take as
// long as one read does.
func (a *ahead) Close() error {
	close(a.stop)
	a.done.Wait()
	return nil
}

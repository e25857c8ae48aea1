package record

import (
	"sync"
	"time"

	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/observation"
)

// Beside runs builds beside the scenario until the function that it returns is called,
// which waits for the last one, or until End.
func (r *Recorder) Beside(builds func(stop <-chan struct{})) (end func()) {
	stop := make(chan struct{})
	var done sync.WaitGroup
	r.mu.Lock()
	defer r.mu.Unlock()
	n := len(r.record.Beside)
	r.record.Beside = append(r.record.Beside, observation.Span{Begin: time.Now().UTC()})
	done.Go(func() { builds(stop) })
	end = sync.OnceFunc(func() {
		close(stop)
		done.Wait()
		r.mu.Lock()
		defer r.mu.Unlock()
		r.record.Beside[n].End = time.Now().UTC()
	})
	r.beside = append(r.beside, end)
	return end
}

// End waits for what runs beside the scenario, which has come to its end.
func (r *Recorder) End() {
	r.mu.Lock()
	all := r.beside
	r.mu.Unlock()
	for _, end := range all {
		end()
	}
}

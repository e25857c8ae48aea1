package record

import "sync"

// Beside runs something beside the scenario until the function that it returns is called,
// which waits for it, or until End.
func (r *Recorder) Beside(do func(stop <-chan struct{})) (end func()) {
	stop := make(chan struct{})
	var done sync.WaitGroup
	done.Go(func() { do(stop) })
	end = sync.OnceFunc(func() {
		close(stop)
		done.Wait()
	})
	r.mu.Lock()
	defer r.mu.Unlock()
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

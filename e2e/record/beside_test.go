package record_test

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/record"
)

// TestBeside: what runs beside a scenario has come to its own end when either of the two
// that stop it returns.
func TestBeside(t *testing.T) {
	for name, ends := range map[string]func(r *record.Recorder, end func()){
		"stopped by the scenario":    func(_ *record.Recorder, end func()) { end(); end() },
		"at the end of the scenario": func(r *record.Recorder, _ func()) { r.End() },
		"by both":                    func(r *record.Recorder, end func()) { end(); r.End() },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := record.New(record.Options{T: &scenario{}})
				var rounds, ended atomic.Int64
				end := r.Beside(func(stop <-chan struct{}) {
					for {
						select {
						case <-stop:
							time.Sleep(3 * time.Second) // the last build
							ended.Add(1)
							return
						case <-time.After(time.Second):
							rounds.Add(1)
						}
					}
				})
				time.Sleep(10500 * time.Millisecond)
				ends(r, end)
				require.EqualValues(t, 1, ended.Load())
				require.EqualValues(t, 10, rounds.Load())
			})
		})
	}
}

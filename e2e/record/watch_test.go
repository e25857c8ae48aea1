package record_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/concourse-ci-machine/concourse-ci-machine/e2e/record"
)

// TestWatchWeb: a silence counts in the middle, and also if it has not ended.
func TestWatchWeb(t *testing.T) {
	for name, silent := range map[string]struct {
		from, to time.Duration
		want     time.Duration
	}{
		"never":            {time.Hour, time.Hour, 0},
		"for four seconds": {time.Second, 5 * time.Second, 4 * time.Second},
		"to the end":       {3 * time.Second, time.Hour, 7 * time.Second},
		"from the start":   {0, time.Hour, 10 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				r := record.New(record.Options{T: &scenario{}, Version: func(ctx context.Context, _ string) (string, error) {
					if at := time.Since(start); at >= silent.from && at < silent.to {
						return "", errors.New("connection refused")
					}
					return "7.14.2", nil
				}})
				longest := r.WatchWeb(t.Context(), "http://10.0.3.1:8080")
				time.Sleep(10 * time.Second)
				require.InDelta(t, silent.want, longest(), float64(200*time.Millisecond))
			})
		})
	}
}

// TestWatchWebThatHangs: a server that takes a connection and says nothing is silent, and
// is asked anew.
func TestWatchWebThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		r := record.New(record.Options{T: &scenario{}, Version: func(ctx context.Context, _ string) (string, error) {
			if time.Since(start) >= 3*time.Second {
				return "7.14.2", nil
			}
			<-ctx.Done()
			return "", ctx.Err()
		}})
		longest := r.WatchWeb(t.Context(), "http://10.0.3.1:8080")
		time.Sleep(10 * time.Second)
		require.InDelta(t, 3*time.Second, longest(), float64(1200*time.Millisecond))
	})
}

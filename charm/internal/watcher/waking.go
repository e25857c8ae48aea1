package watcher

import (
	"context"
	"time"
)

// waking brings what was found to the charm, one hook at a time.
type waking struct {
	attempt attempt[struct{}]
	pending Found     // what the wake under way brings
	told    *Found    // nil before the first wake
	at      time.Time // end of the last wake
}

// wakeLimit bounds a wake: the agent may be busy with a long hook.
const wakeLimit = 10 * time.Minute

func (k *waking) consider(ctx context.Context, w *Watcher) {
	if k.attempt.result == nil {
		if !k.due(w) {
			return
		}
		k.pending = w.found
	}
	_, done, err := k.attempt.poll(ctx, w.pause, func(ctx context.Context) (struct{}, error) {
		ctx, cancel := context.WithTimeout(ctx, wakeLimit)
		defer cancel()
		return struct{}{}, w.Wake(ctx)
	})
	if err != nil {
		// The agent may be busy or not up yet.
		k.at = time.Now()
		w.Log.Warn("cannot wake the charm", "error", err)
	}
	if done {
		told := k.pending
		k.told, k.at = &told, time.Now()
	}
}

// due tells whether there is news. That a download goes on is news, but not at
// every look.
func (k *waking) due(w *Watcher) bool {
	if k.told == nil || w.Files.Journal().Waiting() {
		return true
	}
	calm := w.found
	calm.Percent = k.told.Percent
	return calm != *k.told || (w.found != *k.told || w.want.Again) && time.Since(k.at) >= w.Progress
}

package supervisor

import (
	"context"
	"time"
)

// waking brings the status to the charm, one hook at a time.
type waking struct {
	attempt attempt[struct{}]
	pending Status    // what the wake under way brings
	told    *Status   // nil before the first wake
	at      time.Time // end of the last wake
	moved   bool      // the status has changed since the wake under way began
}

// wakeLimit bounds a wake: the agent may be busy with a long hook.
const wakeLimit = 10 * time.Minute

func (k *waking) consider(ctx context.Context, s *Supervisor) {
	if !k.attempt.busy() {
		if !k.due(s) {
			return
		}
		k.pending, k.moved = s.status, false
	}
	k.moved = k.moved || !k.pending.calm(s.status)
	_, done, err := k.attempt.poll(ctx, s, func(ctx context.Context) (struct{}, error) {
		ctx, cancel := context.WithTimeout(ctx, wakeLimit)
		defer cancel()
		return struct{}{}, s.Wake(ctx)
	})
	if err != nil {
		// The agent may be busy or not up yet. What a hook has seen meanwhile is not known.
		k.told, k.at = nil, time.Now()
		s.Log.Warn("cannot wake the charm", "error", err)
	}
	if done {
		told := k.pending
		k.told, k.at = &told, time.Now()
		if k.moved { // the hook has seen one thing or the other
			k.told = nil
		}
	}
}

// calm tells whether a status has no news but progress.
func (s Status) calm(other Status) bool {
	other.Percent = s.Percent
	other.Migration.Done, other.Migration.Minutes = s.Migration.Done, s.Migration.Minutes
	return s == other
}

// due tells whether there is news. That a download goes on is news, but not at
// every look.
func (k *waking) due(s *Supervisor) bool {
	if k.told == nil || s.files.Journal().Waiting() {
		return true
	}
	again := s.spec.Again || s.status != *k.told
	return !k.told.calm(s.status) || again && time.Since(k.at) >= s.Progress
}

package coordinator

import (
	"context"
	"encoding/json"
	"sync"
	"time"

	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/durable"
	"github.com/concourse-ci-machine/concourse-ci-machine/coordinator/internal/fetch"
)

// meter reports how far a download is, once a second.
type meter struct {
	Progress
	u       *unit
	d       *fetch.Download
	done    chan struct{}
	stopped sync.WaitGroup
	lost    error
}

func (m *meter) start(ctx context.Context) {
	m.done = make(chan struct{})
	m.report(ctx)
	m.stopped.Go(func() {
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for m.lost == nil {
			select {
			case <-m.done:
				return
			case <-tick.C:
				m.report(ctx)
			}
		}
	})
}

// stop returns why the volume cannot be used any more, if it cannot.
func (m *meter) stop() error {
	close(m.done)
	m.stopped.Wait()
	return m.lost
}

// report writes down how far the download is, for the others. It stops the
// download when the volume is no longer there.
func (m *meter) report(ctx context.Context) {
	if m.lost = m.u.allow(ctx); m.lost != nil {
		m.d.Stop(m.lost)
		return
	}
	m.Bytes = m.d.Stats().Present
	m.u.c.options.Progress(m.Progress)
	// For people and for waiting units; no decision rests on it, so that a
	// power cut may have it, and a failure is no reason to give up.
	data, err := json.Marshal(m.Progress)
	if err != nil {
		return
	}
	tmp := progressFile + "." + m.u.name()
	if err := durable.Write(m.u.root, tmp, append(data, '\n')); err != nil {
		m.u.root.Remove(tmp)
		return
	}
	m.u.root.Rename(tmp, progressFile)
}

func (v *volume) progress() (Progress, error) {
	var p Progress
	data, err := durable.ReadFile(v.root, progressFile)
	if err != nil {
		return p, err
	}
	return p, json.Unmarshal(data, &p)
}
